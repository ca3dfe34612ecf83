"""Read and write the text of a bucket file: the envelope around a bucket.

Besides names, revision and times the envelope holds a ``seal``: the bucket's ETag, the origin (id
of the file that the daemon wrote, and the mtime that the daemon gave it), and a checksum over
everything but that origin. The seal distinguishes four cases:

- The checksum is right: the file is as the daemon wrote it.
- The checksum is wrong or missing, and the file id differs: a program edited the file by write and
  rename. That is allowed, and the program need not know about seals.
- The checksum is wrong, the file id is the same, and the mtime differs: a program edited the file
  in place.
- The checksum is wrong, file id and mtime are the same: the disk damaged the bytes, since a failing
  disk changes no times.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from ...errors import BadInput
from ...fs import files
from ...model import strict_json
from ...model.bucket import (
    ABSENT,
    FORMAT,
    BucketKey,
    Snapshot,
    check_name,
    envelope_fields,
    is_timestamp,
    timestamp,
)
from ...model.document import Document

# A bucket of at most so many bytes is indented before its growth is known.
ALWAYS_TRIED_BYTES = 64 * 1024
# The factor by which indentation may enlarge a bucket.
MAX_GROWTH = 8
_NAMES = {*envelope_fields(BucketKey("-"), ABSENT), "bucket"}
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


class Unreadable(Exception):
    """The text is not a valid envelope; the argument says why, without showing values."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The content of a file, and whether its checksum shows that the daemon wrote the file."""

    snapshot: Snapshot
    key: BucketKey
    verified: bool
    # The ETag that the seal names, even if the checksum is wrong.
    base: str | None = None
    # The members before the bucket that only some files have.
    more: dict[str, Any] = field(default_factory=dict)


def write(
    key: BucketKey, snapshot: Snapshot, origin: str, more: dict[str, Any] | None = None
) -> bytes:
    """Return the file's whole text: indented JSON with a final newline.

    A bucket whose indentation would multiply its size is written on one line. ``more`` members
    precede the bucket.
    """
    fields = {**envelope_fields(key, snapshot), **(more or {})}
    envelope = {**fields, "bucket": snapshot.bucket.values()}
    seal = f"{snapshot.etag}.{origin}.{_checksum(envelope, snapshot.etag)}"
    bucket = envelope.pop("bucket")
    parts = {**envelope, "seal": seal}
    compact = snapshot.bucket.text
    most = MAX_GROWTH * len(compact) + ALWAYS_TRIED_BYTES
    if len(compact) <= ALWAYS_TRIED_BYTES or _at_most_indented(compact) <= most:
        text = orjson.dumps({**parts, "bucket": bucket}, option=_OPTIONS)
        if len(text) <= most:
            return text
    return orjson.dumps({**parts, "bucket": orjson.Fragment(compact)}, option=_OPTIONS)


def _at_most_indented(text: bytes) -> int:
    """Return a cheap lower bound of the indented size."""
    brackets = text.count(b"[") + text.count(b"{")
    lines = text.count(b",") + 2 * brackets
    return len(text) + lines * (2 * min(brackets, strict_json.MAX_DEPTH) + 5)


def read(content: files.Content) -> Stored:
    """Parse a file's text; raise Unreadable if it is not a valid envelope, or is damaged."""
    text = content.text
    try:
        envelope = strict_json.loads_object(text, "the file")
        seal = envelope.pop("seal", None)
        key, snapshot = _fields(envelope)
    except BadInput as error:
        raise Unreadable(error.message) from None
    etag, origin, checksum = _split(seal)
    if etag and checksum == _checksum(envelope, etag):
        more = {name: envelope[name] for name in envelope if name not in _NAMES}
        return Stored(_with_etag(snapshot, etag), key, verified=True, base=etag, more=more)
    file_id, _, origin_mtime = origin.partition("@")
    _, _, mtime_ns, ctime_ns = content.stat_key
    # Earlier versions recorded no mtime, so an edit in place of such a file looks like damage.
    if file_id == content.file_id and origin_mtime in ("", str(mtime_ns)):
        raise Unreadable("its checksum does not hold, so its bytes were damaged where they lie")
    version = f"{content.file_id}.{mtime_ns}.{ctime_ns}."
    derived = hashlib.sha256(version.encode() + text).hexdigest()[:16]
    edited = _with_etag(snapshot, derived)._replace(
        updated_at=_later(snapshot.updated_at, timestamp(mtime_ns / 1e9))
    )
    return Stored(edited, key, verified=False, base=etag or None)


def _later(recorded: str | None, edited: str) -> str:
    """Return the later time; an edit may leave ``updated_at`` unchanged or make it invalid."""
    return max(recorded, edited) if recorded is not None and is_timestamp(recorded) else edited


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
    return key, Snapshot(Document.of(bucket), revision, None, automation, created, updated)


def _text_or_none(envelope: dict[str, Any], name: str) -> str | None:
    value = envelope.get(name)
    if value is not None and not isinstance(value, str):
        raise Unreadable(f'its "{name}" is not a string')
    return value


def _split(seal: Any) -> tuple[str, str, str]:
    pieces = seal.split(".") if isinstance(seal, str) else []
    return (pieces[0], pieces[1], pieces[2]) if len(pieces) == 3 else ("", "", "")


def _checksum(envelope: dict[str, Any], etag: str | None) -> str:
    """Return the checksum of the values, not of the text: other indentation is not an edit."""
    return hashlib.sha256(orjson.dumps([etag, envelope])).hexdigest()[:32]


def _with_etag(s: Snapshot, etag: str) -> Snapshot:
    return Snapshot(s.bucket, s.revision, etag, s.automation, s.created_at, s.updated_at)
