"""A deleted bucket that can be restored, and the ids of such buckets.

An id is 24 hex digits: 12 of the wall clock in milliseconds at the deletion, so that ids sort by
time; 8 of a hash of the bucket's names, so that the ids of one bucket are found without reading
anything; and 4 random ones.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Any, NamedTuple

from .bucket import BucketKey, Snapshot, timestamp

# Ids may run so far ahead of the clock, so that those of one process sort by time of deletion.
MAX_AHEAD_MS = 1000
_ID = re.compile(r"[0-9a-f]{24}")
_last_ms = 0


class TrashedBucket(NamedTuple):
    """One deleted bucket: its ``last`` state, and the members of who deleted it."""

    id: str
    key: BucketKey
    last: Snapshot
    by: dict[str, Any]

    @property
    def info(self) -> TrashInfo:
        last = self.last
        return TrashInfo(
            self.id, *self.key, last.automation, last.revision, last.bucket.size, self.by
        )


class TrashInfo(NamedTuple):
    """One deleted bucket in a list, without its values; ``size`` is its compact JSON in bytes."""

    id: str
    device: str
    job: str | None
    automation: str | None
    revision: int
    size: int
    by: dict[str, Any]

    @property
    def deleted_at(self) -> str:
        return timestamp(deleted_seconds(self.id))


def new_id(key: BucketKey) -> str:
    """Return the id of a bucket that is deleted now. Call from one thread at a time."""
    global _last_ms  # noqa: PLW0603
    now = int(time.time() * 1000)
    _last_ms = _last_ms + 1 if now <= _last_ms < now + MAX_AHEAD_MS else now
    return f"{_last_ms:012x}{_fingerprint(key)}{secrets.token_hex(2)}"


def is_id(text: str) -> bool:
    """Report whether ``new_id`` may have made a string."""
    return _ID.fullmatch(text) is not None


def may_be_of(trash_id: str, key: BucketKey) -> bool:
    """Report whether an id may be that of a bucket; its content tells for certain."""
    return trash_id[12:20] == _fingerprint(key)


def deleted_seconds(trash_id: str) -> float:
    """Return when the bucket with an id was deleted, as Unix time."""
    return int(trash_id[:12], 16) / 1000


def _fingerprint(key: BucketKey) -> str:
    names = f"{key.device}\0{key.job or ''}".encode()
    return hashlib.sha256(names).hexdigest()[:8]
