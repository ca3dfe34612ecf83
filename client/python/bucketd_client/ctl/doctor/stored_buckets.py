"""``bucketctl doctor --buckets``: read every stored bucket, and validate it by its schema."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ... import _api, _context
from ..._errors import BucketError
from .. import filters
from ..commands import export
from ..progress import Progress
from ..prompts import counted
from ..refusals import lines_of
from ..session import Session
from .checks import unreadable
from .findings import OK, PROBLEM, WARNING, Finding, guarded

# How many findings of one kind are shown; the others are counted.
SHOWN = 20


def examine(session: Session) -> Iterator[Finding]:
    """Yield the unreadable buckets and the invalid ones: the first of each, and their number."""
    damaged: list[object] = []
    yield from guarded("buckets", _read(session, damaged))
    for entry in damaged[:SHOWN]:
        yield unreadable(session, entry)
    yield from _further(PROBLEM, "bucket", len(damaged), "cannot be read")
    yield from guarded("schemas", _against_schemas(session))


def _read(session: Session, damaged: list[object]) -> Iterator[Finding]:
    """Read all buckets; add the entries that cannot be read to ``damaged``."""
    total, count = export.total(session), 0
    with Progress("check") as progress:
        for members in filters.pages(session, "/v1/export", "envelopes"):
            count += len(members["envelopes"])
            damaged += members.get("unreadable", [])
            progress.at(count, count / total if total else None)
    yield Finding(OK, "buckets", f"{count:,} can be read")


def _against_schemas(session: Session) -> Iterator[Finding]:
    for row in session.call("GET", "/v1/schemas").members["schemas"]:
        yield from guarded("schema", _violations(session, row["automation"]))


def _violations(session: Session, automation: str) -> Iterator[Finding]:
    """Yield the violations of the schema in force, by a dry run that sets nothing."""
    target = f"/v1/schemas/{_context.escape(automation)}"
    try:
        found = session.call("GET", target).members
    except BucketError as problem:
        if problem.code != "not_found":
            raise
        # The schema was never valid, which the check of the schemas reports.
        return
    body, headers = _api.encode(found["schema"]), {"Content-Type": _api.JSON}
    said = session.call("PUT", f"{target}?dry_run=true", headers=headers, body=body).members
    for row in islice(said["details"], SHOWN):
        yield _violation(row, automation, found.get("existing") == "tolerate")
    yield from _further(WARNING, "schema", said["count"], f"violate the schema of {automation}")


def _violation(row: dict[str, Any], automation: str, tolerates: bool) -> Finding:
    words = ["bucketctl", "edit", "--device", row["device"]]
    words += ["--job", row["job"]] if row["job"] is not None else []
    lines, verb = lines_of(row), "refuses"
    if tolerates:
        keywords = [wrong["keyword"] for wrong in row["violations"]]
        lines = [f"{line} ({keyword})" for line, keyword in zip(lines, keywords)]
        verb = "tolerates"
    what = f"the schema of {automation} {verb} {'; '.join(lines)}"
    return Finding(WARNING, "schema", what, " ".join(map(shlex.quote, words)))


def _further(level: str, about: str, count: int, what: str) -> Iterator[Finding]:
    if count > SHOWN:
        more = counted(count - SHOWN, "further bucket")
        yield Finding(level, about, f"{more} {what}", "fix those above, then run doctor again")
