"""The commands about space: sweep removes old buckets, usage shows the size of each device."""

from __future__ import annotations

import re
from typing import Any

from ... import _context
from ..._errors import BucketError, error
from .. import deletions, filters, output
from ..clock import jump_seconds
from ..parser import Usage
from ..prompts import ask, counted
from ..session import Session
from ..table.daily import Options
from . import bulk

Row = dict[str, Any]
# 100 years, the daemon's limit.
MAX_DAYS = 36525


def sweep(options: Options) -> int:
    """Remove buckets last written over ``--days`` ago, unless they are written meanwhile."""
    days, session = _days(options), Session(options)
    _check_clock(session)
    left_out = filters.LeftOut()
    rows = _older(session, left_out, days)
    if options.has("dry-run"):
        bulk.show_rows(options, rows)
        return left_out.status
    if not rows:
        return bulk.nothing(options, "remove", removed=0) or left_out.status
    for_good = " for good" if options.has("no-trash") else ""
    ask(options, f"remove {counted(len(rows), 'bucket')}{for_good}")
    removed = 0
    with bulk.Work("sweep", "removed", len(rows)) as work:
        for row in rows:
            if _remove(session, row, days):
                removed += 1
                work.changed += 1
            work.next()
    return bulk.show_counts(options, "removed", removed) or left_out.status


def usage(options: Options) -> int:
    """Show the total size of each device's buckets, the largest first."""
    over = _bytes(options)
    devices: dict[str, Row] = {}
    left_out = filters.LeftOut()
    for row in filters.buckets(Session(options), left_out):
        device = devices.setdefault(
            row["device"], {"device": row["device"], "buckets": 0, "size": 0}
        )
        device["buckets"] += 1
        device["size"] += row["size"]
    rows = sorted(devices.values(), key=lambda row: (-row["size"], row["device"]))
    rows = [row for row in rows if row["size"] > over]
    if options.has("json"):
        output.show({"devices": rows})
    else:
        output.show_rows(rows, COLUMNS, "no devices")
    return left_out.status


COLUMNS: output.Columns = {
    "DEVICE": lambda row: row["device"],
    "BUCKETS": lambda row: output.number(row["buckets"]),
    "SIZE": lambda row: output.size(row["size"]),
}


def _remove(session: Session, row: Row, days: int) -> bool:
    scope = _context.named(row["device"], row["job"], None, False)
    stored = session.call("GET", scope.target())
    if stored.etag is None or not _is_older(session, row, days):
        return False
    try:
        target = scope.target(more=deletions.query(session.options))
        session.call("DELETE", target, headers={"If-Match": stored.etag})
    except BucketError as problem:
        if problem.code != "precondition_failed":
            raise
        return False
    return True


def _older(session: Session, left_out: filters.LeftOut, days: int) -> list[Row]:
    """Return the rows of older buckets, which the daemon selects as its retention does."""
    try:
        return list(filters.buckets(session, left_out, days))
    except BucketError as problem:
        # The error of an older daemon names the parameter that it does not know.
        if problem.code != "invalid_request" or "older_than_days" not in str(problem):
            raise
        raise error(
            "invalid_request",
            "cannot sweep: the daemon does not know how to list buckets by age; upgrade bucketd "
            f"({problem})",
            status=400,
        ) from None


def _is_older(session: Session, row: Row, days: int) -> bool:
    """Report whether a bucket is still older."""
    path = f"/v1/buckets?device={_context.escape(row['device'])}&older_than_days={days}"
    if row["job"] is not None:
        path += f"&job={_context.escape(row['job'])}"
    found = session.call("GET", path).members["buckets"]
    return any(now["job"] == row["job"] for now in found)


def _days(options: Options) -> int:
    """Return ``--days``. Raises Usage."""
    text = options.get("days")
    if text is None:
        raise Usage("cannot sweep: give the age of the buckets to remove with --days N")
    digits = text.isascii() and text.isdecimal()
    if not (digits and len(text) < 10 and 1 <= int(text) <= MAX_DAYS):
        raise Usage(f"cannot sweep --days {text}: it must be a whole number from 1 to {MAX_DAYS}")
    return int(text)


def _check_clock(session: Session) -> None:
    """Refuse to sweep after the clock has jumped, since ages are unknown, as retention does."""
    jump = jump_seconds(session.call("GET", "/v1/status").members)
    if jump:
        raise error(
            "invalid_request",
            f"cannot sweep: the clock has jumped by {abs(jump):,.0f} seconds since the daemon "
            "started, so the age of a bucket is unknown; set the clock, then restart the daemon",
            status=409,
        )


def _bytes(options: Options) -> int:
    text = options.get("over")
    if text is None:
        return -1
    found = re.fullmatch(r"(\d{1,18})(?:([KMGT])(?:i?B)?|B)?", text, re.ASCII)
    if found is None:
        raise Usage(f"cannot use --over {text}: it must be a whole number of bytes, or 64K, 1M")
    power = " KMGT".index(found[2] or " ")
    return int(found[1]) << 10 * power
