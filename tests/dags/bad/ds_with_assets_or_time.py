"""Half of its runs have a date; and the task that uses it is not of the cluster."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, task
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

from mayfly.airflow.taskgroup import dask_cluster

either = AssetOrTimeSchedule(
    timetable=CronTriggerTimetable("0 6 * * *", timezone="UTC"), assets=Asset("numbers") | Asset("letters")
)
with DAG("ds_with_assets_or_time", schedule=either) as dag:

    @task
    def say(day: str) -> None:
        print(day)

    with dask_cluster("compose") as cluster:
        cluster.run("prepare.py", args=[{"of": ["{{ run_date }}"]}])
    cluster >> say("{{ ds }}")
