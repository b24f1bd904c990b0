"""How the host starts Dask workers."""
