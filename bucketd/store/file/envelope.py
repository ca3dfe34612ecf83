"""A bucket file's text: the envelope around a bucket, read and written.

Besides names, revision and times the envelope holds a ``seal``: the bucket's ETag, the origin (id
of the file that the daemon wrote, and the mtime that the daemon gave it), and a checksum over
everything but that origin. The seal tells four cases apart that look alike otherwise:

- the checksum holds: the file is as the daemon wrote it;
- it does not, or there is none, and this is another file: somebody edited it by write-and-rename,
  which they may, and need not know about seals;
- it does not, this is the same file, and its mtime is another: somebody edited it in place;
- it does not, and file and mtime are the same: the bytes rotted in place, since a failing disk
  changes no times.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from ...errors import BadInput
from ...fs import files
from ...model import strict_json
from ...model.bucket import (
    FORMAT,
    BucketKey,
    Snapshot,
    check_name,
    envelope_fields,
    is_timestamp,
    timestamp,
)

# A bucket of at most so many bytes is simply indented to see how long it becomes.
ALWAYS_TRIED_BYTES = 64 * 1024
MAX_GROWTH = 8  # by indentation
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


class Unreadable(Exception):
    """The text is not a valid envelope; the argument says why, without showing values."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file says, and whether its checksum shows that the daemon itself wrote it."""

    snapshot: Snapshot
    key: BucketKey
    verified: bool
    # The ETag that the seal names, even where the checksum does not hold.
    base: str | None = None


def write(key: BucketKey, snapshot: Snapshot, origin: str) -> bytes:
    """Return the file's whole text: indented JSON with a final newline.

    A bucket whose indentation would multiply its size is written on one line.
    """
    envelope = {**envelope_fields(key, snapshot), "bucket": orjson.loads(snapshot.bucket)}
    seal = f"{snapshot.etag}.{origin}.{_checksum(envelope, snapshot.etag)}"
    bucket = envelope.pop("bucket")
    parts = {**envelope, "seal": seal}
    most = MAX_GROWTH * len(snapshot.bucket) + ALWAYS_TRIED_BYTES
    if len(snapshot.bucket) <= ALWAYS_TRIED_BYTES or _at_most_indented(snapshot.bucket) <= most:
        text = orjson.dumps({**parts, "bucket": bucket}, option=_OPTIONS)
        if len(text) <= most:
            return text
    return orjson.dumps({**parts, "bucket": orjson.Fragment(snapshot.bucket)}, option=_OPTIONS)


def _at_most_indented(text: bytes) -> int:
    """Return a cheap lower bound of the indented size."""
    brackets = text.count(b"[") + text.count(b"{")
    lines = text.count(b",") + 2 * brackets
    return len(text) + lines * (2 * min(brackets, strict_json.MAX_DEPTH) + 5)


def read(content: files.Content) -> Stored:
    """Parse a file's text; raise Unreadable for what is not a valid envelope, or rotted."""
    text = content.text
    try:
        envelope = strict_json.loads_object(text, "the file")
        seal = envelope.pop("seal", None)
        key, snapshot = _fields(envelope)
    except BadInput as error:
        raise Unreadable(error.message) from None
    etag, origin, checksum = _split(seal)
    if etag and checksum == _checksum(envelope, etag):
        return Stored(_with_etag(snapshot, etag), key, verified=True, base=etag)
    file_id, _, mtime_ns = origin.partition("@")
    # Earlier versions noted no mtime, so an edit in place of their files looks like rot.
    if file_id == content.file_id and mtime_ns in ("", str(content.stat_key.mtime_ns)):
        raise Unreadable("its checksum does not hold, so its bytes were damaged where they lie")
    version = f"{content.file_id}.{content.stat_key.mtime_ns}.{content.stat_key.ctime_ns}."
    derived = hashlib.sha256(version.encode() + text).hexdigest()[:16]
    edited = _with_etag(snapshot, derived)._replace(
        updated_at=_later(snapshot.updated_at, timestamp(content.stat_key.mtime_ns / 1e9))
    )
    return Stored(edited, key, verified=False, base=etag or None)


def _later(told: str | None, edited: str) -> str:
    """Return the later time: who edits a file need not touch ``updated_at``, nor keep it valid."""
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
        raise Unreadable(f'its "{name}" is not a string')
    return value


def _split(seal: Any) -> tuple[str, str, str]:
    pieces = seal.split(".") if isinstance(seal, str) else []
    return (pieces[0], pieces[1], pieces[2]) if len(pieces) == 3 else ("", "", "")


def _checksum(envelope: dict[str, Any], etag: str | None) -> str:
    """Return the checksum of the values, not of the text: indenting a file anew is not an edit."""
    return hashlib.sha256(orjson.dumps([etag, envelope])).hexdigest()[:32]


def _with_etag(s: Snapshot, etag: str) -> Snapshot:
    return Snapshot(s.bucket, s.revision, etag, s.automation, s.created_at, s.updated_at)
