"""Google Cloud: what Dataproc is asked for and what its answers mean. Pure; the SDK is in `backends/dataproc` alone."""
