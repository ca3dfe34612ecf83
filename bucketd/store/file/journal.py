"""The commit journal: what is acknowledged stands here before it stands in files.

Two segments below ``<state>/journal/``, preallocated and zero-filled, so that
``fdatasync`` writes data alone; their format stands in ``records``. When one is
full, the other is begun anew, once all that it held stands durably in files.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...fs import files, logfile, unlinked
from ...model.bucket import ABSENT, BucketKey, Snapshot
from . import quarantine, records, segments
from .records import HEADER_BYTES, VERSION, Mark, Position, Record
from .segments import Log

DIRECTORY = "journal"
NAMES = ("0.log", "1.log")
# The state before it, as far as that is known; what was journaled; and where.
Step = tuple[Snapshot | None, Record, Mark]


class Journal:
    """Append and sync. Used by one thread; raises OSError as the system gives it."""

    def __init__(self, root: int, segment_bytes: int) -> None:
        self._size = segment_bytes
        with files.directory(root, (DIRECTORY,), create=True) as parent:
            self._fds = [logfile.open_log(parent, name, segment_bytes) for name in NAMES]
        texts = [logfile.read_log(fd) for fd in self._fds]
        logs = segments.read_logs(texts)
        for name, text, log in zip(NAMES, texts, logs, strict=True):
            if log is not None and log.damaged:
                quarantine.keep_copy(root, f"journal-{name}", text)
        found = sorted((log for log in logs if log is not None), key=lambda log: log.generation)
        self.damaged = any(log.damaged for log in found)
        self.replay = _after_checkpoint(found)
        self._replays = bool(self.replay)
        self._generation = max((log.generation for log in found), default=0)
        newest_first = (log.last() for log in reversed(found))
        self.last = next((_mark(*last) for last in newest_first if last), Mark())
        newest = next((i for i, log in enumerate(logs) if log and log is found[-1]), 1)
        # The next append begins a new segment, wherever this one ends.
        self._active, self._offset = newest, max(self._size, len(texts[newest]))
        self._opened_at = self.position

    @property
    def nothing_to_note(self) -> bool:
        """Whether a stop now would leave nothing to replay, just as it is."""
        return not self._replays and self.position == self._opened_at

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
        logfile.shorten(self._fds[self._active], self._size)
        header = records.header(VERSION, self._generation).ljust(HEADER_BYTES, b"\0")
        logfile.write_at(self._fds[self._active], header, 0)
        # On its own, so that a header which does not check has no record behind it.
        self.sync()
        self._offset = HEADER_BYTES

    def append(self, payloads: list[bytes]) -> int:
        """Write records at the end; how many bytes. They are durable only after ``sync``.

        Raises OSError, also where the file has been removed: what nobody finds again is not kept.
        """
        unlinked.check_linked(self._fds[self._active])
        text = b"".join(records.frame(self._generation, payload) for payload in payloads)
        logfile.write_at(self._fds[self._active], text, self._offset)
        self._offset += len(text)
        return len(text)

    def sync(self) -> None:
        logfile.sync_data(self._fds[self._active])

    def note_all(self) -> None:
        """That all before here stands durably in files, durably: no start looks at it again."""
        payload = records.encode_checkpoint(self.position)
        if not self.fits(records.framed(payload)):
            self.begin_segment()
        self.append([payload])
        self.sync()
        self._opened_at, self._replays = self.position, False

    def find(self, key: BucketKey) -> Record | None:
        """The newest record of a bucket that either segment still holds."""
        found = [record for _, record in self._records_until(self.position, key)]
        return found[-1] if found else None

    def newest_since(self, place: Position) -> dict[BucketKey, Snapshot]:
        """The last state of each bucket that was journaled behind that place."""
        found = self._records_until(self.position, None)
        return {record.key: record.after for position, record in found if not position < place}

    def changes_after(self, mark: Mark, key: BucketKey | None, end: Position) -> list[Step] | None:
        """What was journaled after the mark and before ``end``, of one bucket or of all.

        None where the log does not go back as far. From any thread, at any time.
        """
        steps: list[Step] | None = [] if mark == Mark() and self._has_all else None
        known: dict[BucketKey, Snapshot] = {}
        place = Position(mark.generation, mark.offset)
        for position, record in self._records_until(end, key, place):
            if steps is not None and (key is None or record.key == key):
                steps.append((_before(record, known), record, _mark(position, record)))
            elif position == place and record.after.etag == mark.etag:
                steps = []
            known[record.key] = record.after
        return steps

    @property
    def _has_all(self) -> bool:
        """Whether nothing was ever overwritten."""
        return self._generation <= len(NAMES)

    def _records_until(
        self, end: Position, key: BucketKey | None, besides: Position | None = None
    ) -> Iterator[tuple[Position, Record]]:
        """In their order: those of the bucket, if one is named, and the one at that place."""
        begun = []
        for fd in self._fds:
            text = logfile.read_log(fd)
            generation = records.generation_of(text)
            if generation is not None:
                begun.append((generation, text))
        wanted = b"" if key is None else records.beginning(key)
        for generation, text in sorted(begun):
            for offset, payload in records.payloads(text, generation, HEADER_BYTES):
                position = Position(generation, offset)
                if not position < end:
                    return
                if not payload.startswith(records.CHECKPOINT) and (
                    payload.startswith(wanted) or position == besides
                ):
                    yield position, records.decode(payload)

    def close(self) -> None:
        for fd in self._fds:
            logfile.close(fd)


def _before(record: Record, known: dict[BucketKey, Snapshot]) -> Snapshot | None:
    """The state before a change, where that is known."""
    adopted = record.base == record.after.etag  # made by somebody else: what is known came before
    return ABSENT if record.base is None and not adopted else known.get(record.key)


def _mark(position: Position, record: Record) -> Mark:
    return Mark(position.generation, position.offset, record.after.etag)


def _after_checkpoint(logs: list[Log]) -> list[Record]:
    """What recovery has to look at, in the order it was acknowledged."""
    marks = [log.checkpoint for log in logs if log.checkpoint is not None]
    since = max(marks, default=None)
    return [record for log in logs for _, record in log.changes_after(since)]
