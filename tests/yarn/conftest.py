"""Tests on a real Hadoop; its fixtures (`hadoop`, `hadoop_env`) are in fixtures.py, for other folders, too."""
