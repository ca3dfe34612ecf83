"""A bucket file's text: the envelope around a bucket, read and written.

Besides names, revision and times the envelope holds a ``seal``: the bucket's
ETag, the file_id of the file it was written to (inode and generation), and a
checksum over everything but that file_id. It tells three cases apart that look
alike otherwise:

- the seal holds: the file is as the daemon wrote it;
- it does not, or there is none, and this is another file: somebody edited it by
  write-and-rename, which they may, and need not know about seals;
- it does not, and this is the same file: the bytes rotted in place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from ...errors import BadInput
from ...fs import files
from ...model import strict_json
from ...model.bucket import BucketKey, Snapshot, check_name, is_timestamp, timestamp

FORMAT = "bucketd/1"
LIGHT_BYTES = 64 * 1024  # of a bucket, that is simply tried
MOST_INDENTED = 8  # times as long as the bucket
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


class Unreadable(Exception):
    """The text is no envelope of this bucket; the argument says why, without showing values."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file says, and whether its seal shows that the daemon itself wrote it."""

    snapshot: Snapshot
    key: BucketKey
    verified: bool
    base: str | None = None  # the ETag that its seal names, even where the seal is broken


def write(key: BucketKey, snapshot: Snapshot, file_id: str) -> bytes:
    """The file's whole text: indented JSON with a final newline.

    A bucket whose nesting would make many bytes of each stands on one line.
    """
    envelope = {
        "format": FORMAT,
        "device": key.device,
        "job": key.job,
        "automation": snapshot.automation,
        "revision": snapshot.revision,
        "created_at": snapshot.created_at,
        "updated_at": snapshot.updated_at,
        "bucket": orjson.loads(snapshot.bucket),
    }
    seal = f"{snapshot.etag}.{file_id}.{_checksum(envelope, snapshot.etag)}"
    bucket = envelope.pop("bucket")
    parts = {**envelope, "seal": seal}
    most = MOST_INDENTED * len(snapshot.bucket) + LIGHT_BYTES
    if len(snapshot.bucket) <= LIGHT_BYTES or _at_most_indented(snapshot.bucket) <= most:
        text = orjson.dumps({**parts, "bucket": bucket}, option=_OPTIONS)
        if len(text) <= most:
            return text
    return orjson.dumps({**parts, "bucket": orjson.Fragment(snapshot.bucket)}, option=_OPTIONS)


def _at_most_indented(text: bytes) -> int:
    """How long it is indented, or less; cheap, where it may be many times as long."""
    brackets = text.count(b"[") + text.count(b"{")
    lines = text.count(b",") + 2 * brackets
    return len(text) + lines * (2 * min(brackets, strict_json.MAX_DEPTH) + 5)


def read(content: files.Content) -> Stored:
    """Parse a file's text; raise Unreadable for what is no envelope, or rotted."""
    text = content.text
    try:
        envelope = strict_json.loads_object(text, "the file")
        seal = envelope.pop("seal", None)
        key, snapshot = _fields(envelope)
    except BadInput as error:
        raise Unreadable(error.message) from None
    etag, file_id, checksum = _split(seal)
    if etag and checksum == _checksum(envelope, etag):
        return Stored(_with_etag(snapshot, etag), key, verified=True, base=etag)
    if file_id == content.file_id:
        raise Unreadable("its checksum does not hold, so its bytes were damaged where they lie")
    told = f"{content.file_id}.{content.stat_key.mtime_ns}.".encode()
    derived = hashlib.sha256(told + text).hexdigest()[:16]
    edited = _with_etag(snapshot, derived)._replace(
        updated_at=_later(snapshot.updated_at, timestamp(content.stat_key.mtime_ns / 1e9))
    )
    return Stored(edited, key, verified=False, base=etag or None)


def _later(told: str | None, edited: str) -> str:
    """Whoever edits a file need not touch its times; what is no time of ours does not count."""
    return max(told, edited) if told is not None and is_timestamp(told) else edited


def _fields(envelope: dict[str, Any]) -> tuple[BucketKey, Snapshot]:
    if envelope.get("format") != FORMAT:
        raise Unreadable(f'its "format" is not "{FORMAT}"')
    revision, bucket = envelope.get("revision"), envelope.get("bucket")
    if type(revision) is not int or not 1 <= revision < 2**63:
        raise Unreadable('its "revision" is not a whole number from 1')
    if not isinstance(bucket, dict):
        raise Unreadable(f'its "bucket" is not an object but {strict_json.kind_of(bucket)}')
    automation = envelope.get("automation")
    if automation is not None:
        check_name(automation, "automation")
    key = BucketKey.checked(envelope.get("device"), envelope.get("job"))
    created, updated = (_text_or_none(envelope, k) for k in ("created_at", "updated_at"))
    return key, Snapshot(strict_json.dumps(bucket), revision, None, automation, created, updated)


def _text_or_none(envelope: dict[str, Any], name: str) -> str | None:
    value = envelope.get(name)
    if value is not None and not isinstance(value, str):
        raise Unreadable(f'its "{name}" is not a text')
    return value


def _split(seal: Any) -> tuple[str, str, str]:
    pieces = seal.split(".") if isinstance(seal, str) else []
    return (pieces[0], pieces[1], pieces[2]) if len(pieces) == 3 else ("", "", "")


def _checksum(envelope: dict[str, Any], etag: str | None) -> str:
    """Of the values, not of the text: reindenting a file by hand is no edit of it."""
    return hashlib.sha256(orjson.dumps([etag, envelope])).hexdigest()[:32]


def _with_etag(s: Snapshot, etag: str) -> Snapshot:
    return Snapshot(s.bucket, s.revision, etag, s.automation, s.created_at, s.updated_at)
