from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.spec.params import check_schema, problem_with


@pytest.mark.parametrize(
    ("value", "schema", "part"),
    [
        (3, {"type": "string"}, "3 is no string"),
        ("3", {"type": "integer"}, '"3" is no integer'),
        (True, {"type": "integer"}, "true is no integer"),
        (1, {"type": "boolean"}, "1 is no boolean"),
        (None, {"type": "string"}, "null is no string"),
        (0, {"type": "integer", "minimum": 1}, "less than the minimum 1"),
        (9, {"type": "integer", "maximum": 8}, "more than the maximum 8"),
        (1, {"type": "number", "exclusiveMinimum": 1}, "not more than 1"),
        (1, {"type": "number", "exclusiveMaximum": 1}, "not less than 1"),
        (5, {"type": "integer", "multipleOf": 2}, "no multiple of 2"),
        ("x", {"type": "string", "enum": ["a", "b"]}, 'none of ["a", "b"]'),
        ("x", {"const": "y"}, 'is not "y"'),
        ("", {"type": "string", "minLength": 1}, "fewer than 1 characters"),
        ("abc", {"type": "string", "maxLength": 2}, "more than 2 characters"),
        ("abc", {"type": "string", "pattern": "^[0-9]+$"}, "does not match"),
        ([], {"type": "array", "minItems": 1}, "fewer than 1 items"),
        ([1, 2], {"type": "array", "maxItems": 1}, "more than 1 items"),
        ([1, "x"], {"type": "array", "items": {"type": "integer"}}, 'item "x" is no integer'),
    ],
)
def test_what_a_schema_refuses(value: Any, schema: dict[str, Any], part: str) -> None:
    assert part in problem_with(value, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema)


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (3, {"type": "integer", "minimum": 1, "maximum": 8}),
        (3.0, {"type": "integer"}),
        (3, {"type": "number"}),
        (None, {"type": ["string", "null"]}),
        ("é", {"type": "string", "maxLength": 1}),
        (["a"], {"type": "array", "items": {"type": "string"}}),
        ({"a": 1}, {"type": "object"}),
        ("b", {"enum": ["a", "b"]}),
    ],
)
def test_what_a_schema_takes(value: Any, schema: dict[str, Any]) -> None:
    assert problem_with(value, schema) == ""
    jsonschema.validate(value, schema)


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({}, "has no type; add one of string"),
        ({"type": "string", "pattern": "("}, "no regular expression"),
        ({"type": "integer", "minimum": 3, "maximum": 1}, "minimum (3) is more than maximum (1)"),
        ({"type": "integer", "default": "3"}, 'default "3" is no integer'),
        ({"type": "integer", "default": 9, "maximum": 8}, "default 9 is more than the maximum 8"),
    ],
)
def test_schemas_that_contradict_themselves(schema: Any, part: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_schema(schema)
    assert part in str(caught.value)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from([0.5, 2.0]), st.text(max_size=3), st.just([1, "a"])
)
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "array", "null", ["string", "null"]]),
        "minimum": st.integers(-3, 3),
        "maximum": st.integers(-3, 3),
        "exclusiveMinimum": st.integers(-3, 3),
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 3),
        "minItems": st.integers(0, 3),
        "pattern": st.sampled_from(["^a", "[0-9]"]),
        "items": st.just({"type": "integer"}),
    },
)


@given(VALUES, SCHEMAS)
def test_same_verdict_as_the_library_that_airflow_asks(value: Any, schema: dict[str, Any]) -> None:
    assert (problem_with(value, schema) == "") == jsonschema.Draft202012Validator(schema).is_valid(value)
