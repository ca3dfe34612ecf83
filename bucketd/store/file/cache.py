"""Snapshots of recently used buckets, limited in bytes; the least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ...fs.files import StatKey
from ...model.bucket import BucketKey, Snapshot

# The bytes of an entry besides its bucket, measured by the growth of the process.
_OVERHEAD = 1100


class Entry(NamedTuple):
    """A snapshot, the file that holds it, and whether the daemon wrote that file.

    A ``stat_key`` of None with ``verified`` False means that another program removed the file.
    ``before`` is the state before another program changed the file, if known.
    """

    snapshot: Snapshot
    stat_key: StatKey | None
    verified: bool
    before: Snapshot | None = None


class Cache:
    """A least-recently-used map from key to Entry, for one thread at a time."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        # Each entry stands with the bytes that it was counted with.
        self._entries: OrderedDict[BucketKey, tuple[Entry, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: BucketKey, is_use: bool = True) -> Entry | None:
        """Return the entry of a bucket; ``is_use`` says whether that counts as a use."""
        found = self._entries.get(key)
        if found is None:
            return None
        if is_use:
            self._entries.move_to_end(key)
        return found[0]

    def entries(self) -> list[tuple[BucketKey, Entry]]:
        """Return all entries without counting a use."""
        return [(key, entry) for key, (entry, _) in self._entries.items()]

    def put(self, key: BucketKey, entry: Entry) -> None:
        self.drop(key)
        cost = _cost(entry)
        self._entries[key] = entry, cost
        self.bytes += cost
        while self.bytes > self._max and self._entries:
            self.drop(next(iter(self._entries)))

    def drop(self, key: BucketKey) -> None:
        gone = self._entries.pop(key, None)
        if gone is not None:
            self.bytes -= gone[1]


def _cost(entry: Entry) -> int:
    before = 0 if entry.before is None else entry.before.bucket.memory
    return entry.snapshot.bucket.memory + before + _OVERHEAD
