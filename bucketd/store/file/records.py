"""The format of the commit journal: encode and decode changes, without access to files.

Version 2, little-endian:

    segment   header, padded to 4096 bytes, then records up to the segment's end
    header    magic "bucketdJ", version u32, CRC-32 u32 of all else in it, generation u64
    record    tag u32, length u32, CRC-32 u32, payload of that length, zeros up to a multiple of 4
    tag       CRC-32 of the generation, so that a record can be searched for
    CRC-32    (RFC 1952) of generation u64, length u32 and payload

A change is a JSON object: the names of its bucket, the ETag ``base`` of the state before, and in
``after`` the state that it left (null: deleted). That state is whole, ``bucket`` included, or a
difference to the state before: the members in ``set`` and the keys in ``removed``. ``by`` says who
made the change, where that is known. A whole change has what takes it back in ``was`` and
``inverse``, where the state before may not be in the journal. The first change
of a bucket in a segment, and after each position that a checkpoint may name, is whole, since a file
that was not synced may be torn. Version 1 has whole states alone. A deletion that goes into the
trash has ``trash``: the id there and the last state. ``restores`` is the id of the deleted bucket
that a change brought back.

The generation in the checksums invalidates the records of earlier uses of the segment without
erasing them. A log ends at the first record whose checksum is wrong. Recovery needs only the
records after the newest checkpoint; all changes before it are durable in files.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from ...model import strict_json
from ...model.author import UNKNOWN, Author
from ...model.bucket import ABSENT, BucketKey, Snapshot
from ...model.document import EMPTY, Document, Members
from ...model.inverses import Inverse
from ...model.revisions import decode_inverse, encode_inverse
from ...model.trashed import TrashedBucket

MAGIC, VERSION = b"bucketdJ", 2
# The oldest version that is read.
OLDEST_VERSION = 1
# A smaller bucket is always whole, since a difference would save nothing worth the comparison.
MIN_DIFFERENCE_BYTES = 4096
HEADER_BYTES = 4096
# The beginning of a checkpoint; no change begins so.
CHECKPOINT = b'{"checkpoint":'
_HEADER = struct.Struct("<8sIIQ")
_FRAME = struct.Struct("<III")
_SEED = struct.Struct("<QI")


class JournalError(Exception):
    """The journal cannot be used; the message says why, and how to fix it."""


class Difference(NamedTuple):
    """The effect of a change on the members of a bucket."""

    set: Members
    removed: list[str]


class Origin(NamedTuple):
    """The revision and ETag of the state before a change, and the inverse, if it is kept."""

    was: tuple[int, str | None]
    inverse: Inverse | None


class Record(NamedTuple):
    """One acknowledged change: the state after it (ABSENT: deleted), the ETag before, and who.

    With a ``difference`` the state is not complete: it lacks its bucket. ``at`` is the time of the
    change where that of the state is another; ``undoes`` is the revision that it takes back.
    ``origin`` is there for the history where the journal may not have the state before.
    ``trashed`` is what a deletion put into the trash, and ``restores`` the id of what a change
    took out of it.
    """

    key: BucketKey
    base: str | None
    after: Snapshot
    author: Author = UNKNOWN
    difference: Difference | None = None
    at: str | None = None
    undoes: int | None = None
    origin: Origin | None = None
    trashed: TrashedBucket | None = None
    restores: str | None = None

    def completed(self, before: Snapshot | None) -> Record:
        """Return the record with its whole state, upon the newest one that is known before it."""
        if self.difference is None:
            return self
        if before is None or before.etag != self.base:
            raise JournalError(
                f"cannot read the journal: a change of {self.key} builds upon a state that is not "
                "in it; keep a copy of the directory journal, move it away, and start again: the "
                "files then have what was durable in them"
            )
        bucket = before.bucket.changed(*self.difference)
        return self._replace(after=self.after._replace(bucket=bucket), difference=None)


@dataclass(frozen=True, slots=True, order=True)
class JournalPosition:
    """A place in the log; later places compare greater."""

    generation: int
    offset: int


class EventId(NamedTuple):
    """A change in the log: the start of its record, and the ETag of the state after it.

    The ETag shows whether the record there is still the same.
    """

    generation: int = 0
    offset: int = 0
    etag: str | None = None

    def __str__(self) -> str:
        return f"{self.generation}.{self.offset}.{self.etag or ''}"

    @classmethod
    def read(cls, text: str) -> EventId | None:
        """Parse the string of an EventId; return None for any other string."""
        found = _EVENT_ID.fullmatch(text)
        return None if found is None else cls(int(found[1]), int(found[2]), found[3] or None)


_EVENT_ID = re.compile(r"([0-9]{1,19})\.([0-9]{1,19})\.([!-~]*)")


def framed_size(payload: bytes) -> int:
    """Return how many bytes a payload takes in the journal."""
    return _FRAME.size + len(payload) + (-len(payload) % 4)


def header(version: int, generation: int) -> bytes:
    crc = zlib.crc32(struct.pack("<8sIQ", MAGIC, version, generation))
    return _HEADER.pack(MAGIC, version, crc, generation)


def frame(generation: int, payload: bytes) -> bytes:
    """Return one record's bytes."""
    text = _FRAME.pack(_tag(generation), len(payload), _crc(generation, payload)) + payload
    return text + bytes(-len(text) % 4)


def _crc(generation: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_SEED.pack(generation, len(payload))))


@lru_cache(maxsize=4)
def _tag(generation: int) -> int:
    return zlib.crc32(struct.pack("<Q", generation))


def encode(record: Record) -> bytes:
    """Return a change as a payload."""
    after = record.after
    members: dict[str, Any] = {"base": record.base, "after": None}
    if after.revision:
        members["after"] = _state(after)
    if record.trashed is not None:
        members["trash"] = {"id": record.trashed.id, **_state(record.trashed.last)}
    if record.restores is not None:
        members["restores"] = record.restores
    return b"%b%b}" % (prefix(record.key), _encoded(members, record))


def _state(now: Snapshot) -> dict[str, Any]:
    return {**_metadata(now), "bucket": orjson.Fragment(now.bucket.text)}


def encode_difference(record: Record, before: Document) -> bytes | None:
    """Return a change as a payload that needs the bucket before; None where that saves nothing.

    None also where the members are not at hand: to find them takes longer than to write them.
    """
    after = record.after.bucket
    if after.size < MIN_DIFFERENCE_BYTES or not (before.is_split and after.is_split):
        return None
    changed, removed = after.difference_from(before)
    if 2 * sum(map(len, changed.values())) > after.size:
        return None
    # A replacement may have changed the order of the keys, which is kept, too.
    if [*before.changed(changed, removed).members] != [*after.members]:
        return None
    head = {"base": record.base, "after": _metadata(record.after), "removed": removed}
    return b'%b%b,"set":{%b}}' % (
        prefix(record.key),
        _encoded(head, record),
        b",".join(changed.values()),
    )


def _encoded(members: dict[str, Any], record: Record) -> bytes:
    """Return members of a payload without braces, with those for the history."""
    if record.at is not None:
        members["at"] = record.at
    if record.undoes is not None:
        members["undoes"] = record.undoes
    text = orjson.dumps(members)[1:-1]
    if record.author is not UNKNOWN:
        text = b'%b,"by":%b' % (text, record.author.json)
    if record.origin is not None:
        was, inverse = record.origin
        text = b'%b,"was":%b,"inverse":{%b}' % (text, orjson.dumps(was), encode_inverse(inverse))
    return text


def _metadata(after: Snapshot) -> dict[str, Any]:
    return {
        "automation": after.automation,
        "revision": after.revision,
        "created_at": after.created_at,
        "updated_at": after.updated_at,
        "etag": after.etag,
    }


def prefix(key: BucketKey) -> bytes:
    """Return the prefix of the payloads of a bucket's changes."""
    return orjson.dumps({"device": key.device, "job": key.job})[:-1] + b","


def decode(payload: bytes) -> Record:
    """Return the change in a payload; one with a difference is yet to be completed."""
    value = orjson.loads(payload)
    key = BucketKey(str(value["device"]), value["job"])
    state, after, difference, origin = value["after"], ABSENT, None, None
    if "set" in value:
        difference = Difference(strict_json.split(value["set"]), value["removed"])
        after = Snapshot(EMPTY, **state)
    elif isinstance(state, dict):
        after = _snapshot(state)
    if "was" in value:
        revision, etag = value["was"]
        origin = Origin((revision, etag), decode_inverse(value["inverse"]))
    author = Author.read(value.get("by"))
    return Record(
        key,
        value["base"],
        after,
        author,
        difference,
        value.get("at"),
        value.get("undoes"),
        origin,
        _trashed(key, author, value.get("trash")),
        value.get("restores"),
    )


def _trashed(key: BucketKey, author: Author, value: Any) -> TrashedBucket | None:
    if not isinstance(value, dict):
        return None
    trash_id, last = value.pop("id"), _snapshot(value)
    return TrashedBucket(trash_id, key, last, author.members(last.automation))


def _snapshot(state: dict[str, Any]) -> Snapshot:
    return Snapshot(**{**state, "bucket": Document.of(state["bucket"])})


def encode_checkpoint(upto: JournalPosition) -> bytes:
    """Return a payload which records that all changes before a position are durable in files."""
    return orjson.dumps({"checkpoint": [upto.generation, upto.offset]})


def decode_checkpoint(payload: bytes) -> JournalPosition:
    return JournalPosition(*orjson.loads(payload)["checkpoint"])


def generation_of(text: bytes) -> int | None:
    """Return the generation in the header; None if no header has a valid checksum."""
    if len(text) < HEADER_BYTES:
        return None
    _, version, _, generation = _HEADER.unpack_from(text)
    if text[: _HEADER.size] != header(version, generation):
        return None
    if not OLDEST_VERSION <= version <= VERSION:
        raise JournalError(
            f"cannot read the directory journal: it has format version {version}, this bucketd "
            f"reads {OLDEST_VERSION} to {VERSION}; start the bucketd that wrote it once, stop it "
            "cleanly, and move that directory away"
        )
    return int(generation)


def payloads(text: bytes, generation: int, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield each record's offset and payload, up to the first with a wrong checksum."""
    while (payload := payload_at(text, generation, offset)) is not None:
        yield offset, payload
        offset += _FRAME.size + len(payload)
        offset += -offset % 4


def payload_at(text: bytes, generation: int, offset: int) -> bytes | None:
    """Return the payload of the record at an offset; None if no valid record begins there."""
    if offset + _FRAME.size > len(text):
        return None
    tag, length, crc = _FRAME.unpack_from(text, offset)
    begin = offset + _FRAME.size
    if tag != _tag(generation) or begin + length > len(text):
        return None
    payload = text[begin : begin + length]
    return payload if crc == _crc(generation, payload) else None


def has_valid_after(text: bytes, generation: int, end: int) -> bool:
    """Report whether a valid record follows the end, which shows damage, not a torn write."""
    tag = struct.pack("<I", _tag(generation))
    place = text.find(tag, end)
    while place >= 0:
        if payload_at(text, generation, place) is not None:
            return True
        place = text.find(tag, place + 1)
    return False
