"""EtcdStore: buckets in an etcd cluster, one key each, shared by the daemons of many hosts.

Every read is linearizable. A change is a compare-and-swap on the key's ``mod_revision``; what
the last one left is remembered, so that a host that keeps writing a bucket needs one round trip.
A remembered state is only ever a guess that etcd confirms: nothing is answered from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from typing import Any

from ..counting import Histogram
from ..errors import BucketCorrupt, BucketdError, Internal, Overloaded, StorageFull
from ..model import BucketKey, Change, Guard, Snapshot
from . import etcdkeys as keys
from . import stale
from .base import Changed, Filter, Listener, Page
from .claim import Claim, Shard
from .etcdkeys import Held
from .etcdlisting import EtcdListing
from .etcdwatch import EtcdWatch
from .fence import Fence
from .gateway import Access, Gateway, Lost, b64
from .presence import Presence
from .stale import Noting, StaleReads
from .swap import Write, made, settled, txn, unknown
from .turns import Turns

_REMEMBERED = 1000
_TRIES = 200


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
        self._presence = Presence(self._gateway, prefix, access.timeout)
        self._watch = EtcdWatch(self._gateway, self._presence, prefix, access.timeout)
        self._fence = Fence(self._presence, prefix)
        self._stale = stale_reads or StaleReads()
        self._turns = Turns()
        self._last: OrderedDict[BucketKey, Held] = OrderedDict()
        self._away: str | None = None
        self.histograms: dict[str, Histogram] = {}  # of a journal, which there is none of
        self.stalled_seconds = 0.0
        self._retries = 0

    @property
    def problem(self) -> str | None:
        return self._away or self._claim.problem

    @property
    def gateway(self) -> Gateway:
        """To the cluster, for what is shared besides buckets."""
        return self._gateway

    @property
    def mark(self) -> str:
        return self._watch.mark

    def listen(self, listener: Listener) -> None:
        self._watch.listen(Noting(listener, self._stale))

    async def keep_present(self, stop: asyncio.Event) -> None:
        """Tell the other hosts that this one is there, until ``stop``."""
        await self._presence.keep(stop)

    async def attend(self, _key: BucketKey | None) -> None:
        try:
            await self._claim.make(self._deadline())
            await self._watch.attend()
        except (Lost, TimeoutError) as error:
            raise _cannot_watch(error) from error

    async def since(self, mark: str, key: BucketKey | None) -> list[Changed] | None:
        try:
            return await self._watch.since(mark, key)
        except (Lost, TimeoutError) as error:
            raise _cannot_watch(error) from error

    def known(self, _key: BucketKey) -> Snapshot | None:
        return None  # another host may have changed it

    def begin(
        self, key: BucketKey, change: Change, guard: Guard, automation: str | None = None
    ) -> asyncio.Future[Snapshot]:
        return asyncio.ensure_future(self.commit(key, change, guard, automation))

    async def read(self, key: BucketKey, stale_ok: bool = False) -> Snapshot:
        if not stale_ok:
            return (await self._load(key, self._deadline())).snapshot
        return await self._stale.read(
            key, lambda: self._load(key, self._deadline()), lambda: self._away is not None
        )

    async def commit(
        self, key: BucketKey, change: Change, guard: Guard, automation: str | None = None
    ) -> Snapshot:
        deadline = self._deadline()
        async with self._turns.of(key, deadline):
            try:
                return await self._swap(Write(key, change, guard, automation), deadline)
            except (Internal, asyncio.CancelledError):  # nobody knows what is there now
                self._stale.forget(key)
                raise

    async def _swap(self, write: Write, deadline: float) -> Snapshot:
        """Compare-and-swap until it holds, time is up, or others won too often."""
        held, fresh = self._last.get(write.key), False
        for attempt in range(_TRIES):
            if held is None:
                held, fresh = await self._load(write.key, deadline), True
            try:
                after = write.after(held.snapshot)
            except BucketdError:
                if fresh:
                    raise
                after = held.snapshot
            if after is held.snapshot:
                if fresh:
                    return after
                held = None  # that nothing changes is for etcd to say
                continue
            done, held = await self._try(write, held, after, deadline, tell=fresh)
            if done:
                return after
            fresh = True
            self._retries += 1
            await asyncio.sleep(random.uniform(0, 0.002 * min(attempt, 10)))  # noqa: S311
        raise Overloaded(
            f"cannot change {write.key}: other hosts changed it {_TRIES} times meanwhile; "
            "nothing was changed; try again"
        )

    async def _try(
        self, write: Write, held: Held, after: Snapshot, deadline: float, tell: bool
    ) -> tuple[bool, Held | None]:
        """Whether the swap was made, and what the key holds now (None: unknown, without ``tell``).

        After a lost answer it is sent again: either swap counts once, and its ETag tells of it.
        """
        key, lost, name = write.key, False, keys.of(self._prefix, write.key)
        body = txn(name, held, after, key, tell)
        self._last.pop(key, None)
        while True:
            asked = stale.now()
            try:
                if not held.at:
                    body["compare"][1:] = [await self._fence.compare(deadline)]
                answer = await self._gateway.call("/v3/kv/txn", body, deadline, once=True)
            except Lost as error:
                lost, body = lost or error.sent, txn(name, held, after, key, True)
                self._fence.move()
                await self._gateway.pause()
                if asyncio.get_running_loop().time() >= deadline:
                    raise self._unconfirmed(key, error, lost) from error
                continue
            except StorageFull as full:
                return True, await self._despite_full(key, after, full, lost, deadline)
            self._away = None
            if answer.get("succeeded"):
                now = Held(after, int(answer["header"]["revision"]) if after.revision else 0)
                self._remember(key, now)
                self._note(key, now, answer, asked)
                return True, now
            if not answer.get("responses"):
                return False, None
            now = keys.held(answer["responses"][0]["response_range"].get("kvs"), key)
            self._note(key, now, answer, asked)
            if not held.at and not now.at:
                self._fence.move()  # its lease has ended, or another write moved it
            if lost:
                return settled(write, after, now)
            return False, now

    async def _despite_full(
        self, key: BucketKey, after: Snapshot, full: StorageFull, lost: bool, deadline: float
    ) -> Held:
        """What the key holds, if it is ``after``: etcd makes the swap that crosses its limit, and
        refuses it all the same. Else raises ``full``.
        """
        try:
            now = await self._load(key, deadline)
        except BucketdError as error:
            raise unknown(f"cannot change {key}: etcd is full and does not answer") from error
        if made(after, now):
            return now
        if lost:
            raise unknown(f"cannot change {key}: etcd's answer was lost, and it is full")
        raise full

    def _unconfirmed(self, key: BucketKey, error: Lost, sent: bool) -> BucketdError:
        self._away = f"cannot reach a majority of etcd: {error}"
        told = f"cannot change {key}: etcd did not confirm it in {self._access.timeout:g} s"
        if sent:
            return unknown(told)
        return Overloaded(f"{told}: no endpoint was reached; nothing was changed; try again")

    async def _load(self, key: BucketKey, deadline: float) -> Held:
        body, asked = {"key": b64(keys.of(self._prefix, key))}, stale.now()
        answer = await self._range(body, f"read {key}", deadline)
        try:
            held = keys.held(answer.get("kvs"), key)
        except BucketCorrupt:
            self._stale.forget(key)
            raise
        self._note(key, held, answer, asked)
        return held

    def _note(self, key: BucketKey, held: Held, answer: dict[str, Any], asked: float) -> None:
        self._stale.note(key, held.snapshot, int(answer["header"]["revision"]), asked)

    async def _range(self, body: dict[str, Any], what: str, deadline: float) -> dict[str, Any]:
        try:
            await self._claim.make(deadline)
            answer = await self._gateway.call("/v3/kv/range", body, deadline)
        except Lost as error:
            self._away = f"cannot reach a majority of etcd: {error}"
            raise Overloaded(
                f"cannot {what}: etcd did not answer within {self._access.timeout:g} s ({error}); "
                "try again once a majority of its nodes is up"
            ) from error
        self._away = None
        return answer

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        listing = EtcdListing(lambda b, w: self._range(b, w, self._deadline()), self._prefix)
        return await listing.page(only, cursor, limit)

    async def check(self) -> dict[str, Any]:
        counts: dict[str, Any] = {}
        deadline = self._deadline()
        listing = EtcdListing(lambda b, w: self._range(b, w, deadline), self._prefix)
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
            "swap_retries": self._retries,
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

    def _remember(self, key: BucketKey, held: Held) -> None:
        self._last[key] = held
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)


def _cannot_watch(error: Exception) -> Overloaded:
    return Overloaded(
        f"cannot watch: etcd does not tell of changes ({error}); try again once a majority of "
        "its nodes is up"
    )
