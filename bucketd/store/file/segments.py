"""What a segment of the journal holds, found in its bytes: where its log ends, and whether rightly.

A log ends at the first record that does not check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from . import records
from .records import HEADER_BYTES, JournalPosition, Record


@dataclass(frozen=True, slots=True)
class Log:
    """What one segment holds: where its changes begin and where it ends, and whether
    something valid stands behind that end, which no torn write explains."""

    text: bytes = field(repr=False)
    generation: int
    offsets: list[int]
    checkpoint: JournalPosition | None
    end: int
    damaged: bool

    def changes_after(
        self, place: JournalPosition | None
    ) -> Iterator[tuple[JournalPosition, Record]]:
        """The changes that do not lie before that place; all of them without one.

        Each is decoded when it is asked for: all at once would leave a start with full journals
        20 MiB that it never gives back.
        """
        for offset in self.offsets:
            position = JournalPosition(self.generation, offset)
            if place is None or not position < place:
                yield position, self._record(offset)

    def last(self) -> tuple[JournalPosition, Record] | None:
        """The newest change, if there is any."""
        if not self.offsets:
            return None
        return JournalPosition(self.generation, self.offsets[-1]), self._record(self.offsets[-1])

    def _record(self, offset: int) -> Record:
        payload = records.payload_at(self.text, self.generation, offset)
        assert payload is not None  # noqa: S101  (it was read there before)
        return records.decode(payload)


def _read_log(text: bytes) -> Log | None:
    """Parse a segment; None where it was never (wholly) begun.

    Raises JournalError for one of another version.
    """
    generation = records.generation_of(text)
    return None if generation is None else _read_records(text, generation)


def read_logs(texts: list[bytes]) -> list[Log | None]:
    """All segments; one whose header rotted is known by the records that stand behind it."""
    logs = [_read_log(text) for text in texts]
    known = max((log.generation for log in logs if log), default=0)
    for index, text in enumerate(texts):
        if logs[index] is None:
            found = [_read_records(text, g) for g in (known + 1, known - 1) if g > 0]
            logs[index] = next((replace(f, damaged=True) for f in found if f.offsets), None)
    return logs


def _read_records(text: bytes, generation: int) -> Log:
    offsets: list[int] = []
    checkpoint, end = None, HEADER_BYTES
    for offset, payload in records.payloads(text, generation, HEADER_BYTES):
        if payload.startswith(records.CHECKPOINT):
            checkpoint = records.decode_checkpoint(payload)
        else:
            offsets.append(offset)
        end = offset + records.framed_size(payload)
    damaged = records.valid_behind(text, generation, end)
    return Log(text, generation, offsets, checkpoint, end, damaged)
