"""Travels in the code archive, beside the driver's own modules: notes each call that the driver makes to the store,
and kills the driver at one of them, once in a run."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from inspect import isfunction
from pathlib import Path
from typing import Any

PASSES = 2


def verbs(protocol: type) -> list[str]:
    """What a Protocol asks for: nobody lists it, so that a new verb is tapped as soon as it is there."""
    return [name for name in dir(protocol) if not name.startswith("_") and isfunction(getattr(protocol, name))]


def install(rundir: str) -> None:
    """`driver-point` in the world's folder: call, how often, when. `driver-trace`: all calls."""
    from mayfly.staging.stores import FileStore, Store

    world = Path(rundir.removeprefix("file://")).parents[2]
    orders = world / "driver-point"
    point = json.loads(orders.read_text()) if orders.exists() else None
    seen: dict[tuple[str, str], int] = {}
    lock = threading.Lock()

    def at(when: str, call: str) -> None:
        with lock:
            nth = seen[call, when] = seen.get((call, when), 0) + 1
            if nth <= PASSES:
                with (world / "driver-trace").open("a") as file:
                    file.write(json.dumps([call, nth, when]) + "\n")
        if [call, nth, when] == point:
            try:
                os.close(os.open(world / "driver-died", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    def tap(verb: str) -> None:
        inner = getattr(FileStore, verb)

        def tapped(store: Any, path: str, *args: Any, **kwargs: Any) -> Any:
            call = f"store.{verb} {kind(path)}"
            at("before", call)
            try:
                return inner(store, path, *args, **kwargs)
            finally:
                at("after", call)

        setattr(FileStore, verb, tapped)

    for verb in verbs(Store):
        tap(verb)


def kind(path: str) -> str:
    """Without what differs from run to run and from attempt to attempt."""
    path = re.sub(r"^runs/[^/]+/?", "", path)
    return re.sub(r"\d{6}", "#", re.sub(r"^jobs/[^/]+/\d+/", "", path))
