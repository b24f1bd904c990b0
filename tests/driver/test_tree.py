from __future__ import annotations

import subprocess
import sys

import psutil

from mayfly.driver import tree
from tests.processes import end


def test_what_a_dead_process_had_started_is_still_known_as_its_own() -> None:
    """As the workers of a host that has ended: their memory is not the script's."""
    start = ["sh", "-c", "sleep 300 >&2 & sleep 300 >&2 & echo $!; wait"]
    with subprocess.Popen(start, stdout=subprocess.PIPE, start_new_session=True, text=True) as host:
        assert host.stdout is not None
        last = psutil.Process(int(host.stdout.readline()))
        everyone = tree.descendants(host.pid)
        mine = tree.descendants()
        try:
            assert {host.pid, *(one.pid for one in everyone)} <= {one.pid for one in mine}
            assert len(everyone) == 2 and last in everyone
            assert tree.below(host.pid, mine) == {one.pid for one in everyone}
            host.kill()
            host.wait()
            assert tree.below(host.pid, everyone) == {one.pid for one in everyone}
        finally:
            for process in everyone:
                end(process)


def test_a_process_that_has_ended_uses_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        process = psutil.Process(child.pid)
        child.wait()
        assert tree.memory_of_all([process]) == 0
