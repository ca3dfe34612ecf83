"""What passes a schema that tolerates, and what does not: each row of the table in how-to.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bucketd.core.schemas.validator import MAX_KEYS_AND_ITEMS, NOT_TOLERATED, compile_schema
from bucketd.model.document import Document


class Row(NamedTuple):
    """A write from ``before`` to ``after``; ``new`` and ``stood`` are violations, path:keyword."""

    keyword: str
    schema: Any
    before: Any
    after: Any
    new: str = ""
    stood: str = ""


def field(schema: Any) -> Any:
    return {"properties": {"a": schema}}


def whole(keyword: str, schema: Any, bad: Any, other: Any) -> list[Row]:
    """Rows of a keyword of which the whole value counts: ``other`` is not valid either."""
    said, of = f"/a:{keyword}", field(schema)
    return [
        Row(keyword, of, {"a": bad}, {"a": bad, "b": 1}, stood=said),
        Row(keyword, of, {"a": bad}, {"a": other}, new=said),
        Row(keyword, of, {"b": 1}, {"a": bad}, new=said),
    ]


TEXT = {"type": "string"}
NEEDS_X = {"required": ["x"]}
CLOSED = {"properties": {"a": {}}, "additionalProperties": False}
CONDITION = {"if": {"properties": {"kind": {"const": "A"}}, "required": ["kind"]}}
PAIRS = {"dependentRequired": {"card": ["city"], "bank": ["city"]}}
EITHER = {"anyOf": [NEEDS_X, {"properties": {"y": TEXT}, "required": ["y"]}]}
ONE = {"oneOf": [{"required": ["x"]}, {"required": ["y"]}]}
ITEMS = field({"items": {"required": ["n"], "properties": {"n": TEXT}}})
NODE = {"required": ["n"], "properties": {"k": {"$ref": "#/$defs/t"}}}
TREE = {"$ref": "#/$defs/t", "$defs": {"t": NODE}}

NO_KEYS, NO_NAMES = {"additionalProperties": False}, {"propertyNames": False}
OPEN = {"allOf": [field({})], "unevaluatedProperties": False}
ALL_TEXT, P_TEXT = {"additionalProperties": TEXT}, {"patternProperties": {"^p": TEXT}}
SHORT = {"propertyNames": {"maxLength": 2}}
TEXT_OR_NULL = field({"anyOf": [TEXT, {"type": "null"}]})
WITH_C, NO_C = {"dependentSchemas": {"c": NEEDS_X}}, {"dependentSchemas": {"c": False}}
ALL_ITEMS = field({"prefixItems": [TEXT], "items": TEXT})
ROWS = [
    # The whole value counts.
    *whole("type", {"type": "string"}, 1, 2),
    *whole("type", {"type": "string"}, 1, 1.0),
    *whole("type", {"type": "string"}, {"x": 1}, {"x": 2}),
    *whole("enum", {"enum": ["p", "q"]}, "r", "s"),
    *whole("const", {"const": "p"}, "r", "s"),
    *whole("minimum", {"minimum": 10}, 1, 2),
    *whole("maximum", {"maximum": 10}, 20, 15),
    *whole("exclusiveMinimum", {"exclusiveMinimum": 10}, 10, 9),
    *whole("exclusiveMaximum", {"exclusiveMaximum": 10}, 10, 11),
    *whole("multipleOf", {"multipleOf": 5}, 1, 2),
    *whole("minLength", {"minLength": 5}, "a", "ab"),
    *whole("maxLength", {"maxLength": 1}, "abc", "ab"),
    *whole("pattern", {"pattern": "^x"}, "a", "b"),
    *whole("format", {"format": "email"}, "a", "b"),
    *whole("minItems", {"minItems": 3}, [1], [1, 2]),
    *whole("maxItems", {"maxItems": 1}, [1, 2, 3], [1, 2]),
    *whole("uniqueItems", {"uniqueItems": True}, [1, 1], [1, 1, 2]),
    *whole("contains", {"contains": {"const": 1}}, [2], [3]),
    *whole("contains", {"contains": {"const": 1}, "minContains": 2}, [1], [1, 2]),
    *whole("contains", {"contains": {"const": 1}, "maxContains": 1}, [1, 1], [1, 1, 2]),
    *whole("unevaluatedItems", {"prefixItems": [{}], "unevaluatedItems": False}, [1, 2], [1, 3]),
    *whole("falseSchema", False, 1, 2),
    # required: the key was absent and still is.
    Row("required", NEEDS_X, {"b": 1}, {"b": 2, "c": 3}, stood=":required"),
    Row("required", NEEDS_X, {"x": 1}, {"b": 1}, new=":required"),
    Row("required", {"required": ["x", "y"]}, {"y": 1}, {}, ":required", ":required"),
    Row("required", field(NEEDS_X), {"a": {}}, {"a": {"b": 1}}, stood="/a:required"),
    Row("required", field(NEEDS_X), {"a": {"x": 1}}, {"a": {}}, new="/a:required"),
    Row("required", field(NEEDS_X), {}, {"a": {}}, new="/a:required"),
    # dependentRequired: no further key demands the absent one.
    Row("dependentRequired", PAIRS, {"card": 1}, {"card": 2}, stood=":required"),
    Row("dependentRequired", PAIRS, {"card": 1}, {"bank": 1}, new=":required"),
    Row("dependentRequired", PAIRS, {"b": 1}, {"card": 1}, new=":required"),
    Row("dependentRequired", PAIRS, {"card": 1, "bank": 1}, {"bank": 1, "z": 1}, stood=":required"),
    # additionalProperties and unevaluatedProperties: the value of each key.
    Row("additionalProperties", CLOSED, {"x": 1}, {"x": 1, "a": 1}, stood=":additionalProperties"),
    Row("additionalProperties", CLOSED, {"x": 1}, {"x": 2}, new=":additionalProperties"),
    Row("additionalProperties", CLOSED, {"x": 1}, {"x": 1, "y": 1},
        ":additionalProperties", ":additionalProperties"),
    Row("additionalProperties", CLOSED, {"x": 1, "y": 1}, {"y": 1}, stood=":additionalProperties"),
    Row("additionalProperties", NO_KEYS, {"x": 1, "y": 1}, {"x": 1}, stood=":falseSchema"),
    Row("additionalProperties", NO_KEYS, {"x": 1}, {"x": 1, "y": 1},
        ":falseSchema", ":falseSchema"),
    Row("additionalProperties", ALL_TEXT, {"x": 1}, {"x": 1, "y": 1},
        "/y:type", "/x:type"),
    Row("unevaluatedProperties", OPEN, {"x": 1}, {"x": 1, "a": 1},
        stood=":unevaluatedProperties"),
    Row("unevaluatedProperties", OPEN, {"x": 1}, {"x": 2},
        new=":unevaluatedProperties"),
    # A key that changes its name is another key.
    Row("patternProperties", P_TEXT, {"p1": 1}, {"p1": 1, "p2": 1},
        "/p2:type", "/p1:type"),
    # propertyNames: the key was there.
    Row("propertyNames", SHORT, {"long": 1}, {"long": 2}, stood=":propertyNames"),
    Row("propertyNames", SHORT, {"long": 1}, {"long": 1, "lang": 1},
        ":propertyNames", ":propertyNames"),
    Row("propertyNames", NO_NAMES, {"x": 1}, {"x": 2}, stood=":falseSchema"),
    Row("propertyNames", NO_NAMES, {"x": 1}, {"y": 1}, new=":falseSchema"),
    # minProperties and maxProperties: the number.
    Row("minProperties", {"minProperties": 4}, {"b": 1}, {"b": 2, "c": 3}, stood=":minProperties"),
    Row("minProperties", {"minProperties": 4}, {"b": 1, "c": 1}, {"b": 1}, new=":minProperties"),
    Row("maxProperties", {"maxProperties": 1}, {"b": 1, "c": 1, "d": 1}, {"b": 2, "c": 1},
        stood=":maxProperties"),
    Row("maxProperties", {"maxProperties": 1}, {"b": 1, "c": 1}, {"b": 1, "c": 1, "d": 1},
        new=":maxProperties"),
    # anyOf, oneOf, not: the keys that the subschemas name, else the whole value.
    Row("anyOf", EITHER, {"y": 1}, {"y": 1, "b": 2}, stood=":anyOf"),
    Row("anyOf", EITHER, {"y": 1}, {"y": 2}, new=":anyOf"),
    Row("anyOf", EITHER, {"x": 1}, {"b": 1}, new=":anyOf"),
    Row("anyOf", {"anyOf": [{"minProperties": 5}, NEEDS_X]}, {"b": 1}, {"b": 2}, new=":anyOf"),
    Row("anyOf", TEXT_OR_NULL, {"a": 1}, {"a": 1, "b": 1}, stood="/a:anyOf"),
    Row("anyOf", TEXT_OR_NULL, {"a": 1}, {"a": 2}, new="/a:anyOf"),
    Row("oneOf", ONE, {"x": 1, "y": 1}, {"x": 1, "y": 1, "b": 1}, stood=":oneOf"),
    Row("oneOf", ONE, {"x": 1, "y": 1}, {"b": 1}, new=":oneOf"),
    Row("not", {"not": NEEDS_X}, {"x": 1}, {"x": 1, "b": 1}, stood=":not"),
    Row("not", {"not": NEEDS_X}, {"x": 1}, {"x": 2}, new=":not"),
    Row("not", {"not": {"$ref": "#/$defs/n"}, "$defs": {"n": NEEDS_X}}, {"x": 1},
        {"x": 1, "b": 1}, stood=":not"),
    Row("not", {"not": {"patternProperties": {"^x": {"const": 1}}}}, {"x": 1}, {"x": 1, "b": 1},
        new=":not"),
    # if, then, else, allOf, dependentSchemas, $ref: by the keywords below them.
    Row("then", CONDITION | {"then": NEEDS_X}, {"kind": "A"}, {"kind": "A", "b": 1},
        stood=":required"),
    Row("then", CONDITION | {"then": NEEDS_X}, {"kind": "B"}, {"kind": "A"}, new=":required"),
    Row("else", CONDITION | {"then": NEEDS_X, "else": NEEDS_X}, {"kind": "A"}, {"kind": "B"},
        new=":required"),
    Row("then", CONDITION | {"then": False}, {"kind": "A"}, {"kind": "A", "b": 1},
        stood=":falseSchema"),
    Row("allOf", {"allOf": [NEEDS_X, NEEDS_X]}, {}, {"b": 1}, stood=":required :required"),
    Row("dependentSchemas", WITH_C, {"c": 1}, {"c": 2}, stood=":required"),
    Row("dependentSchemas", WITH_C, {"b": 1}, {"c": 2}, new=":required"),
    Row("dependentSchemas", NO_C, {"c": 1}, {"c": 1, "b": 1}, stood=":falseSchema"),
    Row("dependentSchemas", NO_C, {"c": 1}, {"c": 2}, new=":falseSchema"),
    Row("$ref", TREE, {"k": {}}, {"k": {"b": 1}}, stood=":required /k:required"),
    Row("$ref", TREE, {"k": {"n": 1}}, {"k": {}}, "/k:required", ":required"),
    Row("$ref", TREE, {"n": 1}, {"n": 1, "k": {}}, new="/k:required"),
    # Items that moved, changed, or were copied.
    Row("items", ITEMS, {"a": [{"n": 1}]}, {"a": [{"n": "ok"}, {"n": 1}]}, stood="/a/1/n:type"),
    Row("items", ITEMS, {"a": [{"n": 1}]}, {"a": [{"n": 1}, {"n": 1}]}, "/a/1/n:type",
        "/a/0/n:type"),
    Row("items", ITEMS, {"a": [{"n": ""}, {"n": 1}]}, {"a": [{"n": 1}, {"n": 1}]},
        "/a/0/n:type", "/a/1/n:type"),
    Row("items", ITEMS, {"a": [{"n": 1}, {"n": 2}]}, {"a": [{"n": 2}]}, stood="/a/0/n:type"),
    Row("items", ITEMS, {"a": [{"n": 1}]}, {"a": [{"n": 2}]}, new="/a/0/n:type"),
    Row("items", ITEMS, {"a": [{"b": 1}]}, {"a": [{"n": ""}, {"b": 1}]}, stood="/a/1:required"),
    Row("items", ITEMS, {"a": [{"b": 1}]}, {"a": [{"b": 2}]}, new="/a/0:required"),
    Row("items", ITEMS, {"a": [{"b": 1}]}, {"a": [{"b": 9}, {"b": 1}]}, "/a/0:required",
        "/a/1:required"),
    Row("prefixItems", ALL_ITEMS,
        {"a": [1, "b"]}, {"a": ["b", 1]}, new="/a/1:type"),
    # Whatever a write does, what is valid now is told nothing about.
    Row("valid", NEEDS_X, {"b": 1}, {"x": 1}),
    Row("valid", NEEDS_X, {"x": 1}, {"x": 2}),
    # Nothing changed.
    Row("unchanged", {"type": "array"}, {"b": 1}, {"b": 1}, stood=":type"),
    # The first write tolerates nothing.
    Row("first", NEEDS_X, None, {"b": 1}, new=":required"),
]  # fmt: skip


def told(violations: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{each['path']}:{each['keyword']}" for each in violations)


def compare(schema: Any, before: Any, after: Any) -> Any:
    stored = None if before is None else Document.of(before)
    now = Document.of(after)
    if stored is not None and stored == now:
        now = stored
    return compile_schema(schema).compare(stored, now)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.keyword)
def test_each_keyword(row: Row) -> None:
    found = compare(row.schema, row.before, row.after)
    assert told(found.refused) == sorted(row.new.split())
    assert told(found.tolerated) == sorted(row.stood.split())


def test_only_the_new_keys_are_named() -> None:
    found = compare(CLOSED, {"x": 1}, {"x": 1, "y": 1})
    said = "must not have {}: the schema does not know it"
    assert [each["message"] for each in found.refused] == [said.format("'y'")]
    assert [each["message"] for each in found.tolerated] == [said.format("'x'")]


@pytest.mark.parametrize("large", ["before", "after"])
def test_too_many_keys_to_list_their_violations(large: str) -> None:
    schema, many = field({"items": {"type": "string"}}), [1] * (MAX_KEYS_AND_ITEMS + 1)
    states = {"before": {"a": [1]}, "after": {"a": [1]}} | {large: {"a": many}}
    found = compare(schema, states["before"] | {"b": 1}, states["after"])
    assert (len(found.refused), found.tolerated) == (1, [])
    assert found.refused[0]["message"].endswith(NOT_TOLERATED)
    unchanged = compare(schema, {"a": many}, {"a": many})
    assert (unchanged.refused, len(unchanged.tolerated)) == ([], 1)


def test_nested_too_deeply_to_list_the_violations() -> None:
    twice = {"allOf": [{"properties": {"k": {"$ref": "#"}}}] * 2, "properties": {"n": TEXT}}
    deep: Any = {"n": 1}
    for _ in range(40):
        deep = {"k": deep}
    found = compare(twice, {"k": deep}, {"k": deep, "b": 1})
    assert (len(found.refused), found.tolerated) == (1, [])
    assert found.refused[0]["message"].endswith(NOT_TOLERATED)


def kinds(violations: list[dict[str, Any]]) -> Counter[str]:
    """Count violations by keyword and place, any index of an array being the same place."""
    return Counter(re.sub(r"/[0-9]+", "/-", each) for each in told(violations))


KEYS = st.sampled_from("abxy")
JSON = st.recursive(
    st.sampled_from([1, 2, "p", None, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
BUCKETS = st.dictionaries(KEYS, JSON, max_size=4)
PARTS = st.sampled_from([row.schema for row in ROWS if "$defs" not in row.schema])
SCHEMAS = st.lists(PARTS, min_size=1, max_size=4)


@settings(max_examples=300)
@given(SCHEMAS, BUCKETS, BUCKETS)
def test_any_write(parts: list[Any], before: Any, after: Any) -> None:
    """What is new and what stood make up all violations, and none stands that was not there."""
    schema = compile_schema({"allOf": parts})
    stored, now = Document.of(before), Document.of(after)
    found = schema.compare(stored, now)
    everything = schema.violations(now.text)
    assert set(told(found.refused + found.tolerated)) == set(told(everything))
    assert not kinds(found.tolerated) - kinds(schema.violations(stored.text))
    # A step back and forth makes nothing: a copy of what is stored is the same bucket.
    copy = schema.compare(stored, Document.of(json.loads(stored.text)))
    assert not copy.refused
    assert told(copy.tolerated) == told(schema.violations(stored.text))
