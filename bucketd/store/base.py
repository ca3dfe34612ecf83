"""The interface between the store and the layers above it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..model.author import UNKNOWN, Author
from ..model.bucket import BucketKey, Snapshot
from ..model.changes import Change
from ..model.preconditions import Preconditions
from ..model.revisions import History
from ..model.trashed import TrashedBucket, TrashInfo
from ..stats import Histogram
from .holds import Hold, HoldQueue


@dataclass(frozen=True, slots=True)
class Filter:
    """Select buckets by their names; None matches every name, the job "" device buckets."""

    device: str | None = None
    job: str | None = None
    automation: str | None = None

    def matches(self, device: str, job: str | None, automation: str | None) -> bool:
        """Report whether a bucket with these names is selected."""
        return (
            self.device in (None, device)
            and self.job in (None, job or "")
            and self.automation in (None, automation)
        )


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """One stored bucket in a list; ``size`` is its compact JSON in bytes."""

    device: str
    job: str | None
    automation: str | None
    revision: int
    size: int
    updated_at: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows in the store's own stable order, and the cursor of the next page (None at the end).

    ``unreadable`` names the entries that are not valid buckets.
    """

    rows: list[BucketInfo]
    next_cursor: str | None
    unreadable: list[str]


class ChangeEvent(NamedTuple):
    """One change of a bucket; ``before`` is None if the state before is unknown.

    ``event_id`` is the position in the order of all changes, from which ``changes_after``
    continues, also in a later process. The changes of one ``shard`` are published in order, and
    ``number`` identifies a change among them; there is no order between shards.
    """

    key: BucketKey
    before: Snapshot | None
    after: Snapshot
    event_id: str
    shard: int = 0
    number: str = ""

    @property
    def place(self) -> str:
        """Return the identifier of this change among those of its shard."""
        return self.number or self.event_id


class SchemaChange(NamedTuple):
    """The schema of an automation as of a revision of the shared store; None: removed.

    ``tolerates``: a violation that stood in a bucket before a write does not refuse the write.
    """

    automation: str
    document: Any
    revision: int
    tolerates: bool = False


class SchemaList(NamedTuple):
    """All schemas as of a revision, and the automations whose schema cannot be read."""

    revision: int
    schemas: list[SchemaChange]
    unreadable: frozenset[str]


class FeedInterrupted(Exception):
    """A stream of changes ended; read all schemas again, then follow the changes from there."""


class SharedSchemas(Protocol):
    """Schemas that all hosts of a store share. Each method raises ``BucketdError``."""

    # Why the task that follows the changes fails, for ``Store.check``.
    problem: str | None

    async def put(self, automation: str, document: Any, tolerates: bool = False) -> SchemaChange:
        """Set a schema on all hosts; raise Internal if the outcome is unknown."""

    async def remove(self, automation: str) -> tuple[SchemaChange, bool]:
        """Remove a schema on all hosts, and return whether there was one."""

    async def read_all(self) -> SchemaList:
        """Return all schemas; raise FeedInterrupted without an answer."""

    def changes_after(self, revision: int) -> AsyncGenerator[list[SchemaChange], None]:
        """Yield the changes after a revision; raise FeedInterrupted where they break off."""


class HoldStore(Protocol):
    """The queue of holds, which all hosts of a store share. Use on the event loop.

    ``queue`` has all entries that this host knows. Methods raise only ``BucketdError``.
    """

    queue: HoldQueue

    async def add(self, hold: Hold) -> None:
        """Add an entry behind all others; return once everybody before it is known."""

    async def confirm(self, hold: Hold) -> None:
        """Return once the first in the queue may be told so: no write that an exclusive hold
        refuses is still under way. Raises HoldLost if it has ended meanwhile.
        """

    def release(self, hold: Hold) -> asyncio.Future[None]:
        """End an entry, once its own writes in progress are done; the future tells when.

        No write with its fence is applied from now on.
        """

    async def adopt(self, hold: Hold) -> None:
        """Continue a hold of this host's earlier daemon. Raises HoldLost if it has ended."""

    async def refresh(self) -> None:
        """Return once the queue has all entries of all hosts, as of now."""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """An entry of the quarantine; ``kind`` is file, directory or other, ``kept_at`` since when."""

    id: str
    kind: str
    size: int
    kept_at: str | None


class Quarantine(Protocol):
    """The files that the store found damaged or in its way, kept unchanged for people.

    Call from a worker thread; each method raises ``BucketdError``.
    """

    def entries(self) -> list[KeptFile]:
        """Return all entries, the newest first."""

    def read(self, name: str) -> tuple[KeptFile, bytes]:
        """Return a file and its content; raise NotFound, or TooLarge for a very large one."""

    def drop(self, name: str) -> None:
        """Remove an entry for good; raise NotFound."""


class TrashPage(NamedTuple):
    """Some deleted buckets, the newest first, and the cursor of the next page (None at the end).

    ``unreadable`` names the entries that are not valid.
    """

    rows: list[TrashInfo]
    next_cursor: str | None
    unreadable: list[str]


class TrashStore(Protocol):
    """Deleted buckets, which a commit puts in and takes out. Methods raise only ``BucketdError``.

    See ``Change.trash_days`` and ``Change.restores``.
    """

    async def list(self, only: Filter, cursor: str | None, limit: int) -> TrashPage:
        """Return at most ``limit`` rows after the cursor; a long search returns fewer rows."""

    async def read(self, trash_id: str) -> TrashedBucket:
        """Return a deleted bucket. Raises NotFound."""

    async def newest(self, key: BucketKey) -> TrashedBucket | None:
        """Return the newest deletion of a bucket; None if the trash has none."""

    async def remove(self, trash_id: str) -> None:
        """Delete for good. Raises NotFound."""

    async def expire(self, is_over: Callable[[float], bool]) -> int:
        """Delete for good what was deleted at a time that is over; return how many that were."""


class Subscriber(Protocol):
    """Receive changes, on the event loop. The methods must neither block nor raise."""

    def publish(self, changed: ChangeEvent) -> None:
        """Receive one change, once it is durable; changes come in the order of a shard."""

    def gap(self) -> None:
        """Receive the notice that the store has missed changes."""

    @property
    def interests(self) -> Set[BucketKey] | None:
        """Return the buckets for which the store should watch for edits by others; None: all."""


class Store(Protocol):
    """Read snapshots and commit changes; every method raises only ``BucketdError``."""

    def read(self, key: BucketKey, stale_ok: bool = False) -> Snapshot | Awaitable[Snapshot]:
        """Return the stored snapshot or ``ABSENT``; an awaitable of it if the store has to wait
        (see ``settled``).

        ``stale_ok`` allows a value read earlier, with its ``stale_seconds``, while the store is
        unavailable.
        """

    def cached(self, key: BucketKey) -> Snapshot | None:
        """Return the last known value without a read, on any thread; None: unknown."""

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
        author: Author = UNKNOWN,
    ) -> asyncio.Future[Snapshot]:
        """Read, check the preconditions, change and write as one step; return its future.

        The future is done once the change is durable. The fences of ``preconditions``, and the
        exclusive holds of others, are checked in this step, too: HoldLost, Held.

        Commits of one bucket happen in order. ``automation`` is recorded with the bucket, and
        ``author`` with the change.
        """

    async def history(self, key: BucketKey) -> History:
        """Return a bucket with the changes that led to it, as far as they are kept."""

    @property
    def event_id(self) -> str:
        """Return the event id of the newest change that the subscriber has received."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Publish every later change to this subscriber, including edits by other programs."""

    async def wait_until_watching(self, key: BucketKey | None) -> None:
        """Return once every later change of one bucket, or of all, will be published."""

    async def changes_after(self, event_id: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        """Return the changes of one bucket, or of all, after an event id; None if unknown.

        The result has every change that was published before the call, and may have some that
        will be published later.
        """

    def includes(self, event_id: str, changed: ChangeEvent) -> bool:
        """Report whether a client that resumes after an event id already has this change.

        It does if another host published the change earlier than this host.
        """

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        """Return at most ``limit`` rows after the cursor; a long search returns fewer rows."""

    async def catch_up(self) -> None:
        """Return once every change made until now is published, if that is possible."""

    async def check(self) -> dict[str, Any]:
        """Return health and counts, for the status document."""

    @property
    def holds(self) -> HoldStore:
        """Return the queue of holds."""

    @property
    def trash(self) -> TrashStore:
        """Return the deleted buckets that can be restored."""

    def shared_schemas(self) -> SharedSchemas | None:
        """Return the schemas that the hosts of this store share; None for a store of one host."""

    @property
    def quarantine(self) -> Quarantine | None:
        """Return the quarantine; None for a store that keeps no files."""

    async def run_background(self, stop: asyncio.Event) -> None:
        """Run the store's background work until ``stop``."""

    @property
    def histograms(self) -> Mapping[str, Histogram]:
        """Return the histograms of commits, by the names of their metrics."""

    @property
    def stalled_seconds(self) -> float:
        """Return the seconds since the engine's current step began; growth means that it hangs."""

    @property
    def problem(self) -> str | None:
        """Return why the store refuses requests now, if it does."""

    async def close(self) -> None:
        """Finish the accepted commits, then release everything."""


async def settled(found: Snapshot | Awaitable[Snapshot]) -> Snapshot:
    """Return the snapshot of ``Store.read``; wait for it if the store has to."""
    return found if isinstance(found, Snapshot) else await found
