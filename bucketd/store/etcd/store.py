"""EtcdStore: buckets in an etcd cluster, one key each, shared by the daemons of many hosts.

Every read is linearizable. A change is a compare-and-swap on the key's ``mod_revision``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ...concurrency import KeyedLocks
from ...errors import BucketdError, Internal, Overloaded
from ...model.bucket import BucketKey, Change, Snapshot
from ...model.preconditions import Preconditions
from ...stats import Histogram
from ..base import ChangeEvent, Filter, Page, Subscriber
from .client import Access, Gateway, Lost
from .compare_and_swap import Write
from .idempotency import Fence
from .listing import EtcdListing
from .reader import EtcdReading
from .session import Session
from .stale_cache import Noting, StaleReads
from .topology import Claim, Shard
from .watch import EtcdWatch, includes
from .writer import Writer


class EtcdStore:
    """Use from one event loop; ``close`` it when done. ``prefix`` begins every key."""

    def __init__(
        self,
        access: Access,
        prefix: str,
        stale_reads: StaleReads | None = None,
        shard: Shard = Shard(),  # noqa: B008  (it is frozen)
    ) -> None:
        self._gateway, self._access, self._prefix = Gateway(access), access, prefix
        self._claim = Claim(self._gateway, prefix, shard)
        self._presence = Session(self._gateway, prefix, access.timeout)
        self._watch = EtcdWatch(self._gateway, self._presence, prefix, access.timeout)
        self._stale, timeout = stale_reads or StaleReads(), access.timeout
        self._reading = EtcdReading(self._gateway, self._claim, self._stale, prefix, timeout)
        fence = Fence(self._gateway, self._presence, prefix)
        self._swapping = Writer(self._gateway, self._reading, fence, prefix, timeout)
        self._locks = KeyedLocks()
        self.histograms: dict[str, Histogram] = {}  # of a journal, which there is none of
        self.stalled_seconds = 0.0

    @property
    def problem(self) -> str | None:
        return self._reading.away or self._claim.problem

    @property
    def gateway(self) -> Gateway:
        """To the cluster, for what is shared besides buckets."""
        return self._gateway

    @property
    def mark(self) -> str:
        return self._watch.mark

    def subscribe(self, listener: Subscriber) -> None:
        self._watch.subscribe(Noting(listener, self._stale))

    async def keep_present(self, stop: asyncio.Event) -> None:
        """Tell the other hosts that this one is there, until ``stop``."""
        await self._presence.keep(stop)

    async def wait_until_watching(self, _key: BucketKey | None) -> None:
        try:
            await self._claim.make(self._deadline())
            await self._watch.wait_until_watching()
        except (Lost, TimeoutError) as error:
            raise _cannot_watch(error) from error

    async def changes_after(self, mark: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        try:
            return await self._watch.changes_after(mark, key)
        except (Lost, TimeoutError) as error:
            raise _cannot_watch(error) from error

    def includes(self, mark: str, changed: ChangeEvent) -> bool:
        return includes(mark, changed)

    async def catch_up(self) -> None:
        if self._reading.away is None:
            with contextlib.suppress(BucketdError, Lost, TimeoutError):
                await self._watch.catch_up()

    def cached(self, _key: BucketKey) -> Snapshot | None:
        return None  # another host may have changed it

    async def read(self, key: BucketKey, stale_ok: bool = False) -> Snapshot:
        reading = self._reading
        if not stale_ok:
            return (await reading.load(key, self._deadline())).snapshot
        return await self._stale.read(
            key, lambda: reading.load(key, self._deadline()), lambda: reading.away is not None
        )

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
    ) -> asyncio.Future[Snapshot]:
        return asyncio.ensure_future(self._commit(key, change, preconditions, automation))

    async def _commit(
        self, key: BucketKey, change: Change, guard: Preconditions, automation: str | None
    ) -> Snapshot:
        deadline = self._deadline()
        try:
            async with self._locks.lock(key, deadline):
                try:
                    write = Write(key, change, guard, automation)
                    return await self._swapping.make(write, deadline)
                except (Internal, asyncio.CancelledError):  # nobody knows what is there now
                    self._stale.forget(key)
                    raise
        except TimeoutError:
            raise Overloaded(
                f"cannot change {key}: earlier changes of it still wait for etcd; nothing "
                "was changed; try again"
            ) from None

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        reading = self._reading
        listing = EtcdListing(lambda b, w: reading.range(b, w, self._deadline()), self._prefix)
        return await listing.page(only, cursor, limit)

    async def check(self) -> dict[str, Any]:
        counts: dict[str, Any] = {}
        deadline = self._deadline()
        listing = EtcdListing(lambda b, w: self._reading.range(b, w, deadline), self._prefix)
        with contextlib.suppress(BucketdError, Lost):
            counts.update(await listing.counts())
            counts["hosts"] = await self._presence.hosts(deadline)
        return {
            "engine": "etcd",
            "healthy": self.problem is None,
            "problem": self.problem,
            "durability": "strict",
            "endpoints": list(self._access.endpoints),
            "prefix": self._prefix,
            "swap_retries": self._swapping.retries,
            "stale_reads": self._stale.served,
            **counts,
        }

    async def close(self) -> None:
        await self._stale.close()
        await self._watch.close()
        await self._presence.leave()
        await self._gateway.close()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._access.timeout


def _cannot_watch(error: Exception) -> Overloaded:
    return Overloaded(
        f"cannot watch: etcd does not tell of changes ({error}); try again once a majority of "
        "its nodes is up"
    )
