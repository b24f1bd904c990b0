"""Arguments arrive as they were written."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import InputError
from mayfly.project.rendering import Names, as_arguments, is_template, render, run_date

ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined)


@given(st.text().filter(lambda text: not is_template(text)))
def test_text_without_templates_is_not_touched(text: str) -> None:
    assert render(text, {}, ENVIRONMENT) == text


@pytest.mark.parametrize("text", ['it\'s "so"', "$(rm -rf /)", "a\nb\n", "\r\n", "ünï→码", "{ }", "%s", " ", ""])
def test_awkward_text(text: str) -> None:
    assert render(text, {}, ENVIRONMENT) == text
    assert as_arguments([text], job="trips") == (text,)


def test_templates_are_filled_in_and_keep_the_rest() -> None:
    assert render("--x={{ x }}$(y)\n", {"x": 7}, ENVIRONMENT) == "--x=7$(y)\n"


def test_names_by_dot_and_a_wrong_one_lists_the_right_ones() -> None:
    context = {"inputs": Names("inputs", lambda: {"items": "gs://a", "flights": "b"})}
    assert (
        render("{{ inputs.flights }} {{ inputs['items'] }} {{ inputs.items }}", context, ENVIRONMENT)
        == "b gs://a gs://a"
    )
    with pytest.raises(InputError, match="no such input; known: items, flights"):
        render("{{ inputs.flihgts }}", context, ENVIRONMENT)


def test_names_are_looked_up_only_when_used() -> None:
    def never() -> dict[str, str]:
        raise AssertionError("not used, so not asked for")

    assert render("{{ 1 + 1 }}", {"inputs": Names("inputs", never)}, ENVIRONMENT) == "2"


def test_run_date_without_a_logical_date() -> None:
    moment = datetime(2026, 11, 21, 23, 59, tzinfo=UTC)
    assert run_date(SimpleNamespace(logical_date=None, run_after=moment)) == "2026-11-21"
    assert run_date(SimpleNamespace(logical_date=datetime(2026, 1, 2, tzinfo=UTC), run_after=moment)) == "2026-01-02"


def test_results_of_other_tasks() -> None:
    assert as_arguments([7, 0.5, True, ["ä", 1], {"k": None}], job="trips") == (
        "7",
        "0.5",
        "True",
        '["ä", 1]',
        '{"k": null}',
    )


@pytest.mark.parametrize(
    ("given_", "said"), [(["a", None], r"args\[1\].*None"), ("abc", "list"), (["\0"], "NUL"), (7, "list")]
)
def test_refused(given_: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        as_arguments(given_, job="trips")
