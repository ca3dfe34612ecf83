"""The defaults of a bucket's keys by its schema. They complete what is read; none is ever stored.

A default is that of a key of the bucket itself, in ``properties`` at the root of the schema, or in
what the root refers to by ``$ref`` and ``allOf``. A default within a value is none: a bucket is
read and set by its keys, and a stored value stands as it is. Nor is one within ``anyOf``, ``oneOf``
or ``if``, which is of some buckets only.
"""

from __future__ import annotations

from typing import Any

from .references import resolve


def defaults_of(schema: Any) -> dict[str, Any]:
    """Return the defaults by key; of several for one key, the first one."""
    found: dict[str, Any] = {}
    for node in _applied(schema, schema):
        named = node.get("properties")
        for key, child in named.items() if isinstance(named, dict) else ():
            for each in _applied(schema, child):
                if key not in found and "default" in each:
                    found[key] = each["default"]
    return found


def _applied(root: Any, schema: Any) -> list[dict[str, Any]]:
    """Return a subschema, and those that it applies to the same value in any case."""
    found: list[dict[str, Any]] = []
    waiting = [schema]
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, dict) or any(node is each for each in found):
            continue
        found.append(node)
        if isinstance(node.get("$ref"), str):
            waiting.append(resolve(root, node["$ref"]))
        if isinstance(node.get("allOf"), list):
            waiting += node["allOf"]
    return found
