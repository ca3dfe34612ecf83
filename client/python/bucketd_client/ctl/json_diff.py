"""The differences of two JSON objects, as data and as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import colours, output

ABSENT = object()


class Change(NamedTuple):
    """One place, as a JSON Pointer; ``ABSENT`` if that side has no value there."""

    path: str
    before: Any
    after: Any


def changes(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Yield the outermost places that differ; compare objects by key, and arrays as a whole."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            place = path + pointer(key)
            yield from changes(before.get(key, ABSENT), after.get(key, ABSENT), place)
    elif not same(before, after):
        yield Change(path, before, after)


def pointer(key: str) -> str:
    """Return the JSON Pointer of a key of an object."""
    return f"/{key.replace('~', '~0').replace('/', '~1')}"


def same(before: Any, after: Any) -> bool:
    """Report whether two values have the same JSON; 1, 1.0 and True are equal in Python only."""
    if _beyond_integers(before) or _beyond_integers(after):
        # The daemon stores such a number as a double, and may write it with an exponent.
        return not isinstance(before, bool) and not isinstance(after, bool) and before == after
    if type(before) is not type(after):
        return False
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[k], after[k]) for k in before)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(same, before, after))
    return bool(before == after)


def _beyond_integers(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**64


def lines(found: list[Change]) -> Iterator[str]:
    """Yield ``- place: value`` in red and ``+ place: value`` in green."""
    for line in plain_lines(found):
        yield colours.paint(line, colours.RED if line.startswith("-") else colours.GREEN)


def plain_lines(found: list[Change]) -> Iterator[str]:
    for path, before, after in found:
        for sign, value in (("-", before), ("+", after)):
            if value is not ABSENT:
                text = output.masks_shown(json.dumps(value, ensure_ascii=False))
                yield output.plain(f"{sign} {path}: {text}")


def kind_lines(found: list[Change]) -> Iterator[str]:
    """Yield ``- place: kind`` and ``+ place: kind``, for messages, which show no values."""
    for path, before, after in found:
        for sign, value in (("-", before), ("+", after)):
            if value is not ABSENT:
                yield output.plain(f"{sign} {path}: {_kind(value)}")


def _kind(value: Any) -> str:
    """Return the JSON type of a value, with its length if it has one."""
    if isinstance(value, str):
        return f"a string of {len(value)} characters"
    if isinstance(value, (list, dict)):
        kind, part = ("an array", "items") if isinstance(value, list) else ("an object", "keys")
        return f"{kind} of {len(value)} {part}"
    if isinstance(value, bool):
        return "a boolean"
    return "null" if value is None else "a number"


def as_data(found: list[Change]) -> list[dict[str, Any]]:
    """Return ``[{path, before?, after?}]``."""
    return [
        {name: value for name, value in change._asdict().items() if value is not ABSENT}
        for change in found
    ]
