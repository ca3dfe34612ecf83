"""Keys and values of buckets in etcd.

``<prefix>device/<device>`` and ``<prefix>job/<device>/<job>``, encoded like file names; a value
is one JSON object: names, revision, times, ETag and the bucket.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import orjson

from ...errors import BucketCorrupt, InvalidRequest
from ...fs import filenames
from ...model.bucket import ABSENT, FORMAT, BucketKey, Snapshot, envelope_fields
from ...model.document import Document
from ..base import BucketInfo, Filter, Page

# A key and its value as in etcd's answers, in base64.
KeyValue = dict[str, Any]


class StoredValue(NamedTuple):
    """The bucket that a key holds, and the key's ``mod_revision``; 0: the key does not exist."""

    snapshot: Snapshot
    mod_revision: int


class NotABucket(ValueError):
    """A value is not a bucket, or not the bucket that its key names."""


def encode_key(prefix: str, key: BucketKey) -> bytes:
    device = filenames.encode(key.device)
    if key.job is None:
        return f"{prefix}device/{device}".encode()
    return f"{prefix}job/{device}/{filenames.encode(key.job)}".encode()


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """Return the first key with this prefix, and the first key after all of them."""
    begin = prefix.encode()
    return begin, begin[:-1] + bytes([begin[-1] + 1])


def bucket_ranges(prefix: str) -> dict[str, tuple[bytes, bytes]]:
    """Return the ranges of the two kinds of buckets, by the name of their count."""
    return {
        "device_buckets": prefix_range(f"{prefix}device/"),
        "buckets": prefix_range(f"{prefix}job/"),
    }


def trash_range(prefix: str) -> tuple[bytes, bytes]:
    """Return the range of the deleted buckets."""
    return prefix_range(f"{prefix}trash/")


def filtered_ranges(prefix: str, only: Filter) -> list[tuple[bytes, bytes]]:
    """Return ranges that contain all buckets that a filter selects, in the order of keys."""
    if only.device is None:
        return list(bucket_ranges(prefix).values())
    device_bucket = encode_key(prefix, BucketKey(only.device))
    jobs = prefix_range(f"{prefix}job/{filenames.encode(only.device)}/")
    return [(device_bucket, device_bucket + b"\0"), jobs]


def encode_value(key: BucketKey, now: Snapshot, more: dict[str, Any] | None = None) -> bytes:
    """Return the value of a bucket; ``more`` members precede the bucket."""
    return orjson.dumps(
        {
            **envelope_fields(key, now),
            "etag": now.etag,
            **(more or {}),
            "bucket": orjson.Fragment(now.bucket.text),
        }
    )


def key_of(kv: KeyValue) -> bytes:
    return base64.b64decode(kv["key"])


def decode(prefix: str, kv: KeyValue) -> tuple[BucketKey, Snapshot]:
    """Return the bucket that a key and its value represent; raise NotABucket for any other."""
    key, snapshot, _ = decode_value(kv)
    if encode_key(prefix, key) != key_of(kv):
        raise NotABucket
    return key, snapshot


def decode_value(kv: KeyValue) -> tuple[BucketKey, Snapshot, dict[str, Any]]:
    """Return the bucket in a value, whatever its key, and all members; raise NotABucket."""
    try:
        value = orjson.loads(base64.b64decode(kv["value"]))
        key = BucketKey.checked(value["device"], value["job"])
        snapshot = Snapshot(
            Document(orjson.dumps(value["bucket"])),
            value["revision"],
            value["etag"],
            value["automation"],
            value["created_at"],
            value["updated_at"],
        )
        valid = (
            value["format"] == FORMAT
            and isinstance(value["bucket"], dict)
            and type(snapshot.revision) is int
            and snapshot.revision > 0
            and isinstance(snapshot.etag, str)
            and all(isinstance(text, str | None) for text in snapshot[3:6])
        )
    except (ValueError, KeyError, TypeError, InvalidRequest) as error:
        raise NotABucket from error
    if not valid:
        raise NotABucket
    return key, snapshot, value


def stored_value(prefix: str, kvs: list[KeyValue] | None, key: BucketKey) -> StoredValue:
    """Return the bucket in an answer to a range of one key; raise BucketCorrupt if invalid."""
    if not kvs:
        return StoredValue(ABSENT, 0)
    try:
        return StoredValue(decode(prefix, kvs[0])[1], int(kvs[0]["mod_revision"]))
    except NotABucket:
        raise BucketCorrupt(
            f"cannot read {key}: its value in etcd is not a valid bucket; the value stays there "
            "until somebody deletes that key or puts a valid value with etcdctl",
            key=key,
        ) from None


def bucket_of_event(prefix: str, event: dict[str, Any]) -> BucketKey | None:
    """Return the bucket of an event; None if its key is not that of a bucket."""
    name = key_of(event["kv"])
    kind, _, rest = name[len(prefix.encode()) :].decode(errors="replace").partition("/")
    if kind not in ("device", "job"):
        return None
    encoded_device, _, encoded_job = rest.partition("/")
    device = filenames.decode(encoded_device)
    job = filenames.decode(encoded_job) if kind == "job" else None
    if device is not None and (kind == "device" or job is not None):
        try:
            key = BucketKey.checked(device, job)
        except InvalidRequest:
            return None
        return key if encode_key(prefix, key) == name else None
    # A long name is shortened in the key; the value has the whole name.
    for kv in (event.get("kv"), event.get("prev_kv")):
        try:
            return decode(prefix, kv or {})[0]
        except NotABucket:
            continue
    return None


def add_row(prefix: str, page: Page, kv: KeyValue, only: Filter) -> None:
    """Add a bucket to a page if the filter selects it; list an invalid entry as unreadable."""
    try:
        key, now = decode(prefix, kv)
    except NotABucket:
        page.unreadable.append(key_of(kv).decode(errors="backslashreplace"))
        return
    if only.matches(key.device, key.job, now.automation):
        page.rows.append(
            BucketInfo(
                key.device, key.job, now.automation, now.revision, now.bucket.size, now.updated_at
            )
        )


def encode_cursor(next_key: bytes) -> str:
    return base64.urlsafe_b64encode(next_key).decode().rstrip("=")


def decode_cursor(prefix: str, cursor: str) -> bytes:
    """Return the first key to list; raise InvalidRequest for a cursor that is not valid."""
    try:
        begin = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        if not begin.startswith(prefix.encode()):
            raise ValueError
        return begin
    except (ValueError, binascii.Error):
        raise InvalidRequest(
            "cannot list from this cursor: use a next_cursor as it was given"
        ) from None
