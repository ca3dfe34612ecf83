"""Replace the values that a schema marks as secret, before they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .codegen.references import References
from .json_diff import ABSENT, Change

MASK = "••••"
# What these keywords hold has names of its own, or is only used where a reference leads to it.
_NAMED = ("properties", "$defs", "definitions")


class SecretValues:
    """The keys whose values are secrets by any of some JSON Schemas.

    A name counts as secret everywhere in a bucket, so that no combination of keywords shows one.
    """

    def __init__(self, *schemas: Any) -> None:
        self.names: set[str] = set()
        self.everything = False
        for schema in schemas:
            nodes = list(_objects(schema))
            if not any(map(_is_marked, nodes)):
                continue
            references = References(schema)
            self.everything = self.everything or _is_secret(schema, references)
            for node in nodes:
                named = node.get("properties")
                for key, child in named.items() if isinstance(named, dict) else ():
                    if _is_secret(child, references):
                        self.names.add(key)

    def masked(self, change: Change) -> Change:
        """Return the change with a mask in place of each secret value."""
        steps = [step.replace("~1", "/").replace("~0", "~") for step in change.path.split("/")]
        hidden = self.everything or not self.names.isdisjoint(steps)
        before, after = (
            value if value is ABSENT else MASK if hidden else self._of(value)
            for value in (change.before, change.after)
        )
        return Change(change.path, before, after)

    def _of(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._of(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {key: MASK if key in self.names else self._of(each) for key, each in value.items()}


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _is_marked(node: Any) -> bool:
    return isinstance(node, dict) and (
        node.get("writeOnly") is True or node.get("format") == "password"
    )


def _is_secret(schema: Any, references: References) -> bool:
    """Report whether a subschema marks its value, or a part of it without a name, as secret."""
    waiting, seen = [schema], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, (dict, list)):
            continue
        seen.add(id(node))
        if isinstance(node, list):
            waiting += node
            continue
        if _is_marked(node):
            return True
        if isinstance(node.get("$ref"), str):
            place = references.target(node["$ref"], "#")
            # The target is unknown, so the value may be a secret.
            if place is None:
                return True
            waiting.append(references.at(place))
        waiting += [child for keyword, child in node.items() if keyword not in _NAMED]
    return False
