"""The subschemas of one schema document, and where its references lead within it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any
from urllib.parse import unquote

_LISTS, _ONE = ("allOf", "anyOf", "oneOf"), ("not", "if", "then", "else")
_CHILD = ("items", "additionalProperties", "contains", "unevaluatedItems", "unevaluatedProperties")
# The label of an edge that stays at the same place of the bucket.
HERE = ""
REFERENCES = ("$ref", "$dynamicRef")
# So many subschemas with the same anchor, or the same end of their $id, are not told apart.
MAX_TARGETS = 16


class References:
    """The subschemas below a root, by identity, with the anchors and resources among them."""

    def __init__(self, root: Any) -> None:
        self.nodes: dict[int, dict[str, Any]] = {}
        self._anchors: dict[str, list[int]] = {}
        # For each node the nearest subschema above it with an $id, and these subschemas by $id.
        self._resource: dict[int, Any] = {}
        self._named: dict[str, list[Any]] = {}
        # The same subschemas, by the last segment of their $id.
        self._alike: dict[str, list[Any]] = {}
        self._collect(root)

    def target(self, node: dict[str, Any], name: str) -> Any:
        """Return the target of a JSON Pointer reference; None for an anchor or another schema."""
        return next((found for found in self._targets(node, name) if found is not None), None)

    def anchored(self, node: dict[str, Any], name: str) -> list[int]:
        """Return the subschemas with the anchor that a reference names."""
        text = node.get(name)
        return self._anchors.get(text.rpartition("#")[2], []) if isinstance(text, str) else []

    def all_targets(self, node: dict[str, Any], name: str) -> list[Any] | None:
        """Return whatever a reference may lead to; None where that is unknown."""
        anchored = self.anchored(node, name)
        targets = [*islice(self._targets(node, name), MAX_TARGETS), *map(self.nodes.get, anchored)]
        found = [target for target in targets if target is not None]
        return found if found and len(targets) < MAX_TARGETS else None

    def _targets(self, node: dict[str, Any], name: str) -> Iterator[Any]:
        text = node.get(name)
        if not isinstance(text, str):
            return
        uri, mark, fragment = text.partition("#")
        if not uri:
            yield resolve(self._resource.get(id(node)), mark + fragment)
            return
        # A relative URI may stand for each resource whose last segment matches it.
        for resource in chain(self._named.get(uri, ()), self._alike.get(_last(uri), ())):
            yield resolve(resource, mark + fragment)

    def _collect(self, root: Any) -> None:
        waiting = [(root, root)]
        while waiting:
            node, resource = waiting.pop()
            if not isinstance(node, dict) or id(node) in self.nodes:
                continue
            self.nodes[id(node)] = node
            if isinstance(node.get("$id"), str):
                resource = node
                self._named.setdefault(node["$id"], []).append(node)
                self._alike.setdefault(_last(node["$id"]), []).append(node)
            self._resource[id(node)] = resource
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(name), str):
                    self._anchors.setdefault(node[name], []).append(id(node))
            below = [child for _, child in children(node)]
            for name in ("$defs", "definitions"):
                below += members(node.get(name)).values()
            below += [self.target(node, name) for name in REFERENCES]
            waiting += [(child, resource) for child in below]


def _last(uri: str) -> str:
    """Return the last segment of a URI."""
    return uri.rpartition("/")[2]


def resolve(root: Any, reference: str) -> Any:
    """Return the subschema at ``#/…``; None if there is none."""
    here = root
    if reference not in ("#", "") and not reference.startswith("#/"):
        return None
    for piece in unquote(reference).removeprefix("#").split("/")[1:]:
        key = piece.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and key in here:
            here = here[key]
        elif isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        else:
            return None
    return here


def children(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield subschemas, each with its step into the bucket: ".key", "*" (any key), "[n]", "[]"."""
    for name in _LISTS:
        yield from ((HERE, child) for child in items(node.get(name)))
    yield from ((HERE, node[name]) for name in _ONE if name in node)
    yield from ((HERE, child) for child in members(node.get("dependentSchemas")).values())
    yield from ((f".{key}", child) for key, child in members(node.get("properties")).items())
    yield from (("*", child) for child in members(node.get("patternProperties")).values())
    yield from ((f"[{n}]", child) for n, child in enumerate(items(node.get("prefixItems"))))
    for name in _CHILD:
        if name in node:
            yield ("{rest}" if name.endswith("Properties") else "[]"), node[name]
    if "propertyNames" in node:
        yield "{names}", node["propertyNames"]


def members(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """Return the value if it is an array, else an empty one."""
    return value if isinstance(value, list) else []
