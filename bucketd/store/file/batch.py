"""Commits on their way into the journal: one that waits, and what a round of them comes to."""

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

# Takes the file as it is: an external edit becomes a revision, an unreadable file is restored.
INGEST = Change(lambda stored: stored, offloaded=True)


@dataclass(slots=True)
class Commit:
    """One change that waits for its outcome; without a ``future`` nobody waits."""

    key: BucketKey
    change: Change
    preconditions: Preconditions
    automation: str | None = None
    future: asyncio.Future[Snapshot] | None = None


class Transition(NamedTuple):
    """One journaled change: the last state that was published, where known, and the new one."""

    key: BucketKey
    before: Snapshot | None
    after: Snapshot


@dataclass(slots=True)
class Batch:
    """What some commits come to; ``transitions`` has one entry for each of the ``payloads``."""

    size: int = 0  # of the payloads in the journal
    start: JournalPosition | None = None  # of the first payload, once it is in the journal
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
