"""Preflight checks: ask the daemon before a write whether it would refuse the write."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _api, _context
from .._errors import BucketError
from . import json_diff
from .archive import Envelope
from .filters import described
from .prompts import counted
from .refusals import bucket_of, lines_of
from .session import Session

# How many stored buckets are named; ``bucketctl schema check`` shows all.
NAMED = 3
# The mode of a schema that lets violations pass that stood in a bucket before a write.
TOLERATE = "tolerate"
TOLERATE_SUFFIX = f".{TOLERATE}"


class Preflight(NamedTuple):
    """The violations in words, without values; ``unchecked`` says why they are unknown, if so.

    ``tolerated`` are violations that stand now, and do not refuse the write.
    """

    refused: list[str]
    unchecked: str | None = None
    tolerated: list[str] = []  # noqa: RUF012  (nobody changes it)


FINE = Preflight([])


def bound(session: Session, envelope: Envelope, stored: bool) -> str | None:
    """Return the automation whose schema applies to a write; None if none applies."""
    if envelope.job is None:
        return None
    if envelope.automation is not None or not stored:
        return envelope.automation
    return binding(session, envelope.device, envelope.job)


def rebinding(session: Session, envelope: Envelope) -> list[json_diff.Change]:
    """Return the change of the automation for a bucket whose content is already right."""
    wanted = envelope.automation
    if envelope.job is None or wanted is None:
        return []
    now = binding(session, envelope.device, envelope.job)
    return [] if now == wanted else [json_diff.Change("(automation)", now, wanted)]


def binding(session: Session, device: str, job: str) -> str | None:
    """Return the automation that a bucket is bound to, if any."""
    query = f"device={_context.escape(device)}&job={_context.escape(job)}"
    rows = session.call("GET", f"/v1/buckets?{query}").members["buckets"]
    return rows[0]["automation"] if rows else None


class Coming(NamedTuple):
    """A schema that the same plan sets, and its mode; with None, the mode of the one in force."""

    schema: Any
    tolerates: bool


def check_bucket(
    session: Session, automation: str | None, bucket: Any, stored: Any, coming: dict[str, Coming]
) -> Preflight:
    """Check a bucket by the schema that will apply: one of ``coming``, else the daemon's.

    A schema that tolerates is told the ``stored`` bucket, None if there is none. The modes of
    schemas in force are added to ``coming``.
    """
    if automation is None:
        return FINE
    if stored is not None and automation not in coming:
        coming[automation] = Coming(None, _tolerates(session, automation))
    known = coming.get(automation) or Coming(None, tolerates=False)
    body = {"bucket": bucket}
    if known.schema is not None:
        body["schema"] = known.schema
    if known.tolerates and stored is not None:
        body["stored"] = stored
        if known.schema is not None:
            body["existing"] = TOLERATE
    target = f"/v1/schemas/{_context.escape(automation)}/check"
    headers, content = {"Content-Type": _api.JSON}, _api.encode(body)
    try:
        said = session.call("POST", target, headers=headers, body=content).members
    except BucketError as problem:
        cause = _CAUSES.get(problem.code)
        if cause is None:
            raise
        why = cause or problem.message
        return Preflight([], f"not checked by the schema of {automation!r}: {why}")
    refused, tolerated = (
        [f"by the schema of {automation!r}, {line}" for each in found for line in lines_of(each)]
        for found in (said["violations"], said.get("warnings", []))
    )
    return Preflight(refused, tolerated=tolerated)


def _tolerates(session: Session, automation: str) -> bool:
    """Report whether the schema in force tolerates what stood before a write."""
    try:
        reply = session.call("GET", f"/v1/schemas/{_context.escape(automation)}")
    except BucketError as problem:
        if problem.code != "not_found":
            raise
        return False
    # A daemon of an older version does not say it, and refuses.
    return bool(reply.members.get("existing") == TOLERATE)


# Errors after which the plan continues, with their causes; "" uses the daemon's message.
_CAUSES = {
    "not_found": "this daemon is too old for that; upgrade it",
    "too_large": "bucket and schema together exceed the daemon's limit; the write will show it",
    # The schema is not valid.
    "invalid_request": "",
}


def check_schema(session: Session, target: str, schema: Any, tolerates: bool) -> Preflight:
    """Check a schema itself, and all stored buckets by it; name the first violations."""
    headers, content = {"Content-Type": _api.JSON}, _api.encode(schema)
    try:
        said = session.call("PUT", f"{target}?dry_run=true", headers=headers, body=content).members
    except BucketError as problem:
        if problem.code not in ("invalid_request", "too_large"):
            raise
        return Preflight([problem.message])
    count, unreadable = said["count"], [described(entry) for entry in said.get("unreadable", [])]
    unchecked = None
    if unreadable:
        names = unreadable[:NAMED] + ["…"] * (len(unreadable) > NAMED)
        what = counted(len(unreadable), "stored bucket")
        unchecked = f"not checked: {what} that cannot be read ({'; '.join(names)})"
    if not count:
        return Preflight([], unchecked)
    names = [bucket_of(detail) for detail in said["details"][:NAMED]] + ["…"] * (count > NAMED)
    found = f"{counted(count, 'stored bucket')} would violate it ({'; '.join(names)})"
    if tolerates:
        return Preflight([], unchecked, [found])
    return Preflight(
        [
            f"{found}; fix what bucketctl schema check shows, or set it with bucketctl schema set "
            "--force"
        ],
        unchecked,
    )
