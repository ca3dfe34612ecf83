"""How buckets stand in etcd: their keys, their values, and pages of them.

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
from ..base import BucketInfo, Filter, Page


class StoredValue(NamedTuple):
    """What a key holds, and the ``mod_revision`` that says so (0: nothing)."""

    snapshot: Snapshot
    at: int


def of(prefix: str, key: BucketKey) -> bytes:
    device = filenames.encode(key.device)
    if key.job is None:
        return f"{prefix}device/{device}".encode()
    return f"{prefix}job/{device}/{filenames.encode(key.job)}".encode()


def sections(prefix: str) -> dict[str, tuple[bytes, bytes]]:
    """Where the two kinds of buckets begin and end, by the name of their count."""
    return {
        "device_buckets": below(f"{prefix}device/"),
        "buckets": below(f"{prefix}job/"),
    }


def everything(prefix: str) -> tuple[bytes, bytes]:
    """Where all that is ours begins and ends."""
    return below(prefix)


def ranges(prefix: str, only: Filter) -> list[tuple[bytes, bytes]]:
    """What to look through for these, in the order of keys."""
    if only.device is None:
        return list(sections(prefix).values())
    alone = of(prefix, BucketKey(only.device))
    return [(alone, alone + b"\0"), below(f"{prefix}job/{filenames.encode(only.device)}/")]


def below(beginning: str) -> tuple[bytes, bytes]:
    """The keys that begin so: the first, and the first behind them."""
    begin = beginning.encode()
    return begin, begin[:-1] + bytes([begin[-1] + 1])


def encode(key: BucketKey, now: Snapshot) -> bytes:
    return orjson.dumps(
        {
            **envelope_fields(key, now),
            "etag": now.etag,
            "bucket": orjson.Fragment(now.bucket),
        }
    )


def held(found: list[dict[str, Any]] | None, key: BucketKey) -> StoredValue:
    """What the answer to a range of one key says; BucketCorrupt where it is no bucket."""
    if not found:
        return StoredValue(ABSENT, 0)
    try:
        named, snapshot = _decode(found[0])
        if named != key:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise BucketCorrupt(
            f"cannot read {key}: its value in etcd is no bucket; it stays as it is until somebody "
            "deletes that key or puts a good value there with etcdctl"
        ) from None
    return StoredValue(snapshot, int(found[0]["mod_revision"]))


def named(prefix: str, name: bytes, event: dict[str, Any]) -> BucketKey | None:
    """The bucket whose key this is, as that or its value says; None where it is of none."""
    text = name[len(prefix) :].decode(errors="replace")
    kind, _, rest = text.partition("/")
    device, _, job = rest.partition("/")
    names = filenames.decode(device), filenames.decode(job) if kind == "job" else None
    if kind not in ("device", "job"):
        return None
    if names[0] is not None and (kind == "device" or names[1] is not None):
        return BucketKey(names[0], names[1])
    for value in (event.get("kv"), event.get("prev_kv")):  # names that were cut
        try:
            key = _decode(value or {})[0]
        except (ValueError, KeyError, TypeError):
            continue
        return key if of(prefix, key) == name else None
    return None


def snapshot(found: dict[str, Any] | None) -> Snapshot | None:
    """The state that a value stands for; None where there is none, or it is no bucket."""
    try:
        return _decode(found or {})[1]
    except (ValueError, KeyError, TypeError):
        return None


def _decode(found: dict[str, Any]) -> tuple[BucketKey, Snapshot]:
    value = orjson.loads(base64.b64decode(found["value"]))
    if value["format"] != FORMAT or not isinstance(value["bucket"], dict):
        raise ValueError
    snapshot = Snapshot(
        orjson.dumps(value["bucket"]),
        value["revision"],
        value["etag"],
        value["automation"],
        value["created_at"],
        value["updated_at"],
    )
    return BucketKey(value["device"], value["job"]), snapshot


def collect(page: Page, found: dict[str, Any], only: Filter) -> bytes:
    """Put a found value into the page, if it is wanted; its key."""
    name = base64.b64decode(found["key"])
    try:
        key, now = _decode(found)
    except (ValueError, KeyError, TypeError):
        page.unreadable.append(name.decode(errors="replace"))
        return name
    if only.job in (None, key.job) and only.automation in (None, now.automation):
        row = BucketInfo(key.device, key.job, now.automation, now.revision, len(now.bucket),
                  now.updated_at)  # fmt: skip
        page.rows.append(row)
    return name


def cursor(after: bytes) -> str:
    return base64.urlsafe_b64encode(after).decode().rstrip("=")


def resumed(prefix: str, text: str | None) -> bytes | None:
    """The first key to look at, from a cursor."""
    if text is None:
        return None
    try:
        begin = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        if not begin.startswith(prefix.encode()):
            raise ValueError
        return begin
    except (ValueError, binascii.Error):
        raise InvalidRequest(
            "cannot list from this cursor: use a next_cursor as it was given"
        ) from None
