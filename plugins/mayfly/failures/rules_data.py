"""Rules for data that preflight cannot reach: no client, no bucket, no answer, no permission. Pure, stdlib only.

A place that `inputs` and `outputs` do not name fails in the script, where `user_advice` knows the same words.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mayfly.contract import FailureClass
from mayfly.failures.data_words import (
    ANSWER,
    BUCKET,
    CLIENT,
    KEYS,
    LIBHDFS,
    NO_ANSWER,
    NO_BUCKET,
    NO_CLIENT,
    NO_LIBHDFS,
    NO_NAMENODE,
    NOT_LET_IN,
)
from mayfly.failures.logtext import bounded
from mayfly.failures.reading import Reading, Rule


def _data(pattern: str, *, kind: str = "") -> Callable[[Reading], bool]:
    """Preflight could not read or write, on a store that is not a file system, and these were the client's words."""
    return lambda r: (
        r.facts.ended_by == "preflight"
        and r.facts.preflight_kind in ((kind,) if kind else ("input", "output"))
        and any(re.search(r"= '[\w+.-]+://", line) and re.search(pattern, line) for line in _lines(r))
    )


def _lines(r: Reading) -> list[str]:
    return r.facts.preflight_error.splitlines()


def _said(r: Reading) -> tuple[str, ...]:
    return bounded(_lines(r))


AT_PREFLIGHT: tuple[Rule, ...] = (
    Rule(
        name="data: libhdfs",
        match=_data(NO_LIBHDFS),
        cls=FailureClass.START_FAILED,
        evidence=_said,
        advice=lambda _: LIBHDFS,
        retryable=False,
        why="a library does not install itself",
    ),
    Rule(
        name="data: no client",
        match=_data(NO_CLIENT),
        cls=FailureClass.START_FAILED,
        evidence=_said,
        advice=lambda _: CLIENT,
        retryable=False,
        why="a package does not install itself",
    ),
    *(
        Rule(
            name=f"data: no bucket for an {kind}",
            match=_data(NO_BUCKET, kind=kind),
            cls=cls,
            evidence=_said,
            advice=lambda _: BUCKET,
            retryable=False,
            why="a wrong name stays wrong",
        )
        for kind, cls in (("input", FailureClass.INPUT_MISSING), ("output", FailureClass.OUTPUT_NOT_WRITABLE))
    ),
    Rule(
        name="data: not let in",
        match=_data(NOT_LET_IN),
        cls=FailureClass.PERMISSION,
        evidence=_said,
        advice=lambda _: KEYS,
        retryable=False,
        why="permissions do not heal by themselves",
    ),
    Rule(
        name="data: nobody answers",
        match=_data(f"{NO_NAMENODE}|{NO_ANSWER}"),
        cls=FailureClass.NETWORK,
        evidence=_said,
        advice=lambda _: ANSWER,
        retryable=True,
        why="servers come back",
    ),
)
"""Before the general rules for inputs and outputs."""
