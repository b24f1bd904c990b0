"""JobController: the verbs, and a job's life in a thread of its own."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from google.cloud import dataproc_v1 as sdk
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from tests.emulators.dataproc import checks, filters, lives
from tests.emulators.dataproc.clusters import page
from tests.emulators.dataproc.errors import ApiError
from tests.emulators.dataproc.faults import Rule
from tests.emulators.dataproc.machines import MachineJob
from tests.emulators.dataproc.world import JobEntry, JobPb, State, World

JobState = sdk.JobStatus.State
ListJobsResponse = sdk.ListJobsResponse.pb()
ACTIVE = (JobState.PENDING, JobState.SETUP_DONE, JobState.RUNNING, JobState.CANCEL_PENDING, JobState.CANCEL_STARTED)
_GROUPS = {
    "ACTIVE": {state.name for state in ACTIVE},
    "NON_ACTIVE": {"CANCELLED", "DONE", "ERROR", "ATTEMPT_FAILURE"},
}


class Jobs:
    def __init__(self, world: World) -> None:
        self.world = world

    def verbs(self) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
        return {
            "SubmitJob": (sdk.SubmitJobRequest.pb(), self.submit),
            "SubmitJobAsOperation": (sdk.SubmitJobRequest.pb(), self.submit_as_operation),
            "GetJob": (sdk.GetJobRequest.pb(), self.get),
            "ListJobs": (sdk.ListJobsRequest.pb(), self.list),
            "UpdateJob": (sdk.UpdateJobRequest.pb(), self.update),
            "CancelJob": (sdk.CancelJobRequest.pb(), self.cancel),
            "DeleteJob": (sdk.DeleteJobRequest.pb(), self.delete),
        }

    # -- verbs

    def submit(self, request: Any) -> Any:
        world, project, region = self.world, request.project_id, request.region
        checks.place(project, region)
        checks.request_id(request.request_id)
        world.quota("job", project, region)
        with world.lock:
            entry = world.once("SubmitJob", project, region, request.request_id, lambda: self._submit(request))
            return _copy(entry.pb)

    def submit_as_operation(self, request: Any) -> Any:
        job = self.submit(request)
        name = f"projects/{request.project_id}/regions/{request.region}/operations/{job.reference.job_id}"
        return operations_pb2.Operation(name=name)

    def _submit(self, request: Any) -> JobEntry:
        world, given = self.world, request.job
        job_id = given.reference.job_id or str(uuid.uuid4())
        checks.job_id(job_id)
        checks.labels(given.labels)
        kind = given.WhichOneof("type_job")
        if kind is None:
            raise checks.bad("Job type is required.")
        if kind == "pyspark_job" and not given.pyspark_job.main_python_file_uri:
            raise checks.bad("main_python_file_uri is required.")
        if not given.placement.cluster_name:
            raise checks.bad("Cluster name is required.")
        cluster = world.cluster((request.project_id, request.region, given.placement.cluster_name))
        key = (request.project_id, request.region, job_id)
        if key in world.jobs:
            path = "projects/{}/regions/{}/jobs/{}".format(*key)
            raise ApiError("ALREADY_EXISTS", f"Already exists: Failed to submit job: Job {path}")
        if cluster.state not in (State.RUNNING, State.UPDATING, State.ERROR_DUE_TO_UPDATE):
            raise ApiError(
                "FAILED_PRECONDITION",
                f"Unable to submit job, cluster '{cluster.name}' is in state {State(cluster.state).name} and cannot"
                " accept jobs.",
            )
        pb = JobPb()
        pb.CopyFrom(given)
        for output in ("status", "status_history", "yarn_applications", "done"):
            pb.ClearField(output)
        pb.reference.project_id, pb.reference.job_id = request.project_id, job_id
        pb.placement.cluster_uuid = cluster.pb.cluster_uuid
        pb.job_uuid = str(uuid.uuid4())
        pb.driver_control_files_uri = f"{cluster.spec.metainfo}/jobs/{job_id}/"
        pb.driver_output_resource_uri = f"{pb.driver_control_files_uri}driveroutput"
        entry = JobEntry(key=key, pb=pb, cluster=cluster)
        world.set_job_state(entry, JobState.PENDING)
        world.jobs[key] = entry
        cluster.active.add(job_id)
        threading.Thread(target=_live, args=(world, entry), daemon=True).start()
        return entry

    def get(self, request: Any) -> Any:
        self.world.quota("read", request.project_id, request.region)
        with self.world.lock:
            return _copy(self.world.job((request.project_id, request.region, request.job_id)).pb)

    def list(self, request: Any) -> Any:
        world = self.world
        world.quota("read", request.project_id, request.region)
        terms = filters.parse(request.filter, {"status.state"})
        if request.job_state_matcher and not any(field == "status.state" for field, _ in terms):
            matcher = sdk.ListJobsRequest.JobStateMatcher(request.job_state_matcher).name
            terms += [("status.state", matcher)] if matcher != "ALL" else []
        with world.lock:
            found = [
                entry.pb
                for entry in reversed(list(world.jobs.values()))
                if entry.key[:2] == (request.project_id, request.region)
                and request.cluster_name in ("", entry.pb.placement.cluster_name)
                and filters.matches(terms, lambda field, pb=entry.pb: _field(pb, field), _GROUPS)
            ]
            items, token = page(found, request.page_size, request.page_token)
            return ListJobsResponse(jobs=items, next_page_token=token)

    def update(self, request: Any) -> Any:
        with self.world.lock:
            entry = self.world.job((request.project_id, request.region, request.job_id))
            if list(request.update_mask.paths) != ["labels"]:
                raise checks.bad("update_mask must be 'labels'.")
            checks.labels(request.job.labels)
            entry.pb.ClearField("labels")
            entry.pb.labels.update(request.job.labels)
            return _copy(entry.pb)

    def cancel(self, request: Any) -> Any:
        """Of a job that has ended: nothing, as Google does it."""
        world = self.world
        world.quota("job", request.project_id, request.region)
        with world.lock:
            entry = world.job((request.project_id, request.region, request.job_id))
            if not entry.ended.is_set() and not entry.cancelled.is_set():
                world.set_job_state(entry, JobState.CANCEL_PENDING)
                entry.cancelled.set()
            return _copy(entry.pb)

    def delete(self, request: Any) -> Any:
        world = self.world
        world.quota("job", request.project_id, request.region)
        with world.lock:
            entry = world.job((request.project_id, request.region, request.job_id))
            if not entry.ended.is_set():
                raise ApiError("FAILED_PRECONDITION", f"Cannot delete active job '{request.job_id}'.")
            del world.jobs[entry.key]
            return empty_pb2.Empty()


# ---------------------------------------------------------------- a job's life


def _live(world: World, entry: JobEntry) -> None:
    rules = world.faults.due("job", entry.cluster.name, entry.key[0])
    output = world.folder / "output" / entry.pb.job_uuid
    output.parent.mkdir(parents=True, exist_ok=True)
    output.touch()
    code, why = 0, ""
    try:
        body = _prepare(world, entry, rules)
        if not entry.cancelled.is_set():
            with world.lock:
                if not entry.ended.is_set():
                    world.set_job_state(entry, JobState.SETUP_DONE)
                    world.set_job_state(entry, JobState.RUNNING)
            copier = threading.Thread(target=_copy_output, args=(world, entry, output), daemon=True)
            copier.start()
            code = _body(world, entry, body) if body else _run(world, entry, output)
        if entry.cancelled.is_set() and not entry.ended.is_set():
            world.set_job_state(entry, JobState.CANCEL_STARTED)
    except ApiError as refused:
        code, why = -1, refused.message
    except Exception as crash:
        code, why = -1, f"Task could not be run: {type(crash).__name__}: {crash}"
    with world.lock:
        if entry.cancelled.is_set():
            world.end_job(entry, JobState.CANCELLED)
        elif code:
            world.end_job(entry, JobState.ERROR, why or _report(entry))
        else:
            world.end_job(entry, JobState.DONE)
        world.idle(entry.cluster)


def _prepare(world: World, entry: JobEntry, rules: list[Rule]) -> Rule | None:
    """Up to the start of its process; what runs in its place, if a rule says so."""
    entry.cancelled.wait(world.settings.job_start)
    body = None
    for rule in rules:
        if rule["do"] == "stuck":
            world.faults.hold(rule, entry.cancelled)
        elif rule["do"] == "lost":
            raise ApiError("INTERNAL", "Task not acquired")
        elif rule["do"] == "error":
            raise ApiError("INTERNAL", rule.get("message", "Task not found"))
        elif rule["do"] == "cluster_error":
            threading.Thread(target=_kill_cluster, args=(world, entry, rule), daemon=True).start()
        else:
            body = rule
    return body


def _kill_cluster(world: World, entry: JobEntry, rule: Rule) -> None:
    if not entry.ended.wait(float(rule.get("seconds", 0))):
        lives.die(world, entry.cluster, lives.reason(entry.cluster, {"reason": "agent", **rule}).message)


def _body(world: World, entry: JobEntry, rule: Rule) -> int:
    """No process at all: so many seconds, and an exit code."""
    world.faults.hold(rule, entry.cancelled, float(rule.get("seconds", 0)))
    return int(rule.get("exit", 0))


def _run(world: World, entry: JobEntry, output: Any) -> int:
    if entry.pb.WhichOneof("type_job") != "pyspark_job":
        raise ApiError("UNIMPLEMENTED", "The emulator runs PySpark jobs only.")
    spark = entry.pb.pyspark_job
    job = MachineJob(
        id=entry.key[2], main_uri=spark.main_python_file_uri, args=list(spark.args), properties=dict(spark.properties)
    )
    return world.machines.run(entry.cluster.spec, job, output, entry.cancelled)


def _copy_output(world: World, entry: JobEntry, output: Any) -> None:
    """Chunks `driveroutput.000000000`, ...: the last one is written anew while it grows."""
    written, done = 0, False
    while not done:
        done = entry.ended.wait(world.settings.output_seconds)
        size = world.settings.output_chunk
        data = output.read_bytes()
        if len(data) == written and not (done and not data):
            continue
        for number in range(written // size, max(1, -(-len(data) // size))):
            try:
                chunk = data[number * size : (number + 1) * size]
                world.objects.write(f"{entry.pb.driver_output_resource_uri}.{number:09d}", chunk)
            except OSError as error:
                world.log.append({"time": time.time(), "event": f"driver output of {entry.key[2]}: {error}"})
                break
        else:
            written = len(data)
    output.unlink(missing_ok=True)


def _report(entry: JobEntry) -> str:
    project, region, job_id = entry.key
    bucket_path = entry.pb.driver_control_files_uri.removeprefix("gs://")
    return (
        "Google Cloud Dataproc Agent reports job failure. If logs are available, they can be found at:\n"
        f"https://console.cloud.google.com/dataproc/jobs/{job_id}?project={project}&region={region}\n"
        f"gcloud dataproc jobs wait '{job_id}' --region '{region}' --project '{project}'\n"
        f"https://console.cloud.google.com/storage/browser/{bucket_path}\n"
        f"{entry.pb.driver_output_resource_uri}.*"
    )


def _field(pb: Any, field: str) -> str | None:
    if field == "status.state":
        return str(JobState(pb.status.state).name)
    return pb.labels.get(field.removeprefix("labels."))


def _copy(pb: Any) -> Any:
    other = JobPb()
    other.CopyFrom(pb)
    return other
