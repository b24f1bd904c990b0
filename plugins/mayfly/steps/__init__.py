"""The steps of a run, as pokes; whoever waits between two of them is in `airflow` or `cli`."""
