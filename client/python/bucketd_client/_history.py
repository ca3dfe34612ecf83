"""The history of a bucket: its changes page by page, an earlier state, and taking a change back.

This module is imported once a program asks for one of them.
"""

from __future__ import annotations

from typing import Any, TypedDict

from ._api import JSON, encode
from ._errors import error
from ._operations import Operation, read, write_headers

# See _bucket.
__tracebackhide__ = True
MAX_PAGE = 1000


class Author(TypedDict, total=False):
    """The author of a change; ``edit`` is true for another program, which wrote the file."""

    user: str
    context: str
    device: str
    job: str
    automation: str
    run: str
    edit: bool


class _Entry(TypedDict):
    revision: int
    at: str
    etag: str | None
    by: Author
    set: list[str]
    removed: list[str]


class HistoryEntry(_Entry, total=False):
    """One change. ``before`` has the earlier values of the keys in ``set`` and ``removed``.

    ``undoes`` is the revision that the change took back. ``before_known`` is false if another
    program replaced a state that the daemon did not know.
    """

    undoes: int
    before: dict[str, Any]
    before_known: bool


class Pages:
    """The entries of a history up to a limit, of which each page is asked for as it is needed."""

    def __init__(self, limit: int | None, values: bool) -> None:
        if limit is not None and _is_no_number(limit):
            raise error("invalid_request", "cannot read the history: limit must be over 0, or None")
        self._limit, self._values, self._cursor = limit, values, ""
        self.entries: list[HistoryEntry] = []

    def query(self) -> tuple[str, ...] | None:
        """Return the query of the next page, None once there is no more to ask for."""
        left = MAX_PAGE if self._limit is None else self._limit - len(self.entries)
        if left <= 0 or self._cursor is None:
            return None
        more = ("values=true",) if self._values else ()
        after = (f"cursor={self._cursor}",) if self._cursor else ()
        return (f"limit={min(left, MAX_PAGE)}", *more, *after)

    def take(self, members: dict[str, Any]) -> None:
        self.entries += members["history"]
        self._cursor = members["next_cursor"]


def undoing(revision: int | None, if_match: str | None, returning: bool = True) -> Operation:
    """Return the request that takes a change back, the last one without a revision."""
    if revision is not None and _is_no_number(revision):
        raise error("invalid_request", "cannot undo: revision must be a whole number from 1")
    body = encode({} if revision is None else {"revision": revision})
    return "POST", body, JSON, (), write_headers(if_match, returning), False


def reading_at(revision: int) -> tuple[Operation, tuple[str, ...]]:
    """Return the request for the bucket as it was after a change, and its query."""
    if _is_no_number(revision):
        raise error("invalid_request", "cannot read: revision must be a whole number from 1")
    return read(), (f"revision={revision}",)


def _is_no_number(value: object) -> bool:
    return not isinstance(value, int) or isinstance(value, bool) or value < 1
