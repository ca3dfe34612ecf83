"""Bound the work that a schema causes: first for any bucket, then for one bucket.

Two things can make validation exponential in the size of a schema or of a bucket. The first is a
subschema that is applied to the same place of a bucket in very many ways (``allOf`` of two
references to an ``allOf`` of two references, and so on): the daemon refuses such a schema. The
second is recursion that branches at one place, so that each level of nesting multiplies the work.
The library still decides validity in linear time, since it remembers which reference holds where.
To list the violations it remembers nothing, so a Branching bounds that work for a given bucket.

Both are counted on the graph of subschemas. A schema that recurses once for each child, such as
that of a tree, is linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidRequest
from .messages import pointer
from .references import HERE, REFERENCES, References, children

MAX_WAYS = 100_000

Edge = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Branching:
    """How the work of a recursive schema multiplies with the nesting of a bucket.

    ``place`` is the JSON Pointer of the subschema that multiplies most. One evaluation applies at
    most ``subschemas`` to a place. One evaluation of a value causes so many of its child:
    ``by_key[".key"]`` or ``by_key["[n]"]``, else ``of_key`` or ``of_item``.
    """

    place: str
    subschemas: int
    by_key: dict[str, int]
    of_key: int
    of_item: int

    def bound(self, bucket: Any, limit: int) -> int:
        """Return an upper bound of the repeated evaluations that list all violations.

        Each evaluation counts as often as its value has parts, since a violation holds a copy of
        the value. Counting stops once the bound exceeds ``limit``.
        """
        work = 0
        waiting: list[tuple[Any, int, int]] = [(bucket, 1, 0)]
        while waiting and work <= limit:
            value, times, repeated = waiting.pop()
            work += repeated * self.subschemas
            children: Iterator[tuple[int, Any]]
            if isinstance(value, dict):
                children = ((self.by_key.get(f".{k}", self.of_key), v) for k, v in value.items())
            elif isinstance(value, list):
                factors = (self.by_key.get(f"[{n}]", self.of_item) for n in range(len(value)))
                children = zip(factors, value, strict=True)
            else:
                continue
            for factor, child in children:
                below = max(1, times * factor)
                waiting.append((child, below, repeated + below - 1))
        return work


def check(schema: Any) -> Branching | None:
    """Return how the schema branches, if so; raise InvalidRequest if no bucket bounds the work."""
    try:
        graph = _Graph(schema)
        graph.check_ways()
        return graph.branching()
    except RecursionError:
        raise InvalidRequest("cannot use the schema: it is nested too deeply") from None


class _Graph:
    """The graph of subschemas, by object identity; an edge's label is its step into the bucket."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._places = _places(root)
        self._references = References(root)
        # By step, the evaluations of a child for one of its parent.
        self._factors: dict[str, int] = {}
        # The subschema that branches most, and its factor.
        self._worst: tuple[int, int] | None = None
        self._branching: set[int] = set()
        self._expansions: dict[int, int] = {}
        nodes = self._references.nodes
        self._edges = {number: list(self._edges_of(node)) for number, node in nodes.items()}

    def check_ways(self) -> None:
        """Raise InvalidRequest if one place would be evaluated in too many ways, or endlessly."""
        if not isinstance(self._root, dict):
            return
        ways = dict.fromkeys(self._edges, 0)
        ways[id(self._root)] = 1
        # The components come in topological order.
        for members in _components(self._edges):
            multiplier = self._measure_recursion(members)
            total = sum(ways[number] for number in members) * multiplier
            if total > MAX_WAYS:
                raise InvalidRequest(
                    f"cannot use the schema: {self._place(members[0])}: it would be applied to one "
                    f"place in over {MAX_WAYS} ways; use fewer references within references"
                )
            for number in members:
                for _, target in self._edges[number]:
                    if target not in members:
                        ways[target] = min(ways[target] + total, MAX_WAYS + 1)

    def branching(self) -> Branching | None:
        """Return how the recursive subschemas multiply; None if each recurs once per child."""
        if self._worst is None:
            return None
        by_key = {label: n for label, n in self._factors.items() if label[0] in ".["}
        any_item = by_key.pop("[]", 0)
        any_key = self._factors.get("*", 0) + self._factors.get("{rest}", 0)
        return Branching(
            place=self._place(self._worst[0]),
            subschemas=min(max(self._expansion(n) for n in self._branching), MAX_WAYS),
            by_key={
                label: n + (any_item if label[0] == "[" else any_key) for label, n in by_key.items()
            },
            of_key=any_key,
            of_item=any_item,
        )

    def _measure_recursion(self, members: list[int]) -> int:
        """Return the maximum number of ways in which one component evaluates a child."""
        memo: dict[int, dict[str, int]] = {}
        together_with = set(members)
        most = 1
        for number in members:
            ways = self._ways_to_children(number, together_with, memo, set())
            every = ways.get("*", 0)
            for label, count in ways.items():
                self._factors[label] = max(self._factors.get(label, 0), count)
                together = count + (every if label != "*" else 0)
                most = max(most, together)
                if together > 1 and (self._worst is None or together > self._worst[1]):
                    self._worst = (number, together)
        if most > 1:
            self._branching.update(members)
        return most

    def _expansion(self, number: int) -> int:
        """Return how many subschemas one evaluation of a subschema applies to the same place."""
        if number not in self._expansions:
            here = (target for label, target in self._edges[number] if label == HERE)
            self._expansions[number] = 1 + sum(self._expansion(target) for target in here)
        return self._expansions[number]

    def _ways_to_children(
        self, number: int, members: set[int], memo: dict[int, dict[str, int]], above: set[int]
    ) -> dict[str, int]:
        """Return by step the number of ways in which the recursion evaluates a child again."""
        if number in above:
            raise InvalidRequest(
                f"cannot use the schema: {self._place(number)}: a reference leads back to itself, "
                "so it says nothing; let it lead to a schema"
            )
        if number in memo:
            return memo[number]
        ways: dict[str, int] = {}
        for label, target in self._edges[number]:
            if target not in members:
                continue
            if label != HERE:
                ways[label] = ways.get(label, 0) + 1
                continue
            inner = self._ways_to_children(target, members, memo, above | {number})
            for step, count in inner.items():
                ways[step] = ways.get(step, 0) + count
        memo[number] = ways
        return ways

    def _place(self, number: int) -> str:
        """Return the JSON Pointer of a subschema."""
        return self._places.get(number) or "its root"

    def _edges_of(self, node: dict[str, Any]) -> Iterator[Edge]:
        for label, child in children(node):
            if isinstance(child, dict):
                yield label, id(child)
        for name in REFERENCES:
            target = self._references.target(node, name)
            if isinstance(target, dict):
                yield HERE, id(target)
            else:
                # The reference names an anchor. The library uses exactly one of several anchors
                # with this name, so one edge is enough.
                yield from ((HERE, n) for n in self._references.anchored(node, name)[:1])


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


def _components(edges: dict[int, list[Edge]]) -> list[list[int]]:
    """Return the strongly connected components, sources first (Tarjan 1972, not recursive)."""
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
