"""A commit that waits, and a batch of commits with their outcomes and journal records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from ...errors import BucketdError
from ...model.bucket import BucketKey, Snapshot
from ...model.changes import Change
from ...model.preconditions import Preconditions
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
    future: asyncio.Future[Snapshot] | None = None


class Transition(NamedTuple):
    """One journaled change: the last published state, if known, and the new state."""

    key: BucketKey
    before: Snapshot | None
    after: Snapshot


@dataclass(slots=True)
class Batch:
    """The results of some commits; ``transitions`` has one entry for each of the ``payloads``.

    ``size`` is that of the payloads in the journal, and ``start`` the position of the first one
    once it is in the journal.
    """

    size: int = 0
    start: JournalPosition | None = None
    newest: dict[BucketKey, Snapshot] = field(default_factory=dict)
    payloads: list[bytes] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    outcomes: list[tuple[Commit, Snapshot | BucketdError]] = field(default_factory=list)

    def add(
        self, key: BucketKey, base: str | None, after: Snapshot, published: Snapshot | None
    ) -> None:
        """Record a change of the state with the ETag ``base``."""
        payload = records.encode(Record(key, base, after))
        self.payloads.append(payload)
        self.size += records.framed_size(payload)
        self.newest[key] = after
        self.transitions.append(Transition(key, published, after))
