"""The commands on what takes room: sweep removes old buckets, usage sums up each device."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

from ... import _context
from ..._errors import BucketError, error
from .. import filters, output
from ..clock import jump_seconds
from ..parser import Usage
from ..prompts import ask, counted
from ..session import Session
from ..table.daily import Options
from . import bulk

Row = dict[str, Any]
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


def sweep(options: Options) -> int:
    """Remove what was last written over ``--days`` ago, unless it is written meanwhile."""
    before, session = _before(options), Session(options)
    _check_clock(session)
    left_out = filters.LeftOut()
    rows = [row for row in filters.buckets(session, left_out) if is_older(row, before)]
    if options.has("dry-run"):
        bulk.show_rows(options, rows)
        return left_out.status
    if not rows:
        return bulk.nothing(options, "remove", removed=0) or left_out.status
    ask(options, f"remove {counted(len(rows), 'bucket')} for good")
    removed = 0
    with bulk.Work("sweep", "removed", len(rows)) as work:
        for row in rows:
            if _remove(session, row, before):
                removed += 1
                work.changed += 1
            work.next()
    return bulk.told(options, "removed", removed) or left_out.status


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
    "BUCKETS": lambda row: str(row["buckets"]),
    "SIZE": lambda row: output.size(row["size"]),
}


def _remove(session: Session, row: Row, before: datetime) -> bool:
    scope = _context.named(row["device"], row["job"], None, False)
    stored = session.call("GET", scope.target())
    if stored.etag is None or not is_older(_listed(session, row), before):
        return False
    try:
        session.call("DELETE", scope.target(), headers={"If-Match": stored.etag})
    except BucketError as problem:
        if problem.code != "precondition_failed":
            raise
        return False
    return True


def _listed(session: Session, row: Row) -> Row:
    """Return the row of a bucket as it is now."""
    path = f"/v1/buckets?device={_context.escape(row['device'])}"
    if row["job"] is not None:
        path += f"&job={_context.escape(row['job'])}"
    found = session.call("GET", path).members["buckets"]
    return next((now for now in found if now["job"] == row["job"]), {})


def _before(options: Options) -> datetime:
    """Return the time before which a bucket must have been written last to be removed."""
    text = options.get("days")
    if text is None:
        raise Usage("cannot sweep: say with --days N how old what is removed has to be")
    try:
        days = float(text)
        if not days > 0:
            raise ValueError
        return datetime.now(timezone.utc) - timedelta(days=days)
    except ValueError:
        raise Usage(f"cannot sweep --days {text}: give how many, a number over 0") from None
    except OverflowError:
        raise Usage(f"cannot sweep --days {text}: that is before the first year of dates") from None


def is_older(row: Row, before: datetime) -> bool:
    """Compare as times; what the daemon would not take for a time of its own is never older."""
    at = row.get("updated_at")
    if not isinstance(at, str) or not _TIMESTAMP.fullmatch(at):
        return False
    try:
        return datetime.fromisoformat(at.replace("Z", "+00:00")) < before
    # Such as the 31st of February.
    except ValueError:
        return False


def _check_clock(session: Session) -> None:
    """Refuse where the clock has jumped, as the daemon's retention does: no age is known then."""
    jump = jump_seconds(session.call("GET", "/v1/status").members)
    if jump:
        raise error(
            "invalid_request",
            f"cannot sweep: the clock has jumped by {abs(jump):,.0f} seconds since the daemon "
            "started, so nobody knows how old a bucket is; set the clock, then restart the daemon",
            status=409,
        )


def _bytes(options: Options) -> int:
    text = options.get("over")
    if text is None:
        return -1
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Usage(f"cannot use --over {text}: it must be a whole number of bytes")
    return int(text)
