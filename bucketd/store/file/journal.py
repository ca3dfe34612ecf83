"""The commit journal: a change is durable here before it is acknowledged, and then in its file.

The journal consists of two segments below ``<state>/journal/``, preallocated and zero-filled, so
that ``fdatasync`` writes data alone; ``records`` describes their format. When a segment is full,
the journal continues in the other one, once all changes in that one are durable in files. A log
ends at the first record whose checksum is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ...fs import files, logfile, unlinked
from ...model.bucket import ABSENT, BucketKey, Snapshot
from . import quarantine, records
from .records import HEADER_BYTES, VERSION, EventId, JournalPosition, Record

DIRECTORY = "journal"
NAMES = ("0.log", "1.log")
# The state before a change, if known; the record of the change; and its event id.
Step = tuple[Snapshot | None, Record, EventId]


class Journal:
    """Append records and sync them, on one thread. The methods raise the system's OSError."""

    def __init__(self, root: int, segment_bytes: int) -> None:
        self._size = segment_bytes
        with files.directory(root, (DIRECTORY,), create=True) as parent:
            self._fds = [logfile.open_log(parent, name, segment_bytes) for name in NAMES]
        texts = [logfile.read_log(fd) for fd in self._fds]
        segments = _parse(texts)
        for name, text, segment in zip(NAMES, texts, segments, strict=True):
            if segment is not None and segment.damaged:
                quarantine.keep_copy(root, f"journal-{name}", text)
        found = sorted((s for s in segments if s is not None), key=lambda s: s.generation)
        self.damaged = any(segment.damaged for segment in found)
        self.replay = _after_checkpoint(found)
        self._replays = bool(self.replay)
        self._generation = max((segment.generation for segment in found), default=0)
        newest_first = (segment.last_event_id() for segment in reversed(found))
        self.last_event_id = next((event_id for event_id in newest_first if event_id), EventId())
        newest = next(
            (i for i, segment in enumerate(segments) if found and segment is found[-1]), 1
        )
        # The next append begins a new segment, wherever this one ends.
        self._active, self._offset = newest, max(self._size, len(texts[newest]))
        self._opened_at = self.position

    @property
    def max_batch_bytes(self) -> int:
        """The size at which a batch has to be written before commits are added to it."""
        return self._size // 8

    @property
    def halfway(self) -> JournalPosition:
        """The middle of this segment."""
        return JournalPosition(self._generation, self._size // 2)

    @property
    def older_end(self) -> JournalPosition:
        """The position after all records in the segment that ``begin_segment`` overwrites."""
        return JournalPosition(self._generation, 0)

    @property
    def oldest(self) -> JournalPosition:
        """The position before all records in both segments."""
        return JournalPosition(self._generation - 1, 0)

    @property
    def position(self) -> JournalPosition:
        """The position of the next record, after all records so far."""
        return JournalPosition(self._generation, self._offset)

    def fits(self, length: int) -> bool:
        """Report whether so many bytes of framed payloads fit into the rest of the segment."""
        return self._offset + length <= self._size

    def append(self, payloads: list[bytes]) -> int:
        """Write records at the end and return their size; they are durable only after ``sync``.

        Raises OSError also if the file was removed, since a start would not find the records.
        """
        unlinked.check_linked(self._fds[self._active])
        text = b"".join(records.frame(self._generation, payload) for payload in payloads)
        logfile.write_at(self._fds[self._active], text, self._offset)
        self._offset += len(text)
        return len(text)

    def sync(self) -> None:
        logfile.sync_data(self._fds[self._active])

    def recycle(self, durable: JournalPosition) -> None:
        """Continue in the older segment; all changes before ``durable`` are durable in files."""
        self.begin_segment()
        self.append([records.encode_checkpoint(durable)])

    def checkpoint(self, durable: JournalPosition) -> None:
        """Append a checkpoint, if it fits, without a sync; a start replays only later records."""
        payload = records.encode_checkpoint(durable)
        if self.fits(records.framed_size(payload)):
            self.append([payload])

    def checkpoint_all(self) -> None:
        """Append a durable checkpoint after all records, unless nothing needs to be replayed."""
        if not self._replays and self.position == self._opened_at:
            return
        payload = records.encode_checkpoint(self.position)
        if not self.fits(records.framed_size(payload)):
            self.begin_segment()
        self.append([payload])
        self.sync()
        self._opened_at, self._replays = self.position, False

    def begin_segment(self) -> None:
        """Continue in the other segment, whose changes must be durable in files."""
        self._active = 1 - self._active
        self._generation += 1
        logfile.shorten(self._fds[self._active], self._size)
        header = records.header(VERSION, self._generation).ljust(HEADER_BYTES, b"\0")
        logfile.write_at(self._fds[self._active], header, 0)
        # The header is synced before any record, so that a damaged header has no record after it.
        self.sync()
        self._offset = HEADER_BYTES

    def find(self, key: BucketKey, end: JournalPosition | None = None) -> Record | None:
        """Return the newest record of a bucket; with an ``end``, call from any thread."""
        found = [record for _, record in self._records_until(end or self.position, key)]
        return found[-1] if found else None

    def keys(self, end: JournalPosition) -> set[BucketKey]:
        """Return the buckets in the log before ``end`` that were not deleted; on any thread."""
        keys: set[BucketKey] = set()
        for _, record in self._records_until(end, None):
            (keys.add if record.after.revision else keys.discard)(record.key)
        return keys

    def newest_since(self, position: JournalPosition) -> dict[BucketKey, Snapshot]:
        """Return the last state of each bucket with a record at or after a position."""
        found = self._records_until(self.position, None)
        return {record.key: record.after for place, record in found if not place < position}

    def trash_since(self, position: JournalPosition) -> list[Record]:
        """Return the deletions into the trash and the restores at or after a position."""
        found = self._records_until(self.position, None)
        return [
            record
            for place, record in found
            if not place < position and (record.trashed or record.restores)
        ]

    def changes_after(
        self, event_id: EventId, key: BucketKey | None, end: JournalPosition
    ) -> list[Step] | None:
        """Return the changes between an event and ``end``, of one bucket or of all.

        Return None if the log does not reach back that far. Call from any thread, at any time.
        """
        # The log is complete as long as no segment was overwritten.
        has_all = self._generation <= len(NAMES)
        steps: list[Step] | None = [] if event_id == EventId() and has_all else None
        known: dict[BucketKey, Snapshot] = {}
        start = JournalPosition(event_id.generation, event_id.offset)
        for position, record in self._records_until(end, key, start):
            if steps is not None and (key is None or record.key == key):
                steps.append((_before(record, known), record, _event_id(position, record)))
            elif position == start and record.after.etag == event_id.etag:
                steps = []
            known[record.key] = record.after
        return steps

    def _records_until(
        self, end: JournalPosition, key: BucketKey | None, besides: JournalPosition | None = None
    ) -> Iterator[tuple[JournalPosition, Record]]:
        """Yield records in order: all, or those of a bucket and the one at ``besides``.

        The latter is not completed, unless it is of the bucket.
        """
        begun = []
        for fd in self._fds:
            text = logfile.read_log(fd)
            generation = records.generation_of(text)
            if generation is not None:
                begun.append((generation, text))
        prefix = b"" if key is None else records.prefix(key)
        newest: dict[BucketKey, Snapshot] = {}
        for generation, text in sorted(begun):
            for offset, payload in records.payloads(text, generation, HEADER_BYTES):
                position = JournalPosition(generation, offset)
                if not position < end:
                    return
                if payload.startswith(records.CHECKPOINT):
                    continue
                if payload.startswith(prefix):
                    change = records.decode(payload)
                    record = change.completed(newest.get(change.key))
                    newest[record.key] = record.after
                    yield position, record
                elif position == besides:
                    yield position, records.decode(payload)

    def close(self) -> None:
        for fd in self._fds:
            logfile.close(fd)


@dataclass(frozen=True, slots=True)
class _Segment:
    """The content of a segment; ``damaged`` if a valid record follows the end of its log.

    A torn write cannot leave such a record.
    """

    text: bytes = field(repr=False)
    generation: int
    offsets: list[int]  # of the changes
    checkpoint: JournalPosition | None
    damaged: bool

    def changes_from(self, position: JournalPosition | None) -> Iterator[Record]:
        """Yield the changes at or after a position, or all without a position.

        Each record is decoded on demand. Decoding all records of a full journal at once would
        enlarge the process by 20 MiB for good. Differences are yet to be completed.
        """
        for offset in self.offsets:
            if position is None or not JournalPosition(self.generation, offset) < position:
                yield self._record(offset)

    def last_event_id(self) -> EventId | None:
        if not self.offsets:
            return None
        last = self.offsets[-1]
        return _event_id(JournalPosition(self.generation, last), self._record(last))

    def _record(self, offset: int) -> Record:
        payload = records.payload_at(self.text, self.generation, offset)
        assert payload is not None  # noqa: S101  (the parser found it)
        return records.decode(payload)


def _parse(texts: list[bytes]) -> list[_Segment | None]:
    """Parse all segments; None for an unused one. Raises JournalError for an unknown version.

    The generation of a segment with a damaged header is taken from its records.
    """
    generations = [records.generation_of(text) for text in texts]
    known = max((generation for generation in generations if generation is not None), default=0)
    segments: list[_Segment | None] = []
    for text, generation in zip(texts, generations, strict=True):
        if generation is not None:
            segments.append(_parse_segment(text, generation))
            continue
        found = (_parse_segment(text, g) for g in (known + 1, known - 1) if g > 0)
        segments.append(next((replace(s, damaged=True) for s in found if s.offsets), None))
    return segments


def _parse_segment(text: bytes, generation: int) -> _Segment:
    offsets: list[int] = []
    checkpoint, end = None, HEADER_BYTES
    for offset, payload in records.payloads(text, generation, HEADER_BYTES):
        if payload.startswith(records.CHECKPOINT):
            checkpoint = records.decode_checkpoint(payload)
        else:
            offsets.append(offset)
        end = offset + records.framed_size(payload)
    damaged = records.has_valid_after(text, generation, end)
    return _Segment(text, generation, offsets, checkpoint, damaged)


def _before(record: Record, known: dict[BucketKey, Snapshot]) -> Snapshot | None:
    """Return the state before a change, if known."""
    # An external edit has its own ETag as its base; the known state came before the edit.
    ingested = record.base == record.after.etag
    return ABSENT if record.base is None and not ingested else known.get(record.key)


def _event_id(position: JournalPosition, record: Record) -> EventId:
    return EventId(position.generation, position.offset, record.after.etag)


def _after_checkpoint(segments: list[_Segment]) -> list[Record]:
    """Return the records after the newest checkpoint, in the order of acknowledgement."""
    checkpoints = [s.checkpoint for s in segments if s.checkpoint is not None]
    newest = max(checkpoints, default=None)
    states: dict[BucketKey, Snapshot] = {}
    found = []
    for segment in segments:
        for change in segment.changes_from(newest):
            record = change.completed(states.get(change.key))
            states[record.key] = record.after
            found.append(record)
    return found
