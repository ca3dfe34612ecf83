"""What takes room: buckets that nobody has written for long, and how much each device has."""

from __future__ import annotations

import time
from typing import Any

from ... import _context
from ..._errors import BucketError
from .. import filters, output
from ..parser import Usage
from ..prompts import ask, counted
from ..session import Session
from ..table.daily import Options
from . import bulk

Row = dict[str, Any]
_DAY = 86400.0


def sweep(options: Options) -> int:
    """Remove what was last written over ``--days`` ago, unless it is written meanwhile."""
    before, session = _before(options), Session(options)
    left_out = filters.LeftOut()
    rows = [row for row in filters.buckets(session, left_out) if _is_older(row, before)]
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
    """How much all buckets of each device have together, the most first."""
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


def _remove(session: Session, row: Row, before: str) -> bool:
    scope = _context.named(row["device"], row["job"], None, False)
    stored = session.call("GET", scope.target())
    if stored.etag is None or not _is_older(_listed(session, row), before):
        return False
    try:
        session.call("DELETE", scope.target(), headers={"If-Match": stored.etag})
    except BucketError as problem:
        if problem.code != "precondition_failed":
            raise
        return False
    return True


def _listed(session: Session, row: Row) -> Row:
    """The row as it is now, that of a bucket read just before."""
    path = f"/v1/buckets?device={_context.escape(row['device'])}"
    if row["job"] is not None:
        path += f"&job={_context.escape(row['job'])}"
    found = session.call("GET", path).members["buckets"]
    return next((now for now in found if now["job"] == row["job"]), {})


def _before(options: Options) -> str:
    text = options.get("days")
    if text is None:
        raise Usage("cannot sweep: say with --days N how old what is removed has to be")
    try:
        days = float(text)
        if not 0 < days < 1e6:
            raise ValueError
    except ValueError:
        raise Usage(f"cannot sweep --days {text}: give how many, a number over 0") from None
    return time.strftime("%Y-%m-%dT%H:%M:%S.999Z", time.gmtime(time.time() - days * _DAY - 1))


def _is_older(row: Row, before: str) -> bool:
    at = row.get("updated_at")
    return isinstance(at, str) and len(at) == len(before) and at[-1] == "Z" and at < before


def _bytes(options: Options) -> int:
    text = options.get("over")
    if text is None:
        return -1
    if not (text.isascii() and text.isdecimal()):
        raise Usage(f"cannot use --over {text}: it must be a whole number of bytes")
    return int(text)
