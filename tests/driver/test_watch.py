from __future__ import annotations

import pytest

from mayfly.contract import Limits, Phase
from mayfly.driver.watch import Activity, LeaseWatch, Seen, StallWatch, reason_to_end
from tests.driver.driving import make_order


def lease(ttl: float = 10.0) -> LeaseWatch:
    return LeaseWatch(ttl=ttl, longest_gap=3.0)


def test_a_renewed_lease_never_goes_stale() -> None:
    watch = lease()
    for now in range(100):
        watch.read(now, seq=now // 8)
        assert not watch.stale


def test_an_old_seq_goes_stale_after_its_ttl() -> None:
    watch = lease()
    for now in range(11):
        watch.read(now, seq=1)
    assert not watch.stale
    watch.read(11, seq=1)
    assert watch.stale


def test_a_lease_that_never_came_goes_stale_too() -> None:
    watch = lease()
    for now in range(12):
        watch.read(now, seq=None)
    assert watch.stale


def test_time_without_an_answer_does_not_count() -> None:
    watch = lease()
    watch.read(0, seq=1)
    for _ in range(1000):
        watch.unreadable()
    watch.read(5000, seq=1)
    assert not watch.stale


def test_a_supervisor_that_was_stopped_does_not_count_the_gap() -> None:
    watch = lease()
    watch.read(0, seq=1)
    for now in range(5000, 5008):  # the gap counts for 3 s
        watch.read(now, seq=1)
        assert not watch.stale
    watch.read(5008, seq=1)
    assert watch.stale


def test_the_lease_itself_may_change_the_ttl() -> None:
    watch = lease(ttl=1)
    watch.read(0, seq=1, ttl=60)
    watch.read(2, seq=1, ttl=60)
    assert not watch.stale


QUIET = Activity(tasks_done=3, output_bytes=10, transfers=5)


def test_each_kind_of_activity_keeps_a_job_alive() -> None:
    moves = [
        Activity(tasks_done=4, output_bytes=10, transfers=5),
        Activity(tasks_done=3, output_bytes=11, transfers=5),
        Activity(tasks_done=3, output_bytes=10, transfers=6),
        Activity(tasks_done=3, output_bytes=10, transfers=5, spilled=1),
        Activity(tasks_done=3, output_bytes=10, transfers=5, cpu=0.06),
        Activity(tasks_done=3, output_bytes=10, transfers=5, waiting_for_workers=True),
    ]
    for move in moves:
        watch = StallWatch(limit=10)
        watch.see(0, QUIET)
        watch.see(9, move)
        assert not watch.stalled(11), move


def test_a_heartbeat_is_no_activity() -> None:
    watch = StallWatch(limit=10)
    watch.see(0, QUIET)
    watch.see(9, Activity(tasks_done=3, output_bytes=10, transfers=5, cpu=0.04))
    assert watch.stalled(10)


def test_half_time_is_told_once_per_quiet_spell() -> None:
    watch = StallWatch(limit=10)
    watch.see(0, QUIET)
    assert [watch.half(now) for now in (4, 5, 6)] == [False, True, False]
    watch.see(7, Activity(tasks_done=4))
    assert [watch.half(now) for now in (8, 12, 13)] == [False, True, False]


def test_zero_turns_the_stall_watch_off() -> None:
    watch = StallWatch(limit=0)
    watch.see(0, QUIET)
    watch.see(1e6, QUIET)
    assert not watch.stalled(1e6)
    assert not watch.half(1e6)


ORDER = make_order(limits=Limits(start=10, job=100, stall=50), script_memory=1000, expires_at=1e9)


def seen(phase: Phase = Phase.RUN, **what: object) -> Seen:
    return Seen(**{"phase": phase, "now": 1.0, **what})  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_quiet_life_goes_on(phase: Phase) -> None:
    assert reason_to_end(seen(phase, elapsed=9, in_phase=99), ORDER) is None


@pytest.mark.parametrize(
    ("what", "by", "limit"),
    [
        ({"signal": "SIGTERM"}, "cancelled", 0),
        ({"carrier_gone": True}, "carrier", 0),
        ({"closing": "delete"}, "closing", 0),
        ({"now": 1e9}, "expired", 0),
        ({"lease_stale": True, "lease_ttl": 60.0}, "lease", 60),
        ({"start_error": "no module"}, "start", 0),
        ({"in_phase": 101.0}, "timeout", 100),
        ({"stalled": True}, "stalled", 50),
        ({"script_memory": 1001}, "script_memory", 1000),
        ({"phase": Phase.START, "elapsed": 11.0}, "start", 10),
        ({"phase": Phase.PREFLIGHT, "elapsed": 11.0}, "start", 10),
    ],
)
def test_each_reason_alone(what: dict[str, object], by: str, limit: float) -> None:
    ended = reason_to_end(seen(**what), ORDER)  # type: ignore[arg-type]
    assert ended is not None
    assert (ended.by, ended.limit) == (by, limit)


def test_who_asks_for_the_end_reads_of_it() -> None:
    everything = seen(signal="SIGTERM", closing="x", now=1e9, lease_stale=True, in_phase=999.0, stalled=True)
    ended = reason_to_end(everything, ORDER)
    assert ended is not None
    assert ended.by == "cancelled"


def test_the_start_limit_does_not_count_in_the_run() -> None:
    assert reason_to_end(seen(Phase.RUN, elapsed=1e6), ORDER) is None
