"""How a cluster and a driver are made, looked at and deleted: one module a place, see `base`."""
