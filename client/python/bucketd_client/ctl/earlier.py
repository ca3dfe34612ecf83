"""The history of a bucket: its changes, the newest first, and its earlier states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .. import _context
from . import json_diff, masks
from .filters import PAGE
from .json_diff import Change, pointer
from .parser import Usage
from .session import Session

Entry = dict[str, Any]


def path_below(scope: _context.Scope, word: str, more: Iterable[str] = ()) -> str:
    """Return path and query of ``history`` or ``undo`` of a bucket."""
    path, mark, query = scope.target(more=more).partition("?")
    return f"{path}/{word}{mark}{query}"


def pages(
    session: Session, scope: _context.Scope, more: Iterable[str] = (), most: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the responses with the changes of a bucket, ``most`` changes in all."""
    cursor: str | None = ""
    while cursor is not None and most != 0:
        limit = PAGE if most is None else min(PAGE, most)
        query = [f"limit={limit}", *more, *([f"cursor={cursor}"] if cursor else [])]
        target = path_below(scope, "history", query)
        members = session.call("GET", target, headers=scope.headers()).members
        yield members
        most = None if most is None else most - len(members["history"])
        cursor = members["next_cursor"]


class State(NamedTuple):
    """A bucket as a revision left it, and how a terminal shows it."""

    bucket: dict[str, Any]
    masked: dict[str, Any]


def state_at(session: Session, scope: _context.Scope, revision: int) -> State:
    """Return the state that a revision left."""
    plain, masked = (
        session.call(
            "GET", scope.target(more=[f"revision={revision}", *mask]), headers=scope.headers()
        ).members[scope.label]
        for mask in ([], session.mask)
    )
    return State(plain, masked)


def state_now(session: Session, scope: _context.Scope) -> State:
    """Return the newest state."""
    found = masks.read(session, scope, mask=bool(session.mask))
    return State(found.bucket, found.masked)


def number(word: str) -> int:
    """Return the revision in ``@7`` or ``7``. Raises Usage."""
    if not re.fullmatch(r"@?[1-9][0-9]{0,14}", word):
        raise Usage(f"cannot use the revision {word}: it must be a whole number over 0")
    return int(word.removeprefix("@"))


def is_number(word: str) -> bool:
    """Report whether a word is ``@`` and a number."""
    return word[:1] == "@" and word[1:].isdecimal()


def changes(entry: Entry, after: dict[str, Any]) -> tuple[list[Change], dict[str, Any]]:
    """Return what a change did to each key, and the bucket before it.

    ``after`` is the bucket that the change left; in both a mask may stand for a secret.
    """
    earlier, touched = entry["before"], [*entry["set"], *entry["removed"]]
    before = {key: value for key, value in after.items() if key not in touched} | earlier
    found = list(json_diff.changes(before, after))
    seen = {change.path.split("/")[1] for change in found}
    for key in touched:
        place = pointer(key)
        # Of a secret both sides look the same.
        if place[1:] not in seen and key in before and key in after:
            found.append(Change(place, before[key], after[key]))
    return found, before
