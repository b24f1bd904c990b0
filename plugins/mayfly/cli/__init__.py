"""The `mayfly` command: runs, and the tools of whoever is on call, without Airflow."""
