"""A commit that waits, and a batch of commits with their outcomes and journal records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ...errors import BucketdError
from ...model.author import UNKNOWN, Author
from ...model.bucket import BucketKey, Snapshot
from ...model.changes import Change
from ...model.preconditions import Preconditions
from ...model.trashed import TrashedBucket
from . import records
from .records import JournalPosition, Record

# A change that keeps the value: so an external edit becomes a revision, and an unreadable file is
# restored.
INGEST = Change(lambda stored: stored, offloaded=True)


@dataclass(slots=True)
class Commit:
    """One change to commit; ``future`` receives the outcome, if anybody waits for it."""

    key: BucketKey
    change: Change
    preconditions: Preconditions
    automation: str | None = None
    author: Author = UNKNOWN
    future: asyncio.Future[Snapshot] | None = None


class Transition(NamedTuple):
    """One journaled change: the last published state, if known, and the new state."""

    key: BucketKey
    before: Snapshot | None
    after: Snapshot


@dataclass(slots=True)
class Batch:
    """The results of some commits; ``transitions`` has one entry for each of the ``payloads``.

    ``size`` is that of the payloads in the journal, ``whole_size`` the same if no payload were a
    difference to an earlier record, and ``start`` the position of the first one once it is in the
    journal. ``base_of`` returns the ETag of the state of a bucket that a difference may build upon.
    """

    base_of: Callable[[BucketKey], str | None] = lambda _key: None
    size: int = 0
    whole_size: int = 0
    start: JournalPosition | None = None
    newest: dict[BucketKey, Snapshot] = field(default_factory=dict)
    payloads: list[bytes] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    outcomes: list[tuple[Commit, Snapshot | BucketdError]] = field(default_factory=list)
    # The records of deletions and restores, in order.
    trash: list[Record] = field(default_factory=list)
    # The payloads that are differences to what the journal holds before them, by number.
    _differences: dict[int, Record] = field(default_factory=dict)

    def add(
        self,
        key: BucketKey,
        before: Snapshot,
        after: Snapshot,
        published: Snapshot | None,
        author: Author,
        trashed: TrashedBucket | None = None,
        restores: str | None = None,
    ) -> None:
        """Record a change; ``published`` is the state that watchers know, where that is known.

        ``trashed`` goes into the trash with it, and ``restores`` is the id of what comes out.
        """
        record, payload = Record(key, before.etag, after, author), None
        if trashed is not None or restores is not None:
            record = record._replace(trashed=trashed, restores=restores)
            self.trash.append(record)
        earlier = self.newest.get(key)
        base = self.base_of(key) if earlier is None else earlier.etag
        if base is not None and base == before.etag != after.etag and after.revision:
            payload = records.encode_difference(record, before.bucket)
        if payload is None:
            payload = records.encode(record)
        elif earlier is None:
            self._differences[len(self.payloads)] = record
            self.whole_size += after.bucket.size
        size = records.framed_size(payload)
        self.payloads.append(payload)
        self.size, self.whole_size = self.size + size, self.whole_size + size
        self.newest[key] = after
        self.transitions.append(Transition(key, published, after))

    def make_whole(self) -> None:
        """Let it build upon nothing in the journal: a new segment does not need the older one."""
        for number, record in self._differences.items():
            before, self.payloads[number] = self.payloads[number], records.encode(record)
            self.size += records.framed_size(self.payloads[number]) - records.framed_size(before)
        self._differences.clear()
