"""Say what to change in a schema of an older JSON Schema dialect, so that 2020-12 reads it alike.

The daemon does not read older dialects: the same keyword means something else there, and a schema
would change its meaning with a line that nobody looks at. Most older schemas use no such keyword,
so that another ``$schema`` is all that they need.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from .field_form import DIALECT
from .messages import pointer

MAX_SHOWN = 5
_OLDER = re.compile(r"https?://json-schema\.org/(?:(draft-0[467])|draft/(2019-09))/schema#?")
_ANCHOR = re.compile(r"#[A-Za-z_][-A-Za-z0-9._]*")
_BEFORE_2019 = ("draft-04", "draft-06", "draft-07")
# Keywords whose value is a schema, schemas by name, or a list of schemas.
_CHILD = (
    *("additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "else", "if"),
    *("items", "not", "oneOf", "propertyNames", "then", "unevaluatedItems"),
    "unevaluatedProperties",
)
_CHILDREN = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties")
# Keywords that have an effect beside a reference; notes and definitions have none.
_CHECKS = frozenset(
    (
        *_CHILD, *_CHILDREN[2:], "const", "enum", "exclusiveMaximum", "exclusiveMinimum", "format",
        "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength",
        "minProperties", "minimum", "multipleOf", "pattern", "properties", "required", "type",
        "uniqueItems",
    )
)  # fmt: skip


def cause_of_refusal(schema: dict[str, Any]) -> str:
    """Return why the daemon refuses a ``$schema`` other than 2020-12, and what to change."""
    match = _OLDER.fullmatch(str(schema["$schema"]))
    if match is None:
        return f"its $schema is another dialect; use {DIALECT}"
    name = match[1] or match[2]
    cause = f"its $schema is {name}, and the daemon reads 2020-12 alone: let it be {DIALECT}"
    changes = [f"{pointer(place)} ({advice})" for place, advice in _changes(schema, name)]
    if not changes:
        return f"{cause}; all of its keywords mean the same there"
    shown = ", ".join(changes[:MAX_SHOWN])
    more = f", and {len(changes) - MAX_SHOWN} more" if len(changes) > MAX_SHOWN else ""
    return f"{cause}, and rewrite what means something else there: {shown}{more}"


def _changes(schema: dict[str, Any], dialect: str) -> Iterator[tuple[list[Any], str]]:
    """Yield the place of each keyword that 2020-12 reads in another way, and what to write."""
    waiting: deque[tuple[list[Any], Any]] = deque([([], schema)])
    while waiting:
        path, node = waiting.popleft()
        if isinstance(node, list):
            waiting += (([*path, number], child) for number, child in enumerate(node))
        if not isinstance(node, dict):
            continue
        for keyword, advice in _changes_of_one(node, dialect):
            yield [*path, keyword], advice
        for keyword in _CHILD:
            if keyword in node:
                waiting.append(([*path, keyword], node[keyword]))
        for keyword in ("properties", *_CHILDREN):
            children = node.get(keyword)
            for name, child in children.items() if isinstance(children, dict) else ():
                waiting.append(([*path, keyword, name], child))


def _changes_of_one(node: dict[str, Any], dialect: str) -> Iterator[tuple[str, str]]:
    """Yield the keywords of one subschema that 2020-12 reads in another way, and what to write."""
    if isinstance(node.get("items"), list):
        also = ", and items for additionalItems" if "additionalItems" in node else ""
        yield "items", f"write prefixItems{also}"
    for keyword in ("$recursiveRef", "$recursiveAnchor"):
        if keyword in node:
            yield keyword, f"write {keyword.replace('recursive', 'dynamic')}"
    if dialect in _BEFORE_2019:
        yield from _changes_of_2019(node)
        keyword = "id" if dialect == "draft-04" else "$id"
        if isinstance(node.get(keyword), str) and (advice := _identified(keyword, node[keyword])):
            yield keyword, advice
    for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
        if dialect == "draft-04" and isinstance(node.get(keyword), bool):
            yield keyword, "write the limit itself"


def _changes_of_2019(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "dependencies" in node:
        yield "dependencies", "write dependentRequired, or dependentSchemas"
    if isinstance(node.get("$ref"), str) and not _CHECKS.isdisjoint(node):
        ignored = ", ".join(sorted(_CHECKS.intersection(node)))
        yield "$ref", f"{ignored} beside it had no effect: remove it, unless it is meant"


def _identified(keyword: str, identifier: str) -> str:
    """Return what to write for an identifier; an empty string if it may stay as it is."""
    if _ANCHOR.fullmatch(identifier):
        return "write $anchor, without the #"
    if identifier.partition("#")[2]:
        return "write $id, without what follows the #"
    return "write $id" if keyword == "id" else ""
