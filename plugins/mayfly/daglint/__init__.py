"""What Mayfly says about DAG files. Pure but for `checking`, which starts the process that imports them."""
