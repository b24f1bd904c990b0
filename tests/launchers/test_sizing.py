from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.driver.launchers.sizing import MIB, NANNY, SMALLEST, container_mib, worker_limit

SIZES = st.integers(min_value=SMALLEST, max_value=1 << 42)


@given(SIZES)
def test_dask_acts_before_yarn(container: int) -> None:
    """At its own worst (0.95 or, in the tightest profile, 0.98 of the limit) the worker and its nanny still fit."""
    assert worker_limit(container) * 0.98 + NANNY <= container


@given(SIZES)
def test_most_of_the_container_is_the_workers(container: int) -> None:
    assert worker_limit(container) > 0.65 * container
    if container >= 4 << 30:
        assert worker_limit(container) > 0.92 * container


@given(SIZES, st.integers(min_value=0, max_value=1 << 40))
def test_more_never_gives_less(container: int, more: int) -> None:
    assert worker_limit(container + more) >= worker_limit(container)


@given(SIZES)
def test_yarn_is_asked_for_no_less(container: int) -> None:
    assert 0 <= container_mib(container) * MIB - container < MIB


def test_known_values() -> None:
    assert worker_limit(1 << 30) / MIB == pytest.approx(877, abs=1)
    assert worker_limit(14_000_000_000) == pytest.approx(13.2e9, rel=0.005)


def test_too_small_says_what_is_needed() -> None:
    with pytest.raises(ValueError, match=r"256 MiB is too small for YARN.*at least 384 MiB"):
        worker_limit(256 * MIB)
