"""The rule of a commit, for both engines: the state that follows from the stored one and a change.

preconditions → change → its check (limits, schema) → unchanged? → next revision, times and ETag
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence

from .bucket import ABSENT, BucketKey, Snapshot, timestamp
from .changes import Change, Metadata, Object
from .document import Document
from .preconditions import Preconditions

# ETags never repeat: 64 random bits keep those of the hosts of a fleet apart. They are no secrets.
_process = secrets.token_hex(8)
_numbers = itertools.count(1)
_NONE = Metadata()


def apply(
    change: Change,
    preconditions: Preconditions,
    automation: str | None,
    key: BucketKey,
    now: Snapshot,
) -> tuple[Snapshot, Sequence[Object]]:
    """Return the state after the change, and its warnings. Raises BucketdError.

    The state is ``now`` itself if nothing changes. The bucket is bound to ``automation``; None
    keeps the current binding.
    """
    preconditions.check(now, key)
    if change.upon is not None:
        change.upon(now)
    stored = now.bucket if now.revision else None
    bound = automation or now.automation
    bucket, warnings = change.result(stored, bound)
    if bucket is stored and (bucket is None or bound == now.automation):
        return now, warnings
    return next_snapshot(now, bucket, bound, change.metadata), warnings


def next_snapshot(
    before: Snapshot, bucket: Document | None, automation: str | None, kept: Metadata | None
) -> Snapshot:
    """Return the next state, with a new revision and ETag; ABSENT without a bucket.

    Metadata ``kept`` from another store takes precedence, but revisions of a bucket only grow.
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
