"""Ready-made snapshots of recently used buckets, bounded by bytes; the oldest use goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ...fs.files import StatKey
from ...model.bucket import BucketKey, Snapshot

_OVERHEAD = 1100  # bytes that one entry costs besides its bucket, by the growth of the process


class Entry(NamedTuple):
    """A snapshot, the file that it is the content of, and whether the daemon wrote that file.

    ``stat_key`` None, ``verified`` False: a file that somebody else removed.
    ``before``: what was there before somebody else changed it, where that is known.
    """

    snapshot: Snapshot
    stat_key: StatKey | None
    verified: bool
    before: Snapshot | None = None


class Cache:
    """Least-recently-used map from key to Entry; its user keeps threads apart."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._entries: OrderedDict[BucketKey, Entry] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: BucketKey) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def entries(self) -> list[tuple[BucketKey, Entry]]:
        """All of them, which counts as no use."""
        return list(self._entries.items())

    def put(self, key: BucketKey, entry: Entry) -> None:
        self.drop(key)
        self._entries[key] = entry
        self.bytes += _cost(entry)
        while self.bytes > self._max and self._entries:
            self.drop(next(iter(self._entries)))

    def drop(self, key: BucketKey) -> None:
        gone = self._entries.pop(key, None)
        if gone is not None:
            self.bytes -= _cost(gone)


def _cost(entry: Entry) -> int:
    before = 0 if entry.before is None else len(entry.before.bucket)
    return len(entry.snapshot.bucket) + before + _OVERHEAD
