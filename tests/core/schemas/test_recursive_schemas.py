"""Schemas that recurse in several ways at one place: right verdicts, and bounded work."""

from __future__ import annotations

import time
from typing import Any

import pytest
from harness import Daemon, pair

SELF = {"$ref": "#"}
NODE = {"$ref": "#/$defs/node"}
TREE = {
    "$defs": {
        "node": {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": NODE},
                {"type": "object", "properties": {"kind": {"const": "a"}, "child": NODE},
                 "required": ["kind", "child"]},
                {"type": "object", "properties": {"kind": {"const": "b"}, "child": NODE},
                 "required": ["kind", "child"]},
            ]
        }
    },
    "additionalProperties": NODE,
}  # fmt: skip
EXPRESSION = {
    "$defs": {
        "node": {
            "oneOf": [
                {"type": "boolean"},
                {"properties": {"op": {"const": "not"}, "args": {"items": NODE, "maxItems": 1}},
                 "type": "object", "required": ["op", "args"]},
                {"properties": {"op": {"enum": ["and", "or"]}, "args": {"items": NODE}},
                 "type": "object", "required": ["op", "args"]},
            ]
        }
    },
    "properties": {"when": NODE},
}  # fmt: skip
TYPE = {"$ref": "#/$defs/type"}
AVRO = {
    "$defs": {
        "type": {
            "oneOf": [
                {"enum": ["null", "int", "string"]},
                {"type": "array", "items": TYPE},
                {"$ref": "#/$defs/array"},
                {"$ref": "#/$defs/record"},
                {"type": "object", "properties": {"type": TYPE}, "required": ["type"],
                 "maxProperties": 1},
            ]
        },
        "array": {"type": "object", "required": ["type", "items"],
                  "properties": {"type": {"const": "array"}, "items": TYPE}},
        "record": {
            "type": "object", "required": ["type", "name", "fields"],
            "properties": {
                "type": {"const": "record"}, "name": {"type": "string"},
                "fields": {"items": {"properties": {"name": {"type": "string"}, "type": TYPE},
                                     "required": ["name", "type"]}}}},
    },
    "properties": {"schema": TYPE},
}  # fmt: skip
OVERLAP = {"type": "object", "properties": {"a": SELF}, "patternProperties": {"a": SELF}}
ACCEPTED: dict[str, tuple[Any, Any, Any, str]] = {
    "a tree": (TREE, {"t": {"kind": "b", "child": ["x", {"kind": "a", "child": "y"}]}},
               {"t": {"kind": "b", "child": ["x", {"kind": "a", "child": 3}]}}, "/t"),
    "expressions": (EXPRESSION, {"when": {"op": "and", "args": [True, {"op": "not", "args": []}]}},
                    {"when": {"op": "and", "args": [True, {"op": "nor", "args": []}]}}, "/when"),
    "the types of avro": (
        AVRO,
        {"schema": {"type": "record", "name": "r", "fields": [
            {"name": "f", "type": ["null", {"type": "array", "items": "int"}]}]}},
        {"schema": {"type": "record", "name": "r", "fields": [
            {"name": "f", "type": ["null", {"type": "array", "items": "integer"}]}]}}, "/schema"),
    "overlapping keys": (OVERLAP, {"a": {"ba": {}}}, {"a": {"ba": 3}}, "/a/ba"),
    "two alternatives alike": ({"properties": {"a": {"anyOf": [SELF, SELF]}}, "type": "object"},
                               {"a": {"a": {}}}, {"a": {"a": 3}}, "/a"),
}  # fmt: skip


def nested(depth: int, leaf: Any) -> Any:
    value = leaf
    for _ in range(depth):
        value = {"a": value}
    return value


def listed(depth: int, leaf: Any) -> Any:
    value = leaf
    for _ in range(depth):
        value = [value]
    return value


def two(reference: dict[str, str], **more: Any) -> dict[str, Any]:
    """Two alternatives that differ only in what never matters."""
    alike = {"properties": {"a": reference}}
    return {"anyOf": [alike, {**alike, "maxProperties": 90}], "type": "object", **more}


ADVERSARIAL: dict[str, dict[str, Any]] = {
    "to the root": two(SELF),
    "oneOf": {"oneOf": [{"properties": {"a": SELF}}, {"properties": {"a": SELF, "b": False},
                                                      "minProperties": 2}], "type": "object"},
    "allOf": {"allOf": two(SELF)["anyOf"], "type": "object"},
    "by an anchor": two({"$ref": "#n"}, **{"$anchor": "n"}),
    "by a dynamic anchor": two({"$dynamicRef": "#n"}, **{"$dynamicAnchor": "n"}),
    "in turns": {"$defs": {"x": two({"$ref": "#/$defs/y"}), "y": two({"$ref": "#/$defs/x"})},
                 "$ref": "#/$defs/x"},
    "of what is not evaluated": two(SELF, unevaluatedProperties=False),
    "overlapping": OVERLAP,
    "not": {"type": "object", "properties": {"a": {"not": {"not": {"anyOf": [SELF, SELF]}}}}},
    "if": {"type": "object", "if": {"properties": {"a": SELF}}, "then": {"properties": {"a": SELF}},
           "else": {"properties": {"a": SELF}}},
    "contains": {"type": ["object", "array"], "contains": SELF, "items": SELF,
                 "additionalProperties": SELF},
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_verdicts(shared_daemon: Daemon, name: str) -> None:
    schema, good, bad, path = ACCEPTED[name]
    target = pair("recursive", "verdict") + "?automation=verdict"
    shared_daemon.request("DELETE", target)
    assert shared_daemon.request("PUT", "/v1/schemas/verdict", schema).status == 200
    assert shared_daemon.request("PUT", target, good).status == 200
    answer = shared_daemon.request("PUT", target, bad)
    assert (answer.status, answer.json["code"]) == (422, "schema_violation"), answer
    assert answer.json["details"][0]["path"] == path
    assert shared_daemon.request("GET", target).json["bucket"] == good


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_a_bucket_that_would_take_exponential_time(shared_daemon: Daemon, name: str) -> None:
    target = pair("recursive", "deep") + "?automation=deep"
    shared_daemon.request("DELETE", target)
    assert shared_daemon.request("PUT", "/v1/schemas/deep", ADVERSARIAL[name]).status == 200
    good, bad = nested(60, {}), nested(60, "hunter2-secret")
    if name == "contains":
        good, bad = {"a": listed(60, {})}, {"a": listed(60, "hunter2-secret")}
    began = time.monotonic()
    assert shared_daemon.request("PUT", target, good).status == 200
    answer = shared_daemon.request("PUT", target, bad)
    assert time.monotonic() - began < 5
    assert (answer.status, answer.json["code"]) == (422, "schema_violation"), answer
    error = answer.json["error"]
    assert error.startswith("cannot set the bucket of device 'recursive', job 'deep': ")
    assert "is nested too deeply for its schema" in error
    assert "; correct or simplify" in error
    assert "hunter2" not in str(answer.json)
    assert len(answer.json["details"]) == 1
    assert shared_daemon.request("GET", target).json["bucket"] == good


def test_the_place_in_the_schema_is_told(shared_daemon: Daemon) -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/x~1y"}}, "$defs": {"x/y": two(
        {"$ref": "#/$defs/x~1y"})}}  # fmt: skip
    target = pair("recursive", "place") + "?automation=place"
    assert shared_daemon.request("PUT", "/v1/schemas/place", schema).status == 200
    answer = shared_daemon.request("PUT", target, nested(60, 3))
    assert "several times at /$defs/x~1y" in answer.json["error"]


def test_width_alone_is_no_nesting(shared_daemon: Daemon) -> None:
    """Of a wide bucket the violations are told as ever: only what is nested multiplies."""
    target = pair("recursive", "wide") + "?automation=wide"
    assert shared_daemon.request("PUT", "/v1/schemas/wide", TREE).status == 200
    answer = shared_daemon.request("PUT", target, {f"k{n}": n % 2 or "x" for n in range(2000)})
    assert (answer.status, len(answer.json["details"])) == (422, 1000)
