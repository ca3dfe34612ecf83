"""Filters by names or patterns of names, and the pages of the daemon's lists.

The daemon filters by exact names; patterns are matched here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from typing import Any

from .._context import escape
from . import colours, output
from .parser import Usage
from .session import Session
from .table.daily import Options

NAMES = ("device", "job", "automation")
PAGE = 1000

Pages = Iterator[dict[str, Any]]


class Filters:
    """``--device``, ``--job`` and ``--automation``; with ``*``, ``?`` or ``[`` a pattern."""

    def __init__(self, session: Session) -> None:
        given = {n: v for n in NAMES if (v := session.options.get(n)) is not None}
        patterns = {n: v for n, v in given.items() if re.search(r"[*?\[]", v)}
        self.names = {n: v for n, v in given.items() if n not in patterns}
        self.query = [f"{n}={escape(v)}" for n, v in self.names.items()]
        self.given = bool(given)
        self.patterns = {n: _compiled(n, v) for n, v in patterns.items()}

    def select(self, row: dict[str, Any]) -> bool:
        """Report whether all names and patterns match, for what the daemon does not filter."""
        return self.fit(row) and all(row[name] == text for name, text in self.names.items())

    def fit(self, row: dict[str, Any]) -> bool:
        """Report whether all patterns match; a device bucket has no job to match."""
        return all(
            row[name] is not None and pattern.match(row[name])
            for name, pattern in self.patterns.items()
        )


def whole_number(options: Options, name: str) -> int | None:
    """Return an option that is a whole number over 0; None if it is not given. Raises Usage."""
    text = options.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0):
        raise Usage(f"cannot use --{name} {text}: it must be a whole number over 0")
    return int(text)


def pages(
    session: Session,
    path: str,
    member: str,
    most: int | None = None,
    extra: Sequence[str] = (),
) -> Pages:
    """Yield page after page with the matching rows in ``member``, at most ``most`` in all."""
    filters = Filters(session)
    filters.query += extra
    if session.options.has("curl") and filters.patterns:
        output.warn(
            "the daemon does not match patterns, so this request filters by the exact names only"
        )
    cursor: str | None = ""
    while cursor is not None and most != 0:
        members = _page(session, filters, path, cursor, PAGE)
        places = [i for i, row in enumerate(members[member]) if filters.fit(row)]
        if most is not None and len(places) > most:
            # The page is requested again up to the last wanted row, so that next_cursor is right.
            members = _page(session, filters, path, cursor, places[most - 1] + 1)
        members[member] = [row for row in members[member] if filters.fit(row)]
        yield members
        most = None if most is None else max(0, most - len(members[member]))
        cursor = members["next_cursor"]


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(translate(pattern))
    # Some versions of Python do not translate a range whose end precedes its beginning.
    except re.error:
        raise Usage(f"cannot use --{name} {pattern!r}: it is not a valid pattern") from None


class LeftOut:
    """Entries that a list could not read: each is reported once, and the exit status is 1."""

    def __init__(self) -> None:
        self._entries: set[str] = set()

    def note(self, members: dict[str, Any], what: str = "left out") -> None:
        """Report the entries of one page that cannot be read."""
        for entry in map(described, members.get("unreadable", [])):
            if entry not in self._entries:
                self._entries.add(entry)
                output.warn(f"{what}, because it cannot be read: {entry}", colour=colours.RED)

    @property
    def count(self) -> int:
        return len(self._entries)

    @property
    def status(self) -> int:
        return 1 if self._entries else 0


def described(entry: object) -> str:
    """Return an entry of ``unreadable`` in words: a path, and the problem if it has one."""
    if not isinstance(entry, dict):
        return str(entry)
    path = str(entry.get("path") or entry.get("name") or entry)
    return f"{path}: {entry['problem']}" if entry.get("problem") else path


def rows(found: Pages, member: str, left_out: LeftOut) -> Iterator[dict[str, Any]]:
    """Yield all rows; ``left_out`` records the entries that cannot be read."""
    for members in found:
        yield from members[member]
        left_out.note(members)


def buckets(
    session: Session, left_out: LeftOut, older_than_days: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of all stored buckets that match; the daemon decides which are older."""
    extra = [] if older_than_days is None else [f"older_than_days={older_than_days}"]
    return rows(pages(session, "/v1/buckets", "buckets", extra=extra), "buckets", left_out)


def joined(found: Pages, member: str) -> dict[str, Any]:
    """Return all pages as one response, in the form of the last."""
    whole: dict[str, Any] = {}
    for members in found:
        for name in (member, "unreadable"):
            if name in members or name in whole:
                members[name] = whole.get(name, []) + members.get(name, [])
        whole = members
    return whole


def _page(session: Session, filters: Filters, path: str, cursor: str, limit: int) -> dict[str, Any]:
    query = [*filters.query, f"limit={limit}", *([f"cursor={cursor}"] if cursor else [])]
    return session.call("GET", f"{path}?{'&'.join(query)}").members
