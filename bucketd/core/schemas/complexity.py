"""Refuses a schema that could take time without bound, before anything is validated with it.

Two things can make validation exponential in the size of a schema or of a
bucket. One is a subschema that is applied to the same place of a bucket in very
many ways (``allOf`` of two references to an ``allOf`` of two references, and
so on). The other is recursion that branches at one place: then each level of
nesting multiplies. Both are counted here on the graph of subschemas; what
recurses once for each child, such as a tree, is linear and passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import InvalidRequest
from .messages import pointer

MAX_WAYS = 100_000
_LISTS, _ONE = ("allOf", "anyOf", "oneOf"), ("not", "if", "then", "else")
_CHILD = ("items", "additionalProperties", "contains", "unevaluatedItems", "unevaluatedProperties")
_HERE = ""  # the label of an edge that stays at the same place of the bucket

Edge = tuple[str, int]


def check(schema: Any) -> None:
    """Raise InvalidRequest for a schema whose work has no reasonable bound."""
    graph = _Graph(schema)
    if graph.count_ways() > MAX_WAYS:
        raise InvalidRequest(
            f"cannot use the schema: it would be applied to one place in over {MAX_WAYS} ways; "
            "use fewer references within references"
        )


class _Graph:
    """Subschemas by the identity of their objects, with edges labelled by the step they take."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._anchors: dict[str, list[int]] = {}
        self._nodes: dict[int, dict[str, Any]] = {}
        self._resource: dict[int, Any] = {}  # of each node: the nearest one above it with an $id
        self._named: dict[str, Any] = {}  # those, by $id
        self._collect(root)
        self._edges = {number: list(self._edges_of(node)) for number, node in self._nodes.items()}

    def count_ways(self) -> int:
        """In how many ways one place may be looked at; raises where that grows with the nesting."""
        if not isinstance(self._root, dict):
            return 1
        component = _components(self._edges)
        ways = dict.fromkeys(self._edges, 0)
        ways[id(self._root)] = 1
        for members in component:  # in topological order
            self._refuse_branching(set(members))
            total = sum(ways[number] for number in members)
            for number in members:
                ways[number] = total
                for _, target in self._edges[number]:
                    if target not in members:
                        ways[target] = min(ways[target] + total, MAX_WAYS + 1)
        return max(ways.values())

    def _refuse_branching(self, members: set[int]) -> None:
        memo: dict[int, dict[str, int]] = {}
        for number in members:
            exits = self._exits(number, members, memo, set())
            every = exits.get("*", 0)
            if any(count + (every if label != "*" else 0) > 1 for label, count in exits.items()):
                raise InvalidRequest(
                    f"cannot use the schema: {self._place(number)}: it refers to itself twice at "
                    "the same place, so a nested bucket could take for ever; let each place refer "
                    "back once"
                )

    def _exits(
        self, number: int, members: set[int], memo: dict[int, dict[str, int]], above: set[int]
    ) -> dict[str, int]:
        """By step: in how many ways a child is looked at again by the same recursion."""
        if number in above:
            raise InvalidRequest(
                f"cannot use the schema: {self._place(number)}: a reference leads back to itself, "
                "so it says nothing; let it lead to a schema"
            )
        if number in memo:
            return memo[number]
        exits: dict[str, int] = {}
        for label, target in self._edges[number]:
            if target not in members:
                continue
            if label != _HERE:
                exits[label] = exits.get(label, 0) + 1
                continue
            inner = self._exits(target, members, memo, above | {number})
            for step, count in inner.items():
                exits[step] = exits.get(step, 0) + count
        memo[number] = exits
        return exits

    def _place(self, number: int) -> str:
        """Return the JSON Pointer of a subschema."""
        return self._places.get(number) or "its root"

    def _collect(self, root: Any) -> None:
        waiting = [(root, root)]
        self._places = _places(root)
        while waiting:
            node, resource = waiting.pop()
            if not isinstance(node, dict) or id(node) in self._nodes:
                continue
            self._nodes[id(node)] = node
            if isinstance(node.get("$id"), str):
                resource = node
                self._named[node["$id"]] = node
            self._resource[id(node)] = resource
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(name), str):
                    self._anchors.setdefault(node[name], []).append(id(node))
            below = [child for _, child in _children(node)]
            for name in ("$defs", "definitions"):
                below += _dict(node.get(name)).values()
            below += [self._pointed(node, name) for name in ("$ref", "$dynamicRef")]
            waiting += [(child, resource) for child in below]

    def _edges_of(self, node: dict[str, Any]) -> Iterator[Edge]:
        for label, child in _children(node):
            if isinstance(child, dict):
                yield label, id(child)
        for name in ("$ref", "$dynamicRef"):
            target = self._pointed(node, name)
            if isinstance(target, dict):
                yield _HERE, id(target)
            elif isinstance(node.get(name), str):
                # An anchor: of several with its name exactly one is used, so one stands for all.
                yield from ((_HERE, n) for n in self._anchors.get(_anchor(node[name]), [])[:1])

    def _pointed(self, node: dict[str, Any], name: str) -> Any:
        """What a JSON Pointer reference leads to; None for an anchor, or for nothing of ours."""
        text = node.get(name)
        if not isinstance(text, str):
            return None
        uri, mark, fragment = text.partition("#")
        resource = self._resource[id(node)] if not uri else self._by_uri(uri)
        return resolve(resource, mark + fragment)

    def _by_uri(self, uri: str) -> Any:
        """The resource that is meant; a relative reference is taken for any that ends like it."""
        last = uri.rpartition("/")[2]
        alike = (node for name, node in self._named.items() if name.rpartition("/")[2] == last)
        return self._named.get(uri) or next(alike, None)


def _places(root: Any) -> dict[int, str]:
    """Return the JSON Pointer of each object in a schema, by its identity."""
    places: dict[int, str] = {}
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        place, node = waiting.pop()
        if isinstance(node, dict):
            places[id(node)] = place
            waiting += [(place + pointer([name]), child) for name, child in node.items()]
        elif isinstance(node, list):
            waiting += [(place + pointer([index]), child) for index, child in enumerate(node)]
    return places


def resolve(root: Any, reference: str) -> Any:
    """The subschema at ``#/…``; None where there is none."""
    here = root
    if reference not in ("#", "") and not reference.startswith("#/"):
        return None
    for piece in reference.removeprefix("#").split("/")[1:]:
        key = piece.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and key in here:
            here = here[key]
        elif isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        else:
            return None
    return here


def _anchor(reference: str) -> str:
    return reference.rpartition("#")[2]


def _children(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Subschemas with the step to the place they look at: "." + key, "*" any key, "[n]", "[]"."""
    for name in _LISTS:
        yield from ((_HERE, child) for child in _list(node.get(name)))
    yield from ((_HERE, node[name]) for name in _ONE if name in node)
    yield from ((_HERE, child) for child in _dict(node.get("dependentSchemas")).values())
    yield from ((f".{key}", child) for key, child in _dict(node.get("properties")).items())
    yield from (("*", child) for child in _dict(node.get("patternProperties")).values())
    yield from ((f"[{n}]", child) for n, child in enumerate(_list(node.get("prefixItems"))))
    for name in _CHILD:
        if name in node:
            yield ("{rest}" if name.endswith("Properties") else "[]"), node[name]
    if "propertyNames" in node:
        yield "{names}", node["propertyNames"]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _components(edges: dict[int, list[Edge]]) -> list[list[int]]:
    """Strongly connected components, sources first (Tarjan 1972, with a stack of its own)."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    found: list[list[int]] = []
    for start in edges:
        if start in order:
            continue
        work = [(start, iter(edges[start]))]
        while work:
            node, rest = work[-1]
            if node not in order:
                order[node] = low[node] = len(order)
                path.append(node)
                on_path.add(node)
            for _, target in rest:
                if target not in order:
                    work.append((target, iter(edges[target])))
                    break
                if target in on_path:
                    low[node] = min(low[node], order[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    members = path[path.index(node) :]
                    del path[path.index(node) :]
                    on_path.difference_update(members)
                    found.append(members)
    return found[::-1]
