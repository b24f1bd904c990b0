from __future__ import annotations

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from mayfly.spec import cron

GOOD = [
    "* * * * *",
    "*/15 * * * *",
    "0 6 * * 1-5",
    "0 6 1,15 * *",
    "0 0-23/2 * jan-mar SUN",
    "0 0 L * *",
    "0 0 * * 5#2",
    "0 0 * * L5",
    "5/10 * * * *",
    "0 0 * * 7",
]


@pytest.mark.parametrize("text", [*GOOD, *cron.PRESETS])
def test_good(text: str) -> None:
    assert cron.check(text) == text


@pytest.mark.parametrize("text", GOOD)
def test_what_we_take_airflow_takes(text: str) -> None:
    assert croniter.is_valid(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("@dialy", "did you mean '@daily'"),
        ("@", "unknown preset"),
        ("", "0 fields"),
        ("daily", "1 fields"),
        ("* * * *", "4 fields"),
        ("0 0 * * * *", "6 fields"),
        ("60 * * * *", "'60' is no minute; allowed: 0-59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 0 0 * *", "'0' is no day of month"),
        ("0 0 * 13 *", "'13' is no month"),
        ("0 0 * foo *", "jan, feb"),
        ("0 0 * * 8", "'8' is no day of week"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("*/99 * * * *", "'*/99' is no minute"),
        ("5-1 * * * *", "'5-1' is no minute"),
        ("1,,2 * * * *", "'' is no minute"),
        ("*-5 * * * *", "'*-5' is no minute"),
    ],
)
def test_bad(text: str, part: str) -> None:
    with pytest.raises(ValueError) as caught:
        cron.check(text)
    assert part in str(caught.value)


def test_spaces_are_one() -> None:
    assert cron.check(" 0  6 * *   1 ") == "0 6 * * 1"


FIELD = st.one_of(
    st.just("*"),
    st.integers(0, 70).map(str),
    st.tuples(st.integers(0, 31), st.integers(0, 31)).map(lambda p: f"{p[0]}-{p[1]}"),
    st.integers(0, 70).map(lambda n: f"*/{n}"),
    st.sampled_from(["jan", "mon", "L", "3#2", "x", "1,2", "1,x", "2-4/2"]),
)


@given(st.tuples(*[FIELD] * 5).map(" ".join))
def test_we_take_nothing_that_airflow_refuses(text: str) -> None:
    try:
        cron.check(text)
    except ValueError:
        return
    assert croniter.is_valid(text)
