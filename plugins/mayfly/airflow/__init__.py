"""The only package of Mayfly that imports Airflow."""
