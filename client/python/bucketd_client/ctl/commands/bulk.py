"""The commands on many buckets: clear by filter, forget and rename a device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ... import _api, _context
from ..._errors import BucketError, error
from .. import deletions, filters, json_diff, output, prompts
from ..parser import Usage
from ..progress import Progress
from ..prompts import counted
from ..session import NEWEST, Session
from ..table.daily import Options

Row = dict[str, Any]


def clear(options: Options) -> int:
    """Clear every bucket that matches, for ``clear --all``."""
    if any(map(options.has, ("if-match", "device-bucket", "curl"))):
        raise Usage("cannot clear --all with --if-match, --device-bucket or --curl")
    session = Session(options)
    left_out = filters.LeftOut()
    rows = list(filters.buckets(session, left_out))
    if not rows and not options.has("dry-run"):
        return nothing(options, "clear", cleared=0) or left_out.status
    if not _agreed(options, f"clear {counted(len(rows), 'bucket')}", rows):
        return left_out.status
    return show_counts(options, "cleared", _clear(session, rows)) or left_out.status


def forget(options: Options) -> int:
    """Remove the buckets of a device, and revoke its contexts."""
    session, device = Session(options), options.arguments[0]
    left_out = filters.LeftOut()
    rows = _of_device(session, device, left_out)
    contexts = _contexts(session, device)
    buckets, jobs = counted(len(rows), "bucket"), counted(len(contexts), "context")
    what = f"clear {buckets} and revoke {jobs} of {device}"
    if not rows and not contexts and not options.has("dry-run"):
        return nothing(options, "clear", cleared=0, revoked=0) or left_out.status
    if not _agreed(options, what, rows):
        return left_out.status
    # Contexts are revoked first, so that a running job cannot create a bucket again.
    for context in contexts:
        session.call("DELETE", f"/v1/contexts/{_context.escape(context['id'])}")
    cleared = _clear(session, rows)
    return show_counts(options, "cleared", cleared, revoked=len(contexts)) or left_out.status


def rename(options: Options) -> int:
    """Move each bucket, which exists twice for a moment; a second run continues."""
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
    left_out = filters.LeftOut()
    rows = _of_device(session, old, left_out)
    if not rows:
        raise error(
            "not_found",
            f"cannot rename {old}: there is no bucket of this device; see bucketctl list",
        )
    if not _agreed(options, f"move {counted(len(rows), 'bucket')} from {old} to {new}", rows):
        return left_out.status
    with Work("rename", "moved", len(rows)) as work:
        for row in rows:
            work.changed += _move(session, row, new)
            work.next()
    return show_counts(options, "moved", len(rows)) or left_out.status


class Work(Progress):
    """The progress over ``count`` buckets; a failure reports how many were changed before."""

    def __init__(self, what: str, done: str, count: int) -> None:
        super().__init__(what)
        self._past, self._total, self._seen, self.changed = done, count, 0, 0

    def __enter__(self) -> Work:
        return self

    def next(self) -> None:
        self._seen += 1
        self.at(self._seen, self._seen / self._total)

    def __exit__(self, *failure: object) -> None:
        super().__exit__(*failure)
        if any(failure) and self.changed:
            output.warn(f"{self.changed} of {counted(self._total, 'bucket')} {self._past}, then:")


def _move(session: Session, row: Row, new: str) -> bool:
    """Move one bucket; return False if it was removed meanwhile."""
    source, target = _scope(row), _scope({**row, "device": new})
    stored = session.call("GET", source.target(), headers=NEWEST)
    if stored.etag is None:
        return False
    bucket = stored.members[source.label]
    headers = {"If-None-Match": "*", "Content-Type": _api.JSON}
    try:
        session.call("PUT", target.target(), headers=headers, body=_api.encode(bucket))
    except BucketError as problem:
        # An earlier run may have written the target already.
        if problem.code != "precondition_failed" or not _is_stored(session, target, bucket):
            raise
    deletions.remove_moved(session, source, stored.etag)
    return True


def _is_stored(session: Session, scope: _context.Scope, bucket: Any) -> bool:
    reply = session.call("GET", scope.target(), headers=NEWEST)
    return json_diff.same(reply.members[scope.label], bucket)


def _clear(session: Session, rows: list[Row]) -> int:
    with Work("clear", "cleared", len(rows)) as work:
        for row in rows:
            scope = _scope({**row, "automation": None})
            session.call("DELETE", scope.target(more=deletions.query(session.options)))
            work.changed += 1
            work.next()
    return len(rows)


def _scope(row: Row) -> _context.Scope:
    return _context.named(row["device"], row["job"], row["automation"], False)


def _of_device(session: Session, device: str, left_out: filters.LeftOut) -> list[Row]:
    path = f"/v1/buckets?device={_context.escape(device)}&limit={filters.PAGE}"
    rows: list[Row] = []
    cursor: str | None = ""
    while cursor is not None:
        members = session.call("GET", path + (f"&cursor={cursor}" if cursor else "")).members
        rows += members["buckets"]
        cursor = members["next_cursor"]
        left_out.note(members, "left alone")
    return rows


def _contexts(session: Session, device: str) -> list[Row]:
    found = session.call("GET", "/v1/contexts").members["contexts"]
    return [context for context in found if context["device"] == device]


def _agreed(options: Options, what: str, rows: Iterable[Row]) -> bool:
    """Ask for confirmation and return True; with ``--dry-run`` show the rows and return False.

    Raises Declined.
    """
    if options.has("dry-run"):
        show_rows(options, rows)
        return False
    prompts.ask(options, what)
    return True


def show_rows(options: Options, rows: Iterable[Row]) -> None:
    """Show the buckets that would be changed."""
    if options.has("json"):
        output.show({"buckets": list(rows)})
        return
    columns: output.Columns = {
        "DEVICE": lambda row: row["device"],
        "JOB": lambda row: output.job(row["job"]),
        "SIZE": lambda row: output.size(row["size"]),
        "UPDATED": lambda row: output.age(row["updated_at"], output.STALE_DAYS),
    }
    output.show_rows(rows, columns, "no buckets")


def nothing(options: Options, verb: str, **counts: int) -> int:
    """Report that nothing matches; no confirmation is needed then."""
    if options.has("json") or not output.for_people():
        return output.show(counts)
    output.write(f"there is nothing to {verb}")
    return 0


def show_counts(options: Options, what: str, count: int, **more: int) -> int:
    """Show how many buckets were changed."""
    counts = {what: count, **more}
    if options.has("json") or not output.for_people():
        return output.show(counts)
    output.write(", ".join(f"{number} {done.replace('_', ' ')}" for done, number in counts.items()))
    return 0
