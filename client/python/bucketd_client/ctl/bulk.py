"""What is done to many buckets at once: clear by filter, forget and rename a device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import _api, _context
from .._errors import BucketError, error
from . import asking, difference, filters, output
from .asking import counted
from .commands import Options
from .parser import Usage
from .progress import Progress
from .session import NEWEST, Session

Row = dict[str, Any]


def clear(options: Options) -> int:
    """``clear --all``: every bucket that fits."""
    if options.has("if-match") or options.has("device-bucket") or options.has("curl"):
        raise Usage("cannot clear --all with --if-match, --device-bucket or --curl")
    session = Session(options)
    rows = list(filters.buckets(session))
    if not rows and not options.has("dry-run"):
        return nothing(options, "clear", cleared=0)
    if not _agreed(options, f"clear {counted(len(rows), 'bucket')}", rows):
        return 0
    return told(options, "cleared", _clear(session, rows))


def forget(options: Options) -> int:
    """The buckets and contexts of a device."""
    session, device = Session(options), options.arguments[0]
    rows = _of_device(session, device)
    contexts = _contexts(session, device)
    buckets, jobs = counted(len(rows), "bucket"), counted(len(contexts), "context")
    what = f"clear {buckets} and revoke {jobs} of {device}"
    if not rows and not contexts and not options.has("dry-run"):
        return nothing(options, "clear", cleared=0, revoked=0)
    if not _agreed(options, what, rows):
        return 0
    for context in contexts:  # first, lest a job that still runs begins a bucket anew
        session.call("DELETE", f"/v1/contexts/{_context.escape(context['id'])}")
    return told(options, "cleared", _clear(session, rows), revoked=len(contexts))


def rename(options: Options) -> int:
    """Each bucket is first in both places, then in the new one; the same again goes on."""
    session, (old, new) = Session(options), options.arguments
    if old == new:
        raise Usage("cannot rename a device to the name that it has")
    if live := _contexts(session, old):
        raise error(
            "invalid_request",
            f"cannot rename {old}: it has {counted(len(live), 'live context')}; let its jobs end, "
            "or revoke what bucketctl context list shows",
            status=409,
        )
    rows = _of_device(session, old)
    if not rows:
        raise error(
            "not_found",
            f"cannot rename {old}: there is no bucket of this device; see bucketctl list",
        )
    if not _agreed(options, f"move {counted(len(rows), 'bucket')} from {old} to {new}", rows):
        return 0
    with Progress("rename") as progress:
        for count, row in enumerate(rows, 1):
            _move(session, row, new)
            progress.at(count, count / len(rows))
    return told(options, "moved", len(rows))


def _move(session: Session, row: Row, new: str) -> None:
    source, target = _scope(row), _scope({**row, "device": new})
    stored = session.call("GET", source.target(), headers=NEWEST)
    if stored.etag is None:
        return  # gone meanwhile
    bucket = stored.members[source.label]
    headers = {"If-None-Match": "*", "Content-Type": _api.JSON}
    try:
        session.call("PUT", target.target(), headers=headers, body=_api.encode(bucket))
    except BucketError as problem:
        # An earlier try may have come so far.
        if problem.code != "precondition_failed" or not _holds(session, target, bucket):
            raise
    session.call("DELETE", source.target(), headers={"If-Match": stored.etag})


def _holds(session: Session, scope: _context.Scope, bucket: Any) -> bool:
    reply = session.call("GET", scope.target(), headers=NEWEST)
    return difference.same(reply.members[scope.label], bucket)


def _clear(session: Session, rows: list[Row]) -> int:
    with Progress("clear") as progress:
        for count, row in enumerate(rows, 1):
            session.call("DELETE", _scope({**row, "automation": None}).target())
            progress.at(count, count / len(rows))
    return len(rows)


def _scope(row: Row) -> _context.Scope:
    return _context.named(row["device"], row["job"], row["automation"], False)


def _of_device(session: Session, device: str) -> list[Row]:
    path = f"/v1/buckets?device={_context.escape(device)}&limit={filters.PAGE}"
    rows: list[Row] = []
    cursor: str | None = ""
    while cursor is not None:
        members = session.call("GET", path + (f"&cursor={cursor}" if cursor else "")).members
        rows += members["buckets"]
        cursor = members["next_cursor"]
        for file in members.get("unreadable", []):
            output.warn(f"left alone, because it cannot be read: {file}")
    return rows


def _contexts(session: Session, device: str) -> list[Row]:
    found = session.call("GET", "/v1/contexts").members["contexts"]
    return [context for context in found if context["device"] == device]


def _agreed(options: Options, what: str, rows: Iterable[Row]) -> bool:
    """True, or Declined; with ``--dry-run`` what it would be about is shown instead: False."""
    if options.has("dry-run"):
        show_rows(options, rows)
        return False
    asking.ask(options, what)
    return True


def show_rows(options: Options, rows: Iterable[Row]) -> None:
    """What would be done, as a list."""
    if options.has("json"):
        output.show({"buckets": list(rows)})
        return
    columns: output.Columns = {
        "DEVICE": lambda row: row["device"],
        "JOB": lambda row: "(device)" if row["job"] is None else row["job"],
        "SIZE": lambda row: output.size(row["size"]),
        "UPDATED": lambda row: output.age(row["updated_at"]),
    }
    output.show_rows(rows, columns, "no buckets")


def nothing(options: Options, verb: str, **counts: int) -> int:
    """Where nothing fits, so that nobody has to be asked either."""
    if options.has("json") or not output.on_terminal():
        return output.show(counts)
    output.write(f"there is nothing to {verb}")
    return 0


def told(options: Options, what: str, count: int, **more: int) -> int:
    """How many it was done to."""
    counts = {what: count, **more}
    if options.has("json") or not output.on_terminal():
        return output.show(counts)
    output.write(", ".join(f"{number} {done.replace('_', ' ')}" for done, number in counts.items()))
    return 0
