"""Deletes while the job runs."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG

from mayfly.airflow.members import Job, Members
from mayfly.airflow.operators import (
    CollectMetricsOperator,
    CreateClusterOperator,
    DeleteClusterOperator,
    PlanOperator,
    ReportOperator,
    RunJobOperator,
)
from mayfly.project.loading import Project

job = Project.find(Path(__file__).parent).job("compose")
members = Members(group_id="by_hand", mapped=False, jobs={"run_job": Job(retries=0, timeout=None, may_skip=False)})
ours = {"job": job, "target": job.target, "members": members}

with DAG("delete_does_not_wait", schedule=None):
    plan = PlanOperator(task_id="plan", **ours).as_setup()
    create = CreateClusterOperator(task_id="create_cluster", **ours).as_setup()
    run = RunJobOperator(task_id="run_job", name="run_job", script=job.script, args=[], attempts=1, **ours)
    collect = CollectMetricsOperator(task_id="collect_metrics", **ours)
    delete = DeleteClusterOperator(task_id="delete_cluster", **ours)
    report = ReportOperator(task_id="report", **ours)
    plan >> create >> run >> collect >> report
    for teardown in (collect, delete, report):
        teardown.as_teardown(setups=[plan, create], on_failure_fail_dagrun=teardown is report)
