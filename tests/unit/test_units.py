from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

SIZES = {
    "14 GB": 14 * 10**9,
    "14GB": 14 * 10**9,
    "14 gb": 14 * 10**9,
    " 14  GB ": 14 * 10**9,
    "14 GiB": 14 * 2**30,
    "512MB": 512 * 10**6,
    "1.5 TB": 1_500_000_000_000,
    "1 B": 1,
    "0.5 KiB": 512,
    "2 kB": 2000,
}
DURATIONS = {
    "45s": 45.0,
    "90m": 5400.0,
    "90 min": 5400.0,
    "2h": 7200.0,
    "1d": 86400.0,
    "1h30m": 5400.0,
    "1h 30m": 5400.0,
    "0.5s": 0.5,
    "200ms": 0.2,
}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert re.search(SIZE_PATTERN, text)


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert re.search(DURATION_PATTERN, text)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (14, "14 has no unit"),
        ("14", "'14' has no unit"),
        (1.5, "1.5 has no unit"),
        (True, "True has no unit"),
        (None, "None has no unit"),
        ("14 GX", "unknown unit 'GX'"),
        ("14 Gi", "did you mean 'GiB'?"),
        ("90m", "unknown unit 'm'"),
        ("-4 GB", "'-4 GB' is no size"),
        ("0 GB", "must be more than 0"),
        ("0.0000000001 B", "is no size"),
        ("1e9 GB", "is no size"),
        ("", "is no size"),
        ("much", "is no size"),
        ("999999 PB", "too large; at most 1000 PB"),
        ("9" * 200 + " GB", "is no size"),
        ("١٤ GB", "is no size"),  # digits of another script
    ],
)
def test_bad_sizes_name_what_was_given_and_what_is_allowed(given: object, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)) as caught:
        parse_size(given)
    message = str(caught.value)
    assert "14 GB" in message or "more than 0" in message or "at most" in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (90, "90 has no unit"),
        ("90", "'90' has no unit"),
        (0, "0 has no unit"),
        (False, "False has no unit"),
        ("90 minutes", "unknown unit 'minutes'"),
        ("90 GB", "unknown unit 'GB'"),
        ("2H", "did you mean 'h'?"),
        ("-5m", "is no duration"),
        ("0s", "more than 0"),
        ("", "is no duration"),
        ("1h and a bit", "is no duration"),
        ("99999d", "too long; at most 3650d"),
    ],
)
def test_bad_durations_name_what_was_given_and_what_is_allowed(given: object, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        parse_duration(given)


@pytest.mark.parametrize("given", [0, "0", "off", "0s"])
def test_zero_only_where_it_means_off(given: object) -> None:
    assert parse_duration(given, zero=True) == 0.0
    with pytest.raises(ValueError):
        parse_duration(given)


def test_false_is_not_zero() -> None:
    with pytest.raises(ValueError, match="or 0 to turn it off"):
        parse_duration(False, zero=True)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_500_000, "1.5 MB"),
        (13_743_895_347, "13.7 GB"),
        (999_999, "1 MB"),
        (14 * 10**9, "14 GB"),
        (-2000, "-2 kB"),
        (2**70, "1180592 PB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (3.44, "3.4s"),
        (3.0, "3s"),
        (9.96, "10s"),
        (59.6, "1m"),
        (5025, "1h 23m 45s"),
        (90000, "1d 1h"),
        (-60, "-1m"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=1, max_value=10**18))
def test_a_formatted_size_reads_back_within_its_digits(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.006)


@given(st.integers(1, 999), st.sampled_from(["B", "kB", "MB", "GB", "TB"]))
def test_round_sizes_survive_the_round_trip(number: int, unit: str) -> None:
    assert format_size(parse_size(f"{number} {unit}")) == f"{number} {unit}"


@given(st.integers(1, 10 * 365 * 86400))
def test_whole_seconds_survive_the_round_trip(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.floats(min_value=0.001, max_value=1e8))
def test_any_duration_reads_back_within_its_digits(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.05, abs=0.0006)


@given(st.text(max_size=30))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse, pattern in ((parse_size, SIZE_PATTERN), (parse_duration, DURATION_PATTERN)):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert value > 0
        assert re.search(pattern, text), "the JSON schema would refuse what is right"
