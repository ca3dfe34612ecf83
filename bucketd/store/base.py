"""The seam: what the layers above need of a store, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..model.bucket import BucketKey, Snapshot
from ..model.changes import Change
from ..model.preconditions import Preconditions
from ..stats import Histogram


@dataclass(frozen=True, slots=True)
class Filter:
    """Select buckets by their names; None matches every name."""

    device: str | None = None
    job: str | None = None
    automation: str | None = None

    def matches(self, device: str, job: str | None, automation: str | None) -> bool:
        """Report whether a bucket with these names is selected."""
        return (
            self.device in (None, device)
            and self.job in (None, job)
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
    """Some rows in the store's own stable order, and where to go on (None at the end).

    ``unreadable`` names the files that stand where a bucket should be but are none.
    """

    rows: list[BucketInfo]
    next_cursor: str | None
    unreadable: list[str]


class ChangeEvent(NamedTuple):
    """A bucket has changed. ``before`` None: what it was before is not known.

    ``event_id`` names this place in the order of all changes; ``since`` goes on from there, in a
    later process too. Of one ``shard`` changes are told in their order, and ``number`` says which
    this is; of several in any.
    """

    key: BucketKey
    before: Snapshot | None
    after: Snapshot
    event_id: str
    shard: int = 0
    number: str = ""

    @property
    def place(self) -> str:
        """The same for the same change of one shard, and for no other."""
        return self.number or self.event_id


class SchemaChange(NamedTuple):
    """The schema of an automation as of a revision of the shared store; None: removed."""

    automation: str
    document: Any
    revision: int


class SchemaList(NamedTuple):
    """All schemas as of a revision, and the automations whose schema cannot be read."""

    revision: int
    schemas: list[SchemaChange]
    unreadable: frozenset[str]


class FeedInterrupted(Exception):
    """A stream of changes ended: read everything again, then follow the changes from there."""


class SharedSchemas(Protocol):
    """Schemas that all hosts of a store share. Each method raises ``BucketdError``."""

    problem: str | None  # of the task that follows the changes, for ``Store.check``

    async def put(self, automation: str, document: Any) -> SchemaChange:
        """Set a schema on all hosts; Internal where the outcome is unknown."""

    async def remove(self, automation: str) -> tuple[SchemaChange, bool]:
        """Remove a schema on all hosts, and return whether there was one."""

    async def read_all(self) -> SchemaList:
        """Return all schemas; FeedInterrupted without an answer."""

    def changes_after(self, revision: int) -> AsyncGenerator[list[SchemaChange], None]:
        """Yield the changes after a revision; FeedInterrupted where they break off."""


class Subscriber(Protocol):
    """Who is told of changes, on the event loop. It must not wait, and not raise."""

    def tell(self, changed: ChangeEvent) -> None:
        """One change, once it is durable; in the order of all changes."""

    def lost(self) -> None:
        """Changes were made of which nothing is known."""

    @property
    def interests(self) -> Set[BucketKey] | None:
        """The buckets of which changes made by somebody else should be looked for; None: all."""


class Store(Protocol):
    """Snapshots out, changes in; every method raises only ``BucketdError``."""

    def read(self, key: BucketKey, stale_ok: bool = False) -> Snapshot | Awaitable[Snapshot]:
        """Return what is stored under the key, ``ABSENT`` when nothing is; awaitable if it takes
        waiting, as ``settled`` does.

        ``stale_ok``: where the store cannot be asked, what was stored not long ago, with
        ``stale_seconds``.
        """

    def cached(self, key: BucketKey) -> Snapshot | None:
        """Return what was known last, without looking: a guess, from any thread; None: unknown."""

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
    ) -> asyncio.Future[Snapshot]:
        """Read, check the preconditions, change and write as one step; done once it is durable.

        Commits of one bucket happen one after another. ``automation`` is recorded with it.
        """

    @property
    def event_id(self) -> str:
        """Of the newest change that the listener was told of, once it has returned from that."""

    def subscribe(self, listener: Subscriber) -> None:
        """From here on tell this one of every change, and of edits by others, too."""

    async def wait_until_watching(self, key: BucketKey | None) -> None:
        """Return once the listener is told of all that changes from then on, of one or of all."""

    async def changes_after(self, event_id: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        """The changes of one bucket, or of all, after that event id; None where that is not known.

        All those that ``event_id`` of this moment covers, and maybe some that are still to be told.
        """

    def includes(self, event_id: str, changed: ChangeEvent) -> bool:
        """Whether who goes on from that event id, by ``since``, was told of this change before.

        Then it was told so by another way than this listener, which hears of it only now.
        """

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        """At most ``limit`` rows after the cursor; fewer, with a cursor, on a long search."""

    async def catch_up(self) -> None:
        """Return once the listener is told of all that has changed by now, where that can be."""

    async def check(self) -> dict[str, Any]:
        """Health and counts, for the status page."""

    def shared_schemas(self) -> SharedSchemas | None:
        """Return the schemas that the hosts of this store share; None for a store of one host."""

    async def run_background(self, stop: asyncio.Event) -> None:
        """Do what the store has to do beside requests, until ``stop``."""

    @property
    def histograms(self) -> Mapping[str, Histogram]:
        """Return how long commits took and how many came together, by the names of metrics."""

    @property
    def stalled_seconds(self) -> float:
        """Return how long the engine has been at one step; it is stuck if that keeps growing."""

    @property
    def problem(self) -> str | None:
        """Return why the store refuses requests now, if it does."""

    async def close(self) -> None:
        """Finish what was accepted, then let go of everything."""


async def settled(found: Snapshot | Awaitable[Snapshot]) -> Snapshot:
    """Return what ``Store.read`` has found, after waiting where that takes waiting."""
    return found if isinstance(found, Snapshot) else await found
