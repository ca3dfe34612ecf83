"""History in etcd: ``<prefix>history/…/<revision>``, one key for each change of a bucket.

The transaction that changes a bucket also puts the line of that change and deletes those that are
kept no longer, so history and bucket agree by construction.
"""

from __future__ import annotations

import base64
from typing import Any

from ...fs import filenames
from ...model.author import Author
from ...model.bucket import BucketKey, Snapshot, timestamp
from ...model.changes import Change
from ...model.revisions import History, HistoryLimits, chain, encode, kept_inverse
from .client import b64
from .keys import prefix_range
from .reader import Reader

# A transaction has the bucket and its line, and etcd limits its size; a line takes at most this
# part of the bytes of a history.
_PART = 4
# Lines may be long, so so many are read at once.
_PAGE = 16


def operations(
    prefix: str,
    limits: HistoryLimits,
    key: BucketKey,
    before: Snapshot,
    after: Snapshot,
    change: Change,
    author: Author,
) -> list[dict[str, Any]]:
    """Return what a transaction does to the history of the bucket that it changes."""
    begin, end = prefix_range(_prefix(prefix, key))
    if not after.revision:
        return [_deletion(begin, end)]
    if not limits:
        return []
    own = _encode_key(prefix, key, after.revision)
    oldest = _encode_key(prefix, key, max(0, after.revision - limits.revisions + 1))
    put = {
        "request_put": {"key": b64(own), "value": b64(_line(limits, before, after, change, author))}
    }
    if not before.revision:
        # Another daemon may have left lines of a bucket that was there before.
        return [put, _deletion(begin, own), _deletion(own + b"\0", end)]
    return [put, _deletion(begin, oldest)]


def _line(
    limits: HistoryLimits, before: Snapshot, after: Snapshot, change: Change, author: Author
) -> bytes:
    if change.restores is not None:
        before = change.restores.last
    old, new = before.bucket, after.bucket
    most = limits.bytes // _PART
    inverse = kept_inverse(
        old.members if before.revision else {}, new.members, old.size + new.size, most
    )
    was = before.revision, before.etag
    is_import = change.metadata is not None and change.metadata.updated_at is not None
    at = timestamp() if is_import else after.updated_at
    return encode(
        after.revision,
        after.etag or "",
        at,
        was,
        author,
        after.automation,
        inverse,
        change.undoes,
    )


def _prefix(prefix: str, key: BucketKey) -> str:
    device = filenames.encode(key.device)
    if key.job is None:
        return f"{prefix}history/device/{device}/"
    return f"{prefix}history/job/{device}/{filenames.encode(key.job)}/"


def _encode_key(prefix: str, key: BucketKey, revision: int) -> bytes:
    return f"{_prefix(prefix, key)}{revision:016d}".encode()


def _deletion(begin: bytes, end: bytes) -> dict[str, Any]:
    return {"request_delete_range": {"key": b64(begin), "range_end": b64(end)}}


async def read(
    reader: Reader, prefix: str, limits: HistoryLimits, key: BucketKey, deadline: float
) -> History:
    """Return a bucket with the changes that led to it. Raises BucketdError."""
    now = (await reader.read(key, deadline)).snapshot
    begin, end = prefix_range(_prefix(prefix, key))
    lines: list[bytes] = []
    size = 0
    while now.revision and len(lines) <= limits.revisions and size <= limits.bytes:
        request = {
            "key": b64(begin),
            "range_end": b64(end),
            "limit": str(_PAGE),
            "sort_order": "DESCEND",
            "sort_target": "KEY",
        }
        answer = await reader.range(request, f"read the history of {key}", deadline)
        found = answer.get("kvs") or []
        lines += [base64.b64decode(kv["value"]) for kv in found]
        if len(found) < _PAGE:
            break
        size = sum(map(len, lines))
        end = base64.b64decode(found[-1]["key"])
    return History(now, chain(now, lines, limits))
