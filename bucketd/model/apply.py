"""The rule of a commit, for both engines: what one change makes of what is stored.

preconditions → change → its check (limits, schema) → unchanged? → next revision, times and ETag
"""

from __future__ import annotations

import itertools
import secrets

from .bucket import ABSENT, BucketKey, Snapshot, timestamp
from .changes import Change, Metadata
from .preconditions import Preconditions

# An ETag never repeats, also among the hosts of a fleet, which 64 random bits keep apart. It is
# no secret.
_process = secrets.token_hex(8)
_numbers = itertools.count(1)
_NONE = Metadata()


def apply(
    change: Change,
    preconditions: Preconditions,
    automation: str | None,
    key: BucketKey,
    now: Snapshot,
) -> Snapshot:
    """Return the state after the change, ``now`` itself where nothing changes; raise BucketdError.

    ``automation`` is bound to the bucket; None keeps the one that is.
    """
    preconditions.check(now, key)
    stored = now.bucket if now.revision else None
    bound = automation or now.automation
    bucket = change.result(stored, bound)
    if bucket == stored and (bucket is None or bound == now.automation):
        return now
    return next_snapshot(now, bucket, bound, change.metadata)


def next_snapshot(
    before: Snapshot, bucket: bytes | None, automation: str | None, kept: Metadata | None
) -> Snapshot:
    """Return the state that follows: one revision more, with a new ETag; ABSENT without a bucket.

    What is ``kept`` of another store wins, but revisions of one bucket only grow.
    """
    if bucket is None:
        return ABSENT
    kept, now = kept or _NONE, timestamp()
    return Snapshot(
        bucket,
        max(kept.revision, before.revision + 1),
        f"{_process}{next(_numbers):06x}",
        automation,
        kept.created_at or before.created_at or now,
        kept.updated_at or now,
    )
