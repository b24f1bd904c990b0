"""Job environments: a Python interpreter with a job's packages in one archive, for nodes that never ask an index."""
