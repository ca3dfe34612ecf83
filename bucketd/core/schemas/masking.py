"""Find the values that a schema marks as secret, and put masks in their place.

A value is masked where any subschema that may apply to it carries the mark, whatever the bucket
holds: each branch of ``anyOf`` or ``if`` counts as taken. So no combination of values shows a
secret. The work is bounded; a value that would exceed it is masked whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import jsonschema_rs
import orjson

from ...model.bucket import Snapshot
from ...model.document import Document, Members
from ...model.masks import MASK, masked_etag
from .field_form import DIALECT
from .messages import pointer
from .references import HERE, REFERENCES, References, children, items, members

# Steps from a value to its children, each times the subschemas that apply, for one bucket.
MAX_WORK = 500_000
MAX_STATES = 4096
# Steps that a pattern may take back; one that takes more counts as uncertain.
MAX_BACKTRACKS = 10_000
# Schemas of the dialect itself are embedded in the library, and mark nothing.
_META = DIALECT.rpartition("/")[0]


class _State(NamedTuple):
    """The subschemas that may apply to a value, of those that lead to a mark."""

    is_secret: bool
    nodes: tuple[_Node, ...]


class _TooMuch(Exception):
    """The work on a bucket exceeds MAX_WORK."""


class Secrets:
    """The marks of one schema, which has some."""

    def __init__(self, nodes: dict[int, _Node], root: int, fingerprint: str) -> None:
        self._nodes = nodes
        self._here = {number: node.here for number, node in nodes.items()}
        self._states: dict[frozenset[int], _State] = {}
        self._root = self._state({root})
        # Another schema masks other values, so the fingerprint is part of a masked bucket's ETag.
        self.fingerprint = fingerprint

    def masked(self, bucket: dict[str, Any]) -> dict[str, Any]:
        """Return the keys of a bucket, all or some, with a mask in place of each secret value."""
        work = _Work()
        return {k: self._masked_value(v, self._of_top(k, work), work) for k, v in bucket.items()}

    def masked_members(self, found: Members) -> Members:
        """Return the same for the members of a document."""
        work, masked = _Work(), found.copy()
        for key, text in found.items():
            state = self._of_top(key, work)
            if state.is_secret or state.nodes:
                value = None if state.is_secret else orjson.loads(b"{%b}" % text)[key]
                value = self._masked_value(value, state, work)
                masked[key] = orjson.dumps({key: value})[1:-1]
        return masked

    def places(self, bucket: dict[str, Any]) -> list[str]:
        """Return the JSON Pointers of the secret values of a bucket."""
        return list(_masks(self.masked(bucket), ""))

    def is_secret(self, path: list[Any]) -> bool:
        """Report whether the value at a path, or one that it is part of, is a secret."""
        work = _Work()
        state = self._of_top(path[0], work) if path else self._root
        try:
            for step in path[1:]:
                if state.is_secret:
                    break
                of_item = isinstance(step, int)
                state = (self._of_item if of_item else self._of_key)(state, step, work)
        except _TooMuch:
            return True
        return state.is_secret

    def _of_top(self, key: Any, work: _Work) -> _State:
        """Return the state of a key's value; secret where finding that out exceeds the work."""
        try:
            return self._root if self._root.is_secret else self._of_key(self._root, key, work)
        except _TooMuch:
            return _State(True, ())

    def _masked_value(self, value: Any, state: _State, work: _Work) -> Any:
        try:
            return self._masked(value, state, work)
        except (_TooMuch, RecursionError):
            return MASK

    def _masked(self, value: Any, state: _State, work: _Work) -> Any:
        if state.is_secret:
            return MASK
        # A value that another schema has masked stays a mask.
        if not state.nodes or value == MASK:
            return value
        if isinstance(value, dict):
            return {
                key: self._masked(child, self._of_key(state, key, work), work)
                for key, child in value.items()
            }
        if isinstance(value, list):
            return self._masked_items(value, state, work)
        return value

    def _masked_items(self, value: list[Any], state: _State, work: _Work) -> list[Any]:
        # From here on the same subschemas apply to each item.
        alike = max(len(node.prefix) for node in state.nodes)
        first = [
            self._masked(child, self._of_item(state, index, work), work)
            for index, child in enumerate(value[:alike])
        ]
        rest = self._of_item(state, alike, work)
        if not rest.is_secret and not rest.nodes:
            return first + value[alike:]
        work.add(len(value))
        return first + [self._masked(child, rest, work) for child in value[alike:]]

    def _of_key(self, state: _State, key: str, work: _Work) -> _State:
        """Return the state of the value of a key."""
        work.add(sum(node.cost for node in state.nodes))
        return self._state({child for node in state.nodes for child in node.of_key(key)})

    def _of_item(self, state: _State, index: int, work: _Work) -> _State:
        work.add(len(state.nodes))
        return self._state({child for node in state.nodes for child in node.of_item(index)})

    def _state(self, numbers: set[int]) -> _State:
        """Return the state that begins with these subschemas; those that lead nowhere are left out.

        Subschemas at the same place, such as the branches of ``anyOf``, belong to it.
        """
        begun = frozenset(number for number in numbers if number in self._nodes)
        found = self._states.get(begun)
        if found is None:
            if len(self._states) >= MAX_STATES:
                self._states.clear()
            reached = _reachable(begun, self._here)
            nodes = tuple(self._nodes[number] for number in sorted(reached))
            found = _State(any(node.is_secret for node in nodes), nodes)
            self._states[begun] = found
        return found


class Masking(NamedTuple):
    """The marks of all schemas that may apply to a bucket; a value that any marks is a secret."""

    secrets: tuple[Secrets, ...]

    def values(self, bucket: dict[str, Any]) -> dict[str, Any]:
        """Return the keys of a bucket, all or some, with a mask in place of each secret value."""
        for secrets in self.secrets:
            bucket = secrets.masked(bucket)
        return bucket

    def members(self, found: Members) -> Members:
        """Return the same for the members of a document."""
        for secrets in self.secrets:
            found = secrets.masked_members(found)
        return found

    def snapshot(self, now: Snapshot) -> Snapshot:
        """Return the masked form of a state, which is another representation with its own ETag."""
        bucket = now.bucket
        if bucket.is_split:
            masked = Document(None, self.members(bucket.members))
        else:
            masked = Document.of(self.values(bucket.values()))
        return self.tagged(now)._replace(bucket=masked)

    def tagged(self, now: Snapshot) -> Snapshot:
        """Return the state with the ETag of its masked form."""
        if now.etag is None:
            return now
        fingerprint = "-".join(secrets.fingerprint for secrets in self.secrets)
        return now._replace(etag=masked_etag(now.etag, fingerprint))


def _masks(value: Any, place: str) -> Iterator[str]:
    if value is MASK:
        yield place
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _masks(child, place + pointer([key]))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _masks(child, f"{place}/{index}")


class _Work:
    """Count the steps on one bucket."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = 0

    def add(self, steps: int) -> None:
        self._done += steps
        if self._done > MAX_WORK:
            raise _TooMuch


class _Node:
    """A subschema, and where its parts apply; ``leads`` has those that lead to a mark."""

    __slots__ = (
        "_every",
        "_names",
        "_others",
        "_patterns",
        "_properties",
        "_rest",
        "cost",
        "here",
        "is_secret",
        "prefix",
    )  # fmt: skip

    def __init__(self, schema: dict[str, Any], here: list[int], leads: set[int]) -> None:
        def living(name: str) -> list[int]:
            return [id(schema[name])] if id(schema.get(name)) in leads else []

        properties = members(schema.get("properties"))
        patterns = members(schema.get("patternProperties"))
        self.is_secret, self.here = is_marked(schema), [n for n in here if n in leads]
        self._names = frozenset(properties)
        self._properties = {k: id(child) for k, child in properties.items() if id(child) in leads}
        self._others = living("additionalProperties")
        if "additionalProperties" not in schema:
            self._others += living("unevaluatedProperties")
        self._patterns = [
            (_Pattern(text), id(child) if id(child) in leads else None)
            for text, child in patterns.items()
            # Any pattern decides whether a key is an additional one.
            if id(child) in leads or self._others
        ]
        self.prefix = [id(child) for child in items(schema.get("prefixItems"))]
        self._rest = living("items")
        self._every = living("contains")
        if "items" not in schema:
            self._rest += living("unevaluatedItems")
        self.cost = 1 + 4 * len(self._patterns)

    def of_key(self, key: str) -> Iterator[int]:
        """Yield the subschemas that apply to the value of a key."""
        if key in self._properties:
            yield self._properties[key]
        is_known = key in self._names
        for pattern, child in self._patterns:
            may_match, certain = pattern.matches(key)
            is_known = is_known or (may_match and certain)
            if may_match and child is not None:
                yield child
        if not is_known:
            yield from self._others

    def of_item(self, index: int) -> Iterator[int]:
        if index < len(self.prefix):
            yield self.prefix[index]
        else:
            yield from self._rest
        yield from self._every


class _Pattern:
    """A pattern of keys, matched by the library that validates, since dialects differ."""

    def __init__(self, pattern: str) -> None:
        self._validator = None
        for options in (
            jsonschema_rs.RegexOptions(),
            jsonschema_rs.FancyRegexOptions(backtrack_limit=MAX_BACKTRACKS),
        ):
            try:
                self._validator = jsonschema_rs.Draft202012Validator(
                    {"pattern": pattern}, pattern_options=options
                )
                return
            except (jsonschema_rs.ValidationError, ValueError):
                continue

    def matches(self, key: str) -> tuple[bool, bool]:
        """Return whether a key may match, and whether that is certain."""
        if self._validator is None:
            return True, False
        try:
            self._validator.validate(key)
        except jsonschema_rs.ValidationError as error:
            # The library gave up on the pattern, unless it names it.
            gave_up = not hasattr(error.kind, "pattern")
            return gave_up, not gave_up
        return True, True


def find_secrets(schema: Any) -> Secrets | None:
    """Return the marks of a schema that compiles; None if it marks nothing."""
    if not isinstance(schema, dict):
        return None
    text = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    if b'"writeOnly":true' not in text and b'"password"' not in text:
        return None
    references = References(schema)
    nodes: dict[int, dict[str, Any]] = {}
    here: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    unknown: list[int] = []
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if id(node) in nodes:
            continue
        nodes[id(node)] = node
        same_place, parts, is_known = _parts(node, references)
        here[id(node)] = [id(part) for part in same_place]
        below[id(node)] = [*here[id(node)], *map(id, parts)]
        if not is_known:
            unknown.append(id(node))
        waiting += [*same_place, *parts]
    marked = [number for number, node in nodes.items() if is_marked(node)]
    leads = _reachable([*marked, *unknown], _reversed(below))
    if id(schema) not in leads:
        return None
    living = {number: _Node(nodes[number], here[number], leads) for number in leads}
    # A subschema that cannot be found may be a mark.
    for number in unknown:
        living[number].is_secret = True
    return Secrets(living, id(schema), blake2b(text, digest_size=4).hexdigest())


def is_marked(node: Any) -> bool:
    """Report whether a subschema marks the value that it applies to as a secret."""
    if not isinstance(node, dict):
        return False
    if node.get("writeOnly") is True or node.get("format") == "password":
        return True
    # The secret may be anywhere in a string that itself holds JSON.
    return "contentSchema" in node and _mentions_mark(node["contentSchema"])


def _mentions_mark(schema: Any) -> bool:
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if not value.keys().isdisjoint(REFERENCES) or value.get("writeOnly") is True:
                return True
            if value.get("format") == "password":
                return True
            waiting += value.values()
    return False


def _parts(
    node: dict[str, Any], references: References
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bool]:
    """Return the subschemas of the same place, those of children, and whether that is all."""
    same_place: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    is_known = True
    for label, child in children(node):
        if isinstance(child, dict) and label != "{names}":
            (same_place if label == HERE else parts).append(child)
    for name in REFERENCES:
        if not isinstance(node.get(name), str) or node[name].startswith(_META):
            continue
        targets = references.all_targets(node, name)
        is_known = is_known and targets is not None
        same_place += [target for target in targets or () if isinstance(target, dict)]
    return same_place, parts, is_known


def _reversed(edges: dict[int, list[int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for source, targets in edges.items():
        for target in targets:
            found.setdefault(target, []).append(source)
    return found


def _reachable(begin: Iterable[int], edges: dict[int, list[int]]) -> set[int]:
    """Return all that can be reached along the edges, the begin included."""
    found: set[int] = set()
    waiting = list(begin)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += edges.get(number, ())
    return found
