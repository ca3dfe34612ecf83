"""Select buckets for ``bucketctl list`` by content and age, and sort and show them.

The daemon filters by names alone, so the rows, and where conditions or columns need them the
buckets, are read page by page and examined here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from .. import _json
from . import durations, filters, json_diff, output, selection
from .clock import parse_time
from .parser import Usage
from .selection import ABSENT
from .session import Session
from .table.daily import Options
from .tables import Cell

Row = dict[str, Any]
# The columns by their names, with the members of a row.
MEMBERS = {
    "device": "device",
    "job": "job",
    "automation": "automation",
    "revision": "revision",
    "size": "size",
    "updated": "updated_at",
}
# A list that is sorted by one of these begins with the largest, or newest.
_DESCENDING = ("revision", "size", "updated")
_CONDITION = re.compile(r"(.+?)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda one, two: one < two,
    "<=": lambda one, two: one <= two,
    ">": lambda one, two: one > two,
    ">=": lambda one, two: one >= two,
}


class Condition:
    """``KEY=VALUE``, with one of ``= != < <= > >=``; KEY alone: the bucket has it."""

    def __init__(self, text: str) -> None:
        found = _CONDITION.fullmatch(text)
        self._key, self._operator, self._text = found.groups() if found else (text, "", "")
        if not self._key:
            raise Usage("cannot use --where without a key; write KEY, KEY=VALUE or KEY<VALUE")
        try:
            self._value = json.loads(self._text)
        except ValueError:
            self._value = self._text

    def holds(self, bucket: Row) -> bool:
        value = selection.value_at(bucket, self._key)
        if not self._operator:
            return value is not ABSENT
        if self._operator in ("=", "!="):
            return self._equals(value) == (self._operator == "=")
        if isinstance(value, str):
            return _ORDERS[self._operator](value, self._text)
        both_numbers = _is_number(value) and _is_number(self._value)
        return both_numbers and _ORDERS[self._operator](value, self._value)

    def _equals(self, value: Any) -> bool:
        """Compare with the text as a string, and as JSON; 1 and 1.0 are equal numbers."""
        if value is ABSENT:
            return False
        if _is_number(value) and _is_number(self._value):
            return bool(value == self._value)
        return bool(value == self._text) or json_diff.same(value, self._value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class BucketQuery:
    """The options ``--where``, ``--stale``, ``--sort`` and ``--columns``."""

    def __init__(self, options: Options) -> None:
        self.given = any(map(options.has, ("where", "stale", "sort", "columns")))
        where = options.get("where")
        self._conditions = [] if where is None else [Condition(c) for c in where.split("\n")]
        stale = options.get("stale")
        self._stale = None if stale is None else durations.seconds(stale, "stale")
        self._sort = options.get("sort")
        columns = options.get("columns")
        self.columns = None if columns is None else columns.split(",")
        names = self._names()
        for name in names:
            if name not in (*MEMBERS, "held") and not selection.is_pointer(name):
                known = ", ".join((*MEMBERS, "held"))
                raise Usage(
                    f"cannot use the column {name!r}: there are {known}, and /KEY for a value"
                )
        self._keys = [name for name in names if selection.is_pointer(name)]

    def _names(self) -> list[str]:
        sort = [] if self._sort is None else [self._sort.removeprefix("-")]
        if sort == ["held"]:
            raise Usage("cannot sort by held; see bucketctl hold list for the order of holds")
        return [*(self.columns or []), *sort]

    def rows(self, session: Session, left_out: filters.LeftOut) -> list[Row]:
        """Return the rows that are selected, sorted; ``values`` has what the columns need."""
        listed = filters.buckets(session, left_out)
        rows = [row for row in listed if self._stale is None or self._is_stale(row)]
        if self._conditions or self._keys:
            rows = list(self._with_values(session, rows))
        if self._sort is None:
            return rows
        name = self._sort.removeprefix("-")
        down = (name in _DESCENDING) != self._sort.startswith("-")
        return sorted(rows, key=lambda row: self._sort_key(row, name, down), reverse=down)

    def _is_stale(self, row: Row) -> bool:
        assert self._stale is not None  # noqa: S101  (the caller has checked)
        try:
            age = datetime.now(timezone.utc) - parse_time(row["updated_at"])
        # A time that was written by hand may be missing or invalid.
        except (ValueError, TypeError, AttributeError):
            return False
        return age > timedelta(seconds=self._stale)

    def _with_values(self, session: Session, rows: list[Row]) -> Iterator[Row]:
        """Yield the rows whose buckets meet the conditions; keep no bucket, since all may be large.

        A terminal gets masks, so there a secret is equal to no value.
        """
        wanted = {(row["device"], row["job"]): row for row in rows}
        for members in filters.pages(session, "/v1/export", "envelopes", extra=session.mask):
            for envelope in members["envelopes"]:
                row, bucket = wanted.get((envelope["device"], envelope["job"])), envelope["bucket"]
                if row is not None and all(c.holds(bucket) for c in self._conditions):
                    yield {**row, "values": selection.select(bucket, self._keys)}

    def _sort_key(self, row: Row, name: str, down: bool) -> tuple[bool, str, Any]:
        """Return a key by which values of one kind are together; what is absent comes last."""
        value = row["values"].get(name) if name in self._keys else row[MEMBERS[name]]
        if value is None or isinstance(value, (dict, list)):
            return (not down, "", "")
        kind = "number" if _is_number(value) else type(value).__name__
        return (down, kind, value)

    def members(self, row: Row) -> Row:
        """Return a row as JSON has it: with ``--columns`` those members alone."""
        values = row.pop("values", {})
        if self.columns is None:
            return row
        shown = {}
        for name in self.columns:
            if name in MEMBERS:
                shown[MEMBERS[name]] = row[MEMBERS[name]]
            elif name == "held":
                shown["held_by"] = row["held_by"]
            elif name in values:
                shown[name] = values[name]
        return shown


def value_cell(name: str) -> Callable[[Row], Cell]:
    """Return what the column of a value shows."""

    def show(row: Row) -> Cell:
        if name not in row["values"]:
            return Cell.of("-", None)
        value = row["values"][name]
        text = value if isinstance(value, str) else output.masks_shown(_json.dumps(value))
        return Cell.of(text, value, right=_is_number(value))

    return show
