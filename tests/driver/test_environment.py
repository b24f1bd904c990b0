from __future__ import annotations

from mayfly.driver.environment import dask_settings, nested
from tests.driver.driving import make_order


def test_dotted_and_nested_settings_are_one() -> None:
    assert nested({"a.b.c": 1, "a": {"b.d": 2, "e": 3}, "f": [1]}) == {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f": [1]}


def test_the_last_of_two_equal_settings_wins() -> None:
    assert nested({"a.b": 1, "a": {"b": 2}}) == {"a": {"b": 2}}


def test_names_of_loggers_keep_their_dots() -> None:
    assert nested({"logging": {"distributed.worker": "info"}}) == {"logging": {"distributed.worker": "info"}}


def test_a_job_may_overrule_our_defaults_but_not_lose_the_others() -> None:
    settings = dask_settings(make_order(dask={"distributed.scheduler.no-workers-timeout": "5s"}))
    assert settings["distributed"]["scheduler"]["no-workers-timeout"] == "5s"
    assert settings["distributed"]["scheduler"]["dashboard"]["tasks"]["task-stream-length"] == 10_000
