"""What Google refuses at once (INVALID_ARGUMENT). Sentences modelled on Google's, not copied from a live API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.emulators.dataproc import catalogue
from tests.emulators.dataproc.errors import ApiError
from tests.emulators.dataproc.shapes import short, single_node

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,49}[a-z0-9])?")
_JOB_ID = re.compile(r"[a-zA-Z0-9_-]{1,100}")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_POLICY_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{1,48}[a-zA-Z0-9]")
_REQUEST_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_TAG = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_PREFIXES = """
    capacity-scheduler core dataproc dataproc.storage delta distcp flink flink-log4j hadoop-env hadoop-log4j hbase
    hbase-log4j hdfs hive hive-log4j2 hudi iceberg knox mapred mapred-env pig pig-log4j presto presto-jvm ranger-hdfs
    ranger-hive solr spark spark-env spark-log4j tez trino trino-jvm yarn yarn-env zeppelin zookeeper"""
PREFIXES = frozenset(_PREFIXES.split())
DAY = 86400.0


def bad(message: str) -> ApiError:
    return ApiError("INVALID_ARGUMENT", message)


def place(project: str, region: str) -> None:
    if not project:
        raise bad("Project id is required.")
    if region not in catalogue.REGIONS:
        raise bad(f"Region '{region}' is invalid or not supported.")


def request_id(given: str) -> None:
    if given and not _REQUEST_ID.fullmatch(given):
        raise bad(f"Invalid request_id '{given}': letters, digits, '_' and '-' only, at most 40 characters.")


def labels(given: Mapping[str, str]) -> None:
    if len(given) > 32:
        raise bad(f"No more than 32 labels can be associated with a resource; there are {len(given)}.")
    for key, value in given.items():
        if not _LABEL_KEY.fullmatch(key):
            raise bad(f"Invalid label key '{key}': must match '{_LABEL_KEY.pattern}'.")
        if not _LABEL_VALUE.fullmatch(value):
            raise bad(f"Invalid label value '{value}' of '{key}': must match '{_LABEL_VALUE.pattern}'.")


def job_id(given: str) -> None:
    if not _JOB_ID.fullmatch(given):
        raise bad(f"Invalid job id '{given}': must match '{_JOB_ID.pattern}'.")


def seconds(duration: Any) -> float:
    value: float = duration.ToTimedelta().total_seconds()
    return value


def cluster(given: Any, *, region: str) -> None:
    """Refuses what the create request must not contain."""
    if not _NAME.fullmatch(given.cluster_name):
        raise bad(
            f"Invalid cluster name '{given.cluster_name}': it must begin with a lowercase letter, followed by up to 50"
            " lowercase letters, digits or hyphens, and cannot end with a hyphen."
        )
    labels(given.labels)
    config = given.config
    if config.config_bucket and not _BUCKET.fullmatch(config.config_bucket):
        raise bad(f"Invalid bucket name '{config.config_bucket}': a name without gs:// is wanted.")
    software = config.software_config
    if catalogue.image_version(software.image_version) is None:
        raise bad(f"Selected software image version '{software.image_version}' is invalid or not supported.")
    for key in software.properties:
        prefix, colon, rest = key.partition(":")
        if not colon or not rest or prefix not in PREFIXES:
            raise bad(f"Unrecognized property prefix '{prefix}' in property '{key}'.")
    zone = short(config.gce_cluster_config.zone_uri) or f"{region}-a"
    if not re.fullmatch(f"{region}-[a-f]", zone):
        raise bad(f"Zone '{zone}' is not in region '{region}' or does not exist.")
    for tag in config.gce_cluster_config.tags:
        if not _TAG.fullmatch(tag):
            raise bad(f"Invalid network tag '{tag}'.")
    _groups(config, zone)
    for action in config.initialization_actions:
        if not re.match(r"gs://[^/]+/.+", action.executable_file):
            if not action.executable_file.startswith("file:///"):
                raise bad(f"Invalid URI for initialization action: '{action.executable_file}'.")
    lifecycle(config.lifecycle_config)


def _groups(config: Any, zone: str) -> None:
    workers, zero = config.worker_config.num_instances, "dataproc:dataproc.allow.zero.workers"
    if config.master_config.num_instances not in (0, 1, 3):
        raise bad(f"Number of masters must be 1 or 3; {config.master_config.num_instances} were asked for.")
    if workers == 1:
        raise bad("Clusters need 0 or at least 2 primary workers; 1 was asked for.")
    if workers < 0 or config.secondary_worker_config.num_instances < 0:
        raise bad("Numbers of instances must not be negative.")
    if not workers and config.HasField("worker_config") and config.software_config.properties.get(zero) != "true":
        raise bad(f"A cluster without workers needs the property '{zero}' = 'true'.")
    if single_node(config) and config.autoscaling_config.policy_uri:
        raise bad("A single node cluster cannot have an autoscaling policy.")
    if not workers and config.secondary_worker_config.num_instances:
        raise bad("Secondary workers need at least 2 primary workers.")
    for what in ("master_config", "worker_config", "secondary_worker_config"):
        group = getattr(config, what)
        kind = short(group.machine_type_uri)
        if kind and catalogue.machine(kind) is None:
            raise bad(f"Machine type with name '{kind}' does not exist in zone '{zone}'.")
        if kind.endswith("-lssd"):
            continue
        if group.disk_config.num_local_ssds > 24:
            raise bad(f"Too many local SSDs in {what}: {group.disk_config.num_local_ssds}.")
        if 0 < group.disk_config.boot_disk_size_gb < 10:
            raise bad(f"Boot disk of {what} is too small: {group.disk_config.boot_disk_size_gb} GB; at least 10 GB.")


def lifecycle(given: Any) -> None:
    for field, least in (("idle_delete_ttl", 300.0), ("auto_delete_ttl", 600.0)):
        if given.HasField(field):
            value = seconds(getattr(given, field))
            if not least <= value <= 14 * DAY:
                raise bad(f"Invalid {field} of {value:.0f}s: must be between {least:.0f}s and {14 * DAY:.0f}s.")


def policy(given: Any) -> None:
    if not _POLICY_ID.fullmatch(given.id):
        raise bad(f"Invalid autoscaling policy id '{given.id}': 3 to 50 letters, digits, '_' and '-'.")
    labels(given.labels)
    algorithm, yarn = given.basic_algorithm, given.basic_algorithm.yarn_config
    if not given.HasField("basic_algorithm") or not algorithm.HasField("yarn_config"):
        raise bad("basic_algorithm.yarn_config is required.")
    if algorithm.HasField("cooldown_period") and not 120 <= seconds(algorithm.cooldown_period) <= DAY:
        raise bad("basic_algorithm.cooldown_period must be between 2m and 1d.")
    if not yarn.HasField("graceful_decommission_timeout"):
        raise bad("basic_algorithm.yarn_config.graceful_decommission_timeout is required.")
    if not 0 <= seconds(yarn.graceful_decommission_timeout) <= DAY:
        raise bad("graceful_decommission_timeout must be between 0s and 1d.")
    for name in ("scale_up_factor", "scale_down_factor", "scale_up_min_worker_fraction"):
        if not 0.0 <= getattr(yarn, name) <= 1.0:
            raise bad(f"{name} must be between 0.0 and 1.0.")
    if given.worker_config.max_instances < 2:
        raise bad("worker_config.max_instances is required and must be at least 2.")
    for name in ("worker_config", "secondary_worker_config"):
        group = getattr(given, name)
        if group.min_instances > group.max_instances:
            raise bad(f"{name}.min_instances must not be greater than max_instances.")
