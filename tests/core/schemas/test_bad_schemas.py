"""What is no schema is refused with its cause, and the old one stays in force."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from harness import Daemon, pair

OLD = {"fields": [{"name": "n", "type": "number"}]}
FIELD = {"name": "a", "type": "string"}


def doubled(depth: int) -> dict[str, Any]:
    """One place, looked at in 2 to the ``depth`` ways."""
    levels = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 1 + [{"$ref": f"#/$defs/d{n + 1}"}]}
        for n in range(depth)
    }
    return {"$defs": {**levels, f"d{depth}": {"type": "object"}}, "$ref": "#/$defs/d0"}


BAD: dict[str, tuple[Any, str]] = {
    "a number": (3, "object"),
    "an array": ([OLD], "object"),
    "no such type": ({"type": "strin"}, "/type"),
    "another draft": (
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        "its $schema is draft-07, and the daemon reads 2020-12 alone: let it be "
        "https://json-schema.org/draft/2020-12/schema; all of its keywords mean the same there"),
    "a draft of nobody": ({"$schema": "https://example.com/mine"}, "$schema"),
    "itself": ({"$ref": "#"}, "back to itself"),
    "itself, in two steps": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"},
                              "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "back to itself"),
    "a page of the web": ({"$ref": "http://127.0.0.1:1/x"}, "outside"),
    "a file": ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "outside"),
    "a relative document": (
        {"$id": "http://127.0.0.1:1/a.json", "properties": {"a": {"$ref": "b.json#/$defs/c"}}},
        "/properties/a/$ref: the reference leads outside, and nothing is ever fetched; copy what"),
    "a dynamic reference to a page": ({"$dynamicRef": "http://127.0.0.1:1/x"}, "outside"),
    "an anchor that is none": ({"$ref": "#nope"}, "/$ref: the reference leads to nothing"),
    "no URI": ({"$ref": "#/$defs/List<a>", "$defs": {"List<a>": {}}},
               "/$ref: the reference has '<', which no URI has; write %3C"),
    "a place that is none": ({"$ref": "#/$defs/nope"}, "/$ref: the reference leads to nothing"),
    "itself, below a property": (
        {"properties": {"a": {"$ref": "#/$defs/x~1y"}},
         "$defs": {"x/y": {"anyOf": [{"$ref": "#/$defs/x~1y"}, {"$ref": "#"}]}}},
        "/$defs/x~1y: a reference leads back to itself"),
    "too many ways": (doubled(25), "/$defs/d17: it would be applied to one place in over 100000"),
    "too many ways, escaped": (
        json.loads(json.dumps(doubled(25)).replace("#/$defs", "#/%24defs")),
        "/$defs/d17: it would be applied to one place in over 100000"),
    "too many ways, and back": (
        {**doubled(25), "$defs": {**doubled(25)["$defs"], "d25": {"items": {"$ref": "#"}}}},
        "it would be applied to one place in over 100000 ways"),
    "a bad pattern": ({"properties": {"a": {"pattern": "("}}}, "/properties/a/pattern"),
    "fields that are none": ({"fields": {"a": 1}}, "fields"),
    "a field without a name": ({"fields": [{"type": "string"}]}, "fields[0]"),
    "a field of unknown type": ({"fields": [{"name": "a", "type": "strnig"}]}, "string"),
    "two fields of one name": ({"fields": [FIELD, FIELD]}, "fields[1]"),
    "a field with a bad pattern": ({"fields": [{**FIELD, "pattern": "("}]}, "pattern"),
    "an unknown attribute": ({"fields": [{**FIELD, "minLenght": 1}]}, "minLength"),
    "an attribute of another type": ({"fields": [{**FIELD, "min": 1}]}, "'min'"),
    "a text for a number": ({"fields": [{**FIELD, "minLength": "1"}]}, "minLength"),
    "nested": ({"fields": [{"name": "o", "type": "object", "properties": [{"name": "x"}]}]},
               "properties[0]"),
    "items of no type": ({"fields": [{"name": "l", "type": "array", "items": {}}]}, "items"),
    "something beside the fields": ({"fields": [], "feilds": []}, "feilds"),
}  # fmt: skip


# The keyword of an older dialect, and what to write in 2020-12.
DRAFT_04 = "http://json-schema.org/draft-04/schema#"
DRAFT_07 = "http://json-schema.org/draft-07/schema"
CHANGED: list[tuple[str, dict[str, Any], str]] = [
    (DRAFT_04, {"id": "http://example.com/a"}, "id (write $id)"),
    (DRAFT_04, {"id": "#a"}, "id (write $anchor, without the #)"),
    (DRAFT_04, {"minimum": 1, "exclusiveMinimum": True},
     "exclusiveMinimum (write the limit itself)"),
    (DRAFT_07, {"$id": "#a"}, "$id (write $anchor, without the #)"),
    (DRAFT_07, {"$id": "#/a"}, "$id (write $id, without what follows the #)"),
    (DRAFT_07, {"items": [{}]}, "items (write prefixItems)"),
    (DRAFT_07, {"items": [{}], "additionalItems": {}},
     "items (write prefixItems, and items for additionalItems)"),
    (DRAFT_07, {"dependencies": {"a": ["b"]}},
     "dependencies (write dependentRequired, or dependentSchemas)"),
    (DRAFT_07, {"$ref": "#/$defs/a", "title": "A", "type": "string", "minLength": 1},
     "$ref (minLength, type beside it had no effect: remove it, unless it is meant)"),
    ("https://json-schema.org/draft/2019-09/schema", {"$recursiveRef": "#"},
     "$recursiveRef (write $dynamicRef)"),
]  # fmt: skip
UNCHANGED: list[tuple[str, dict[str, Any]]] = [
    (DRAFT_07, {"$id": "http://example.com/a", "items": {}, "const": {"dependencies": {}}}),
    (DRAFT_07, {"properties": {"dependencies": {}, "id": {}}, "$ref": 1, "title": "A"}),
    (DRAFT_07, {"id": "no keyword", "default": {"items": []}, "exclusiveMinimum": 1}),
    ("https://json-schema.org/draft/2019-09/schema", {"$ref": "#/$defs/a", "type": "string"}),
]


@pytest.mark.parametrize(("dialect", "schema", "change"), CHANGED)
def test_an_older_dialect_is_refused_with_what_to_change(
    old: Daemon, dialect: str, schema: dict[str, Any], change: str
) -> None:
    document = {"$schema": dialect, "definitions": {"x": {"allOf": [schema]}}}
    answer = old.request("PUT", "/v1/schemas/old", document)
    assert answer.json["error"].endswith(
        "/draft/2020-12/schema, and rewrite what means something else there: "
        f"/definitions/x/allOf/0/{change}"
    )
    many = old.request("PUT", "/v1/schemas/old", {"$schema": dialect, "allOf": [schema] * 9})
    assert many.json["error"].endswith(", and 4 more")


@pytest.mark.parametrize(("dialect", "schema"), UNCHANGED)
def test_an_older_dialect_may_need_no_other_change(
    old: Daemon, dialect: str, schema: dict[str, Any]
) -> None:
    document = {"$schema": dialect, "properties": {"a": schema}}
    answer = old.request("PUT", "/v1/schemas/old", document)
    assert answer.json["error"].endswith("/schema; all of its keywords mean the same there")


@pytest.fixture(scope="module")
def old(shared_daemon: Daemon) -> Daemon:
    assert shared_daemon.request("PUT", "/v1/schemas/old", OLD).status == 200
    return shared_daemon


@pytest.mark.parametrize("name", BAD)
def test_refused(old: Daemon, name: str) -> None:
    document, word = BAD[name]
    answer = old.request("PUT", "/v1/schemas/old", document)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request"), answer
    assert answer.json["error"].startswith("cannot use the schema: ")
    assert word in answer.json["error"]
    assert old.request("GET", "/v1/schemas/old").json["schema"] == OLD
    assert old.request("PUT", pair("d", "j") + "?automation=old", {"n": "x"}).status == 422


def test_not_json_at_all(old: Daemon) -> None:
    assert old.request("PUT", "/v1/schemas/old", b'{"type"').json["code"] == "invalid_json"
    deep = b'{"not":' * 100_000 + b"{}" + b"}" * 100_000
    assert old.request("PUT", "/v1/schemas/old", deep).status in (400, 413)
    assert old.request("GET", "/v1/schemas/old").json["schema"] == OLD


@pytest.mark.parametrize(
    "document",
    [
        {"$defs": {"t": {"properties": {"l": {"$ref": "#/$defs/t"}, "r": {"$ref": "#/$defs/t"}}}},
         "$ref": "#/$defs/t"},
        {"properties": {"tree": {"type": "array", "items": {"$ref": "#"}}}},
        {"additionalProperties": {"anyOf": [{"type": "number"}, {"$ref": "#"}]}},
        doubled(10),
        {"properties": {f"k{n}": {"$ref": "#/$defs/text"} for n in range(500)},
         "$defs": {"text": {"type": "string"}}},
    ],
)  # fmt: skip
def test_what_is_linear_may_recurse(old: Daemon, document: Any) -> None:
    assert old.request("PUT", "/v1/schemas/recursive", document).status == 200
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"l": deep}
    began = time.monotonic()
    old.request("PUT", pair("d", "deep") + "?automation=recursive", deep)
    assert time.monotonic() - began < 5


def test_ten_thousand_fields(old: Daemon) -> None:
    fields = [{"name": f"f{n}", "type": "number", "required": True} for n in range(10_000)]
    assert old.request("PUT", "/v1/schemas/wide", {"fields": fields}).status == 200
    target = pair("d", "wide") + "?automation=wide"
    answer = old.request("PUT", target, {"f1": "x"})
    assert (answer.status, len(answer.json["details"])) == (422, 10_000)
    assert old.request("PUT", target, {f"f{n}": n for n in range(10_000)}).status == 200


@pytest.mark.parametrize("pattern", ["^(a|a)*$", "^(a+)+$", "^(?=(a+)+$)b", r"^(a+)+\1$"])
def test_a_pattern_that_would_run_away(old: Daemon, pattern: str) -> None:
    """Linear where it can be; where it looks around, it gives up and refuses."""
    schema = {"properties": {"a": {"pattern": pattern}}}
    assert old.request("PUT", "/v1/schemas/pattern", schema).status == 200
    began = time.monotonic()
    body = {"a": "a" * 5000 + "!"}
    answer = old.request("PUT", pair("d", "pattern") + "?automation=pattern", body)
    assert answer.status == 422
    assert time.monotonic() - began < 5


LOOKING = {"pattern": "(?<=x)y$"}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": LOOKING}},
        {"properties": {"a": {"not": LOOKING}}},
        {"properties": {"a": {"anyOf": [LOOKING, {"type": "number"}]}}},
        {"propertyNames": LOOKING},
        {"patternProperties": {"(?<=x)y$": False}},
    ],
)
def test_a_text_too_long_for_a_pattern_is_a_violation(old: Daemon, schema: Any) -> None:
    text = "x" * 20_000 + "y"
    target = pair("d", "looking") + "?automation=looking"
    key, value = ("a", text) if "properties" in schema else (text, 1)
    old.request("DELETE", target)
    old.request("DELETE", "/v1/schemas/looking")
    old.request("PUT", target, {key: value})
    answer = old.request("PUT", "/v1/schemas/looking", schema)
    assert (answer.status, answer.json["code"]) == (409, "schema_conflict"), answer
    assert old.request("PUT", "/v1/schemas/looking?force=true", schema).status == 200
    answer = old.request("PATCH", target, {key: [value]} if key == text else {key: "x" + text})
    assert (answer.status, answer.json["code"]) == (422, "schema_violation"), answer
    assert "lookaround or back references" in answer.json["details"][0]["message"]
