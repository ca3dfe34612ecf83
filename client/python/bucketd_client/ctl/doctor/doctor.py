"""``bucketctl doctor``: check everything from the socket to the disk, and say how to fix it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ..._errors import BucketError
from .. import colours, output
from ..session import Session
from ..table.daily import Options
from . import checks
from .findings import OK, PROBLEM, UNKNOWN, WARNING, Finding, failed

_COLOURS = {OK: colours.GREEN, WARNING: colours.YELLOW, PROBLEM: colours.RED, UNKNOWN: colours.BOLD}
UNREACHABLE = 4


def doctor(options: Options) -> int:
    """Return 0 without problems, 4 without a daemon, else 1."""
    session = Session(options)
    is_quiet, output.quiet = options.has("quiet"), False
    as_json = options.has("json") or not (output.for_people() or is_quiet)
    found = []
    for finding in examine(session):
        found.append(finding)
        # Each finding is shown at once, since the next check may wait for the store.
        if not as_json and not (is_quiet and finding.level == OK):
            _show(finding)
    if as_json:
        output.show({"findings": [finding._asdict() for finding in found]})
    if not any(finding.about == "daemon" and finding.level == OK for finding in found):
        return UNREACHABLE
    return 1 if any(finding.level == PROBLEM for finding in found) else 0


def _show(finding: Finding) -> None:
    level = colours.paint(f"{finding.level:<8}", _COLOURS[finding.level])
    output.write(f"{level} {finding.about:<12} {output.plain(finding.what)}")
    if finding.fix:
        output.write(f"{'':<21} → {output.plain(finding.fix)}")


def examine(session: Session) -> Iterator[Finding]:
    yield from checks.environment(session)
    yield from checks.unit()
    socket = checks.socket(session.path)
    yield socket
    if socket.level == PROBLEM:
        return
    try:
        session.reach()
    except BucketError as problem:
        yield Finding(PROBLEM, "daemon", problem.message, "read its log, then restart it")
        return
    yield Finding(OK, "daemon", "answers")
    try:
        status = session.call("GET", "/v1/status").members
    except BucketError as problem:
        yield _no_operator(problem)
        return
    yield Finding(OK, "access", "you are an operator")
    yield from _of_status(session, status)


def _no_operator(problem: BucketError) -> Finding:
    if problem.code != "forbidden":
        return failed("status", problem)
    # The daemon's message ends with what this user can do.
    fix = f"for more, run this as root; {problem.message.partition('; ')[2]}"
    return Finding(UNKNOWN, "access", f"user {os.geteuid()} is not an operator of this daemon", fix)


def _of_status(session: Session, status: dict[str, Any]) -> Iterator[Finding]:
    for check in checks.OF_STATUS:
        yield from check(status)
    # Each request would time out while the cluster is unavailable.
    if checks.is_cluster_unavailable(status):
        fix = "repair the store, then run doctor again"
        yield Finding(UNKNOWN, "buckets", "not checked, since the store does not answer", fix)
        return
    page: dict[str, Any] = {"buckets": []}
    try:
        page = session.call("GET", "/v1/buckets?limit=1000").members
    except BucketError as problem:
        yield failed("buckets", problem)
    yield from checks.clock(page["buckets"], status)
    yield from _of_buckets(session, page)
    yield from checks.trash(session)


def _of_buckets(session: Session, page: dict[str, Any]) -> Iterator[Finding]:
    if session.options.has("buckets"):
        from . import stored_buckets

        yield from stored_buckets.examine(session)
    else:
        for entry in page.get("unreadable", []):
            yield checks.unreadable(session, entry)
