"""An emulated Dataproc and an object store for benchmarks: no delays, no nodes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.cloud import object_store
from tests.emulators.dataproc.client import Emulator

TARGETS = """
targets:
  local:
    backend: local
    staging: .mayfly/staging
  gcp:
    backend: dataproc
    staging: gs://mayfly-bench/staging
    python: PYTHON
    gcp: {{project: mayfly-bench, region: us-central1, emulator: true, settle: 1s, call_deadline: {deadline}}}
    timing: {{lease_ttl_inline: 10m}}
""".replace("PYTHON", sys.executable)


@contextmanager
def cloud(**options: float) -> Iterator[Emulator]:
    """The emulator with its `options`; this process and its children are clients of both."""
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-cloud-") as folder:
        with object_store.start(Path(folder) / "store") as store:
            store.make_bucket("mayfly-bench")
            with Emulator(Path(folder) / "dataproc", env=dict(store.env), **options) as emulator:
                os.environ |= {**store.env, "DATAPROC_EMULATOR_HOST": emulator.host}
                yield emulator
