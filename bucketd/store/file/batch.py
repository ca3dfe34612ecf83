"""A commit that waits, and a batch of commits with their outcomes and journal records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ...errors import BucketdError
from ...model.author import UNKNOWN, Author
from ...model.bucket import ABSENT, BucketKey, Snapshot
from ...model.changes import Change
from ...model.preconditions import Preconditions
from ...model.revisions import NO_HISTORY, HistoryLimits, kept_inverse
from ...model.trashed import TrashedBucket
from . import records
from .records import JournalPosition, Origin, Record

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
    """One journaled change: the last published state, if known, the new state, and who made it.

    ``at`` is the time of the change where that of the state is another; ``undoes`` is the revision
    that it takes back; ``trashed`` went into the trash with it, and ``restored`` came out of it.
    """

    key: BucketKey
    before: Snapshot | None
    after: Snapshot
    author: Author
    at: str | None = None
    undoes: int | None = None
    trashed: TrashedBucket | None = None
    restored: TrashedBucket | None = None

    @property
    def is_change(self) -> bool:
        """Report whether there is another state now; an unreadable file may have been restored."""
        return self.before is None or self.before.etag != self.after.etag


@dataclass(slots=True)
class Batch:
    """The results of some commits; ``transitions`` has one entry for each of the ``payloads``.

    ``size`` is that of the payloads in the journal, ``whole_size`` the same if no payload were a
    difference to an earlier record, and ``start`` the position of the first one once it is in the
    journal. ``base_of`` returns the ETag of the state of a bucket that a difference may build upon.
    Whole records have what a ``history`` within these limits needs of the state before.
    """

    base_of: Callable[[BucketKey], str | None] = lambda _key: None
    history: HistoryLimits = NO_HISTORY
    size: int = 0
    whole_size: int = 0
    start: JournalPosition | None = None
    newest: dict[BucketKey, Snapshot] = field(default_factory=dict)
    payloads: list[bytes] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    outcomes: list[tuple[Commit, Snapshot | BucketdError]] = field(default_factory=list)
    # The records of deletions and restores, in order.
    trash: list[Record] = field(default_factory=list)
    # The payloads that build upon what the journal holds before them, by number, each with the
    # state before.
    _dependent: dict[int, tuple[Record, Snapshot]] = field(default_factory=dict)

    def add(
        self,
        key: BucketKey,
        before: Snapshot,
        after: Snapshot,
        published: Snapshot | None,
        author: Author,
        at: str | None = None,
        undoes: int | None = None,
        trashed: TrashedBucket | None = None,
        restored: TrashedBucket | None = None,
    ) -> None:
        """Record a change; ``published`` is the state that watchers know, where that is known.

        It is ``before``, unless another program made the change, or the file is not readable.
        ``trashed`` goes into the trash with the change, and ``restored`` comes out of it.
        """
        record, payload = Record(key, before.etag, after, author, None, at, undoes), None
        if trashed is not None or restored is not None:
            restores = None if restored is None else restored.id
            record = record._replace(trashed=trashed, restores=restores)
            self.trash.append(record)
        # A restored bucket goes on where it ended, for its history.
        earlier_state = published if restored is None else restored.last
        earlier = self.newest.get(key)
        base = self.base_of(key) if earlier is None else earlier.etag
        if earlier_state is not before or base is None:
            record = self._with_origin(record, earlier_state)
        if base is not None and base == before.etag != after.etag and after.revision:
            payload = records.encode_difference(record, before.bucket)
        if earlier is None and base is not None:
            self._dependent[len(self.payloads)] = record, before
            self.whole_size += 0 if payload is None else after.bucket.size
            self.whole_size += min(before.bucket.size, self.history.bytes)
        if payload is None:
            payload = records.encode(record)
        size = records.framed_size(payload)
        self.payloads.append(payload)
        self.size, self.whole_size = self.size + size, self.whole_size + size
        self.newest[key] = after
        self.transitions.append(
            Transition(key, published, after, author, at, undoes, trashed, restored)
        )

    def _with_origin(self, record: Record, before: Snapshot | None) -> Record:
        """Return a record with what its line in the history needs of the state before."""
        after = record.after
        if not (self.history and after.revision) or before is ABSENT:
            return record
        if before is not None and before.etag == after.etag:
            return record
        if before is None:
            return record._replace(origin=Origin((0, None), None))
        old, new = before.bucket, after.bucket
        size = old.size + new.size
        inverse = kept_inverse(old.members, new.members, size, self.history.bytes)
        return record._replace(origin=Origin((before.revision, before.etag), inverse))

    def make_whole(self) -> None:
        """Let it build upon nothing in the journal: a new segment does not need the older one."""
        for number, (record, before) in self._dependent.items():
            old = self.payloads[number]
            whole = record if record.origin is not None else self._with_origin(record, before)
            self.payloads[number] = records.encode(whole)
            self.size += records.framed_size(self.payloads[number]) - records.framed_size(old)
        self._dependent.clear()
