"""Keep buckets in an etcd cluster, one key each, shared by the daemons of many hosts.

Every read is linearizable. A change is a compare-and-swap on the key's ``mod_revision``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ...concurrency import KeyedLocks
from ...errors import BucketdError, Internal, Overloaded
from ...model.author import UNKNOWN, Author
from ...model.bucket import BucketKey, Snapshot
from ...model.changes import Change
from ...model.preconditions import Preconditions
from ...model.revisions import History
from ...stats import Histogram
from ..base import ChangeEvent, Filter, Page, Subscriber
from ..holds import HoldQueue
from . import history_keys
from .client import EtcdClient, EtcdOptions, Unavailable
from .holds import EtcdHolds
from .idempotency import IdempotencyKeys
from .listing import Listing
from .reader import Reader
from .schemas import EtcdSchemas
from .session import Session
from .stale_cache import StaleCache, StaleCacheUpdater
from .topology import ClusterTopology, Shard
from .trash import EtcdTrash
from .watch import Watch, includes
from .writer import Write, Writer


class EtcdStore:
    """A store in one etcd cluster. Use from one event loop, and ``close`` when done."""

    def __init__(
        self, options: EtcdOptions, shard: Shard | None = None, queue: HoldQueue | None = None
    ) -> None:
        self._options, self._client = options, EtcdClient(options)
        self._topology = ClusterTopology(self._client, shard or Shard())
        self._session = Session(self._client)
        self._watch = Watch(self._client, self._session)
        self._stale_cache = StaleCache(options.stale_seconds, options.stale_bytes)
        self._reader = Reader(self._client, self._topology, self._stale_cache)
        idempotency_keys = IdempotencyKeys(self._client, self._session)
        queue = HoldQueue() if queue is None else queue
        self.holds = EtcdHolds(self._client, self._session, self._topology, queue)
        self.trash = EtcdTrash(self._client, self._reader)
        self._writer = Writer(self._client, self._reader, idempotency_keys, self.holds, self.trash)
        self._listing = Listing(self._client, self._reader)
        self._schemas = EtcdSchemas(self._client)
        self._locks = KeyedLocks()
        # The histograms measure a journal; this engine has none.
        self.histograms: dict[str, Histogram] = {}
        self.stalled_seconds = 0.0

    @property
    def problem(self) -> str | None:
        return self._reader.unavailable or self._topology.problem

    @property
    def event_id(self) -> str:
        return self._watch.event_id

    def subscribe(self, subscriber: Subscriber) -> None:
        self._watch.subscribe(StaleCacheUpdater(subscriber, self._stale_cache))

    @property
    def quarantine(self) -> None:
        """Return None, since values that are damaged stay in the cluster."""
        return None

    def shared_schemas(self) -> EtcdSchemas:
        return self._schemas

    async def run_background(self, stop: asyncio.Event) -> None:
        """Announce this host to the others until ``stop``."""
        await self._session.run(stop)

    async def wait_until_watching(self, _key: BucketKey | None) -> None:
        try:
            await self._topology.verify(self._client.deadline())
            await self._watch.wait_until_watching()
        except (Unavailable, TimeoutError) as error:
            raise _cannot_watch(error) from error

    async def changes_after(self, event_id: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        try:
            return await self._watch.changes_after(event_id, key)
        except (Unavailable, TimeoutError) as error:
            raise _cannot_watch(error) from error

    def includes(self, event_id: str, changed: ChangeEvent) -> bool:
        return includes(event_id, changed)

    async def catch_up(self) -> None:
        if self._reader.unavailable is None:
            with contextlib.suppress(BucketdError, Unavailable, TimeoutError):
                await self._watch.catch_up()

    def cached(self, _key: BucketKey) -> Snapshot | None:
        # Another host may have changed the bucket since it was read.
        return None

    async def read(self, key: BucketKey, stale_ok: bool = False) -> Snapshot:
        reader = self._reader
        if not stale_ok:
            return (await reader.read(key, self._client.deadline())).snapshot
        return await self._stale_cache.read(
            key,
            lambda: reader.read(key, self._client.deadline()),
            lambda: reader.unavailable is not None,
        )

    async def history(self, key: BucketKey) -> History:
        options = self._options
        return await history_keys.read(
            self._reader, options.prefix, options.history, key, self._client.deadline()
        )

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
        author: Author = UNKNOWN,
    ) -> asyncio.Future[Snapshot]:
        return asyncio.ensure_future(self._commit(key, change, preconditions, automation, author))

    async def _commit(
        self,
        key: BucketKey,
        change: Change,
        guard: Preconditions,
        automation: str | None,
        author: Author,
    ) -> Snapshot:
        deadline = self._client.deadline()
        try:
            async with self._locks.lock(key, deadline):
                try:
                    write = Write(key, change, guard, automation, author)
                    return await self._writer.commit(write, deadline)
                except (Internal, asyncio.CancelledError):
                    # The change may have been applied, so the cached value may be outdated.
                    self._stale_cache.forget(key)
                    raise
        except TimeoutError:
            raise Overloaded(
                f"cannot change {key}: earlier changes of it still wait for etcd; nothing "
                "was changed; try again"
            ) from None

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        return await self._listing.page(only, cursor, limit)

    async def check(self) -> dict[str, Any]:
        counts: dict[str, Any] = {}
        of_hosts: list[str] = []
        deadline = self._client.deadline()
        with contextlib.suppress(BucketdError, Unavailable):
            counts.update(await self._listing.counts(deadline))
            counts["hosts"], of_hosts = await self._session.hosts(deadline)
        found = [self.problem, self._session.problem, self._watch.problem, self.holds.problem]
        found += [*self._schemas.problems, *of_hosts]
        return {
            "engine": "etcd",
            "healthy": self.problem is None,
            "problem": self.problem,
            "problems": [problem for problem in found if problem],
            "durability": "strict",
            "endpoints": list(self._options.endpoints),
            "prefix": self._options.prefix,
            "swap_retries": self._writer.retries,
            "stale_reads": self._stale_cache.served,
            **counts,
        }

    async def close(self) -> None:
        await self._stale_cache.close()
        await self._watch.close()
        await self._session.end(keep_lease=await self.holds.close())
        await self._client.close()


def _cannot_watch(error: Exception) -> Overloaded:
    cause = str(error) or "no answer in time"
    return Overloaded(
        f"cannot watch: etcd does not report changes ({cause}); try again once a majority of "
        "its nodes is up"
    )
