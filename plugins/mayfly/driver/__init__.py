"""What runs on the cluster: the supervisor (`__main__`) and its two children, the host and the user's script."""
