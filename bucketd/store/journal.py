"""The commit journal: what is acknowledged stands here before it stands in files.

Two segments below ``<state>/journal/``, preallocated and zero-filled, so that
``fdatasync`` writes data alone. Format, version 1, little-endian:

    segment   header, padded to 4096 bytes, then records up to the segment's end
    header    magic "bucketdJ", version u32, CRC-32 u32 of all else in it, generation u64
    record    tag u32, length u32, CRC-32 u32, payload of that length, zeros up to a multiple of 4
    tag       CRC-32 of the generation, so that a record can be searched for
    CRC-32    (RFC 1952) of generation u64, length u32 and payload

The generation in the checksums makes what an earlier round left behind invalid
without erasing it. A log ends at the first record that does not check. Only
what comes after the newest checkpoint concerns recovery: all before it stands
durably in files.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import orjson

from .. import strictjson
from ..model import ABSENT, BucketKey, Snapshot
from . import disk, quarantine

DIRECTORY = "journal"
NAMES = ("0.log", "1.log")
MAGIC, VERSION = b"bucketdJ", 1
HEADER_BYTES = 4096
_HEADER = struct.Struct("<8sIIQ")
_FRAME = struct.Struct("<III")
_SEED = struct.Struct("<QI")


class JournalError(Exception):
    """The journal cannot be used; the message says why, and what to do."""


class Record(NamedTuple):
    """One acknowledged change: the state after it (ABSENT: deleted), and the ETag before it."""

    key: BucketKey
    base: str | None
    after: Snapshot


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the log; later places compare greater."""

    generation: int
    offset: int


@dataclass(frozen=True, slots=True)
class Log:
    """What one segment holds: records with their places, where it ends, and whether
    something valid stands behind that end, which no torn write explains."""

    generation: int
    records: list[tuple[Position, Record]]
    checkpoint: Position | None
    end: int
    damaged: bool


class Journal:
    """Append and sync. Used by one thread; raises OSError as the system gives it."""

    def __init__(self, root: int, segment_bytes: int) -> None:
        self._size = segment_bytes
        with disk.directory(root, (DIRECTORY,), create=True) as parent:
            self._fds = [disk.open_log(parent, name, segment_bytes) for name in NAMES]
        texts = [disk.read_at(fd, segment_bytes, 0) for fd in self._fds]
        logs = _read_logs(texts)
        for name, text, log in zip(NAMES, texts, logs, strict=True):
            if log is not None and log.damaged:
                quarantine.keep_copy(root, f"journal-{name}", text)
        found = sorted((log for log in logs if log is not None), key=lambda log: log.generation)
        self.damaged = any(log.damaged for log in found)
        self.replay = _after_checkpoint(found)
        self._generation = max((log.generation for log in found), default=0)
        newest = next((i for i, log in enumerate(logs) if log and log is found[-1]), 1)
        self._active, self._offset = newest, self._size  # the next append begins a new segment
        self._opened_at = self.position

    @property
    def nothing_to_note(self) -> bool:
        """Whether a stop now would leave nothing to replay, just as it is."""
        return not self.replay and self.position == self._opened_at

    @property
    def most_at_once(self) -> int:
        """A batch of more bytes than this should be written before more is added to it."""
        return self._size // 8

    @property
    def halfway(self) -> Position:
        """The middle of this segment."""
        return Position(self._generation, self._size // 2)

    @property
    def older_end(self) -> Position:
        """Behind everything in the segment that ``begin_segment`` would overwrite."""
        return Position(self._generation, 0)

    @property
    def position(self) -> Position:
        """Where the next record goes: everything appended so far lies before it."""
        return Position(self._generation, self._offset)

    def fits(self, length: int) -> bool:
        """Whether so many bytes of payloads and frames still go into this segment."""
        return self._offset + length <= self._size

    def begin_segment(self) -> None:
        """Go on in the other segment; all that it held must be durable in files."""
        self._active = 1 - self._active
        self._generation += 1
        header = _header(VERSION, self._generation).ljust(HEADER_BYTES, b"\0")
        disk.write_at(self._fds[self._active], header, 0)
        # On its own, so that a header which does not check has no record behind it.
        self.sync()
        self._offset = HEADER_BYTES

    def append(self, payloads: list[bytes]) -> int:
        """Write records at the end; how many bytes. They are durable only after ``sync``.

        Raises OSError, also where the file has been removed: what nobody finds again is not kept.
        """
        disk.check_named(self._fds[self._active])
        text = b"".join(frame(self._generation, payload) for payload in payloads)
        disk.write_at(self._fds[self._active], text, self._offset)
        self._offset += len(text)
        return len(text)

    def sync(self) -> None:
        disk.sync_data(self._fds[self._active])

    def find(self, key: BucketKey) -> Record | None:
        """The newest record of a bucket that either segment still holds."""
        newest: tuple[Position, Record] | None = None
        for fd in self._fds:
            log = read_log(disk.read_at(fd, self._size, 0))
            for place in log.records if log else []:
                if place[1].key == key and (newest is None or newest[0] < place[0]):
                    newest = place
        return newest[1] if newest else None

    def close(self) -> None:
        for fd in self._fds:
            disk.close(fd)


def framed(payload: bytes) -> int:
    """How many bytes a payload takes in the journal."""
    return _FRAME.size + len(payload) + (-len(payload) % 4)


def _header(version: int, generation: int) -> bytes:
    crc = zlib.crc32(struct.pack("<8sIQ", MAGIC, version, generation))
    return _HEADER.pack(MAGIC, version, crc, generation)


def frame(generation: int, payload: bytes) -> bytes:
    """One record's bytes."""
    text = _FRAME.pack(_tag(generation), len(payload), _crc(generation, payload)) + payload
    return text + bytes(-len(text) % 4)


def _crc(generation: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_SEED.pack(generation, len(payload))))


@lru_cache(maxsize=4)
def _tag(generation: int) -> int:
    return zlib.crc32(struct.pack("<Q", generation))


def encode(record: Record) -> bytes:
    """A change as a payload."""
    after = record.after
    state = None
    if after.revision:
        state = {
            "automation": after.automation,
            "revision": after.revision,
            "created_at": after.created_at,
            "updated_at": after.updated_at,
            "etag": after.etag,
            "bucket": orjson.Fragment(after.bucket),
        }
    key = record.key
    return orjson.dumps({"device": key.device, "job": key.job, "base": record.base, "after": state})


def encode_checkpoint(upto: Position) -> bytes:
    """A mark: whatever lies before this place is durable in files."""
    return orjson.dumps({"checkpoint": [upto.generation, upto.offset]})


def read_log(text: bytes) -> Log | None:
    """Parse a segment; None where it was never (wholly) begun.

    Raises JournalError for one of another version.
    """
    if len(text) < HEADER_BYTES:
        return None
    _, version, _, generation = _HEADER.unpack_from(text)
    if text[: _HEADER.size] != _header(version, generation):
        return None
    if version != VERSION:
        raise JournalError(
            f"cannot read the journal: it has format version {version}, this bucketd "
            f"reads {VERSION}; start the bucketd that wrote it once, and stop it cleanly"
        )
    return _read_records(text, generation)


def _read_logs(texts: list[bytes]) -> list[Log | None]:
    """All segments; one whose header rotted is known by the records that stand behind it."""
    logs = [read_log(text) for text in texts]
    known = max((log.generation for log in logs if log), default=0)
    for index, text in enumerate(texts):
        if logs[index] is None:
            found = [_read_records(text, g) for g in (known + 1, known - 1) if g > 0]
            logs[index] = next((replace(f, damaged=True) for f in found if f.records), None)
    return logs


def _read_records(text: bytes, generation: int) -> Log:
    records: list[tuple[Position, Record]] = []
    checkpoint, end = None, HEADER_BYTES
    for offset, payload in _payloads(text, generation, HEADER_BYTES):
        value = orjson.loads(payload)
        if "checkpoint" in value:
            checkpoint = Position(*value["checkpoint"])
        else:
            records.append((Position(generation, offset), _decode(value)))
        end = offset + len(frame(generation, payload))
    return Log(generation, records, checkpoint, end, _valid_behind(text, generation, end))


def _payloads(text: bytes, generation: int, offset: int) -> Iterator[tuple[int, bytes]]:
    while (payload := _payload_at(text, generation, offset)) is not None:
        yield offset, payload
        offset += _FRAME.size + len(payload)
        offset += -offset % 4


def _payload_at(text: bytes, generation: int, offset: int) -> bytes | None:
    if offset + _FRAME.size > len(text):
        return None
    tag, length, crc = _FRAME.unpack_from(text, offset)
    begin = offset + _FRAME.size
    if tag != _tag(generation) or begin + length > len(text):
        return None
    payload = text[begin : begin + length]
    return payload if crc == _crc(generation, payload) else None


def _valid_behind(text: bytes, generation: int, end: int) -> bool:
    """Whether a valid record follows the end: then the end is damage, not a torn write."""
    tag = struct.pack("<I", _tag(generation))
    place = text.find(tag, end)
    while place >= 0:
        if _payload_at(text, generation, place) is not None:
            return True
        place = text.find(tag, place + 1)
    return False


def _decode(value: dict[str, object]) -> Record:
    key = BucketKey(str(value["device"]), value["job"])  # type: ignore[arg-type]
    state = value["after"]
    after = ABSENT
    if isinstance(state, dict):
        after = Snapshot(**{**state, "bucket": strictjson.dumps(state["bucket"])})
    return Record(key, value["base"], after)  # type: ignore[arg-type]


def _after_checkpoint(logs: list[Log]) -> list[Record]:
    """What recovery has to look at, in the order it was acknowledged."""
    marks = [log.checkpoint for log in logs if log.checkpoint is not None]
    since = max(marks, default=None)
    return [
        record
        for log in logs
        for place, record in log.records
        if since is None or not place < since
    ]
