"""Which defaults of a schema complete a bucket."""

from __future__ import annotations

from typing import Any

import pytest

from bucketd.core.schemas.validator import compile_schema


def properties(**named: Any) -> dict[str, Any]:
    return {"type": "object", "properties": named}


CASES = [
    (properties(a={"default": 1}, b={"type": "string"}), {"a": 1}),
    (properties(a={"default": None}), {"a": None}),
    (properties(a={"type": "array", "default": []}, b={"default": {"c": 1}}),
     {"a": [], "b": {"c": 1}}),
    ({"fields": [{"name": "status", "type": "string", "defaultValue": "new"}]}, {"status": "new"}),
    # What the schema itself refuses is no default.
    (properties(a={"type": "integer", "default": "x"}, b={"default": 2}), {"b": 2}),
    (properties(a={"type": "string", "maxLength": 2, "default": "xyz"}), {}),
    (properties(**{"a/b": {"type": "string", "default": 1}, "~": {"default": 1}}), {"~": 1}),
    # Other keys may be required.
    ({**properties(a={"default": 1}, b={}), "required": ["b"]}, {"a": 1}),
    # References and allOf apply in any case.
    ({**properties(a={"$ref": "#/$defs/x"}), "$defs": {"x": {"default": 3}}}, {"a": 3}),
    ({**properties(a={"$ref": "#/$defs/x", "default": 4}), "$defs": {"x": {"default": 3}}},
     {"a": 4}),
    ({"$ref": "#/$defs/x", "$defs": {"x": properties(a={"default": 5})}}, {"a": 5}),
    ({"allOf": [properties(a={"default": 6}), properties(a={"default": 7}, b={"default": 8})]},
     {"a": 6, "b": 8}),
    ({**properties(tree={"$ref": "#"}, a={"default": 1})}, {"a": 1}),
    # These are of some buckets only, or within a value.
    ({"anyOf": [properties(a={"default": 1}), properties(b={"default": 1})]}, {}),
    ({"if": properties(a={"default": 1}), "then": properties(b={"default": 1})}, {}),
    (properties(user=properties(name={"default": "ada"})), {}),
    (properties(list={"type": "array", "items": properties(a={"default": 1})}), {}),
    ({"default": {"a": 1}}, {}),
    (True, {}),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "expected"), CASES)
def test_the_defaults_of_a_schema(schema: Any, expected: dict[str, Any]) -> None:
    assert compile_schema(schema).defaults == expected


def test_very_many_wrong_defaults() -> None:
    """Of so many keys only the first violation is listed at a time."""
    many = {f"k{n}": {"type": "integer", "default": n if n % 300 else "x"} for n in range(3000)}
    assert compile_schema(properties(**many)).defaults.keys() == {
        key for key, schema in many.items() if schema["default"] != "x"
    }
