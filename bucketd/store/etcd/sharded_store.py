"""Shards: devices spread over several etcd clusters, each in one, which its name alone decides.

Rendezvous hashing: of all shards a device is in the one whose name hashes highest together with
its own. Every host comes to the same, and a shard that is added draws only what will be its own.
Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Mapping, Set
from typing import Any

from ...errors import InvalidRequest
from ...model.bucket import BucketKey, Change, Snapshot
from ...model.preconditions import Preconditions
from ...stats import Histogram
from ..base import ChangeEvent, Filter, Page, Subscriber
from .client import Gateway
from .store import EtcdStore

SUMMED = ("buckets", "device_buckets", "swap_retries", "stale_reads")


def shard_of(names: tuple[str, ...], device: str) -> int:
    """Which of the shards, by its place among the names, has a device."""
    weights = [hashlib.sha256(f"{name}\0{device}".encode()).digest() for name in names]
    return weights.index(max(weights))


class ShardedStore:
    """Several stores as one, by the names of theirs, in order; a mark is one of each."""

    def __init__(self, stores: Mapping[str, EtcdStore]) -> None:
        self._names, self._stores = tuple(stores), list(stores.values())
        self.histograms: dict[str, Histogram] = {}
        self.stalled_seconds = 0.0

    @property
    def gateway(self) -> Gateway:
        """To the first of them, for what is shared besides buckets."""
        return self._stores[0].gateway

    @property
    def problem(self) -> str | None:
        found = zip(self._names, (store.problem for store in self._stores), strict=True)
        return "; ".join(f"shard {name}: {told}" for name, told in found if told) or None

    @property
    def mark(self) -> str:
        return ".".join(store.mark for store in self._stores)

    def subscribe(self, listener: Subscriber) -> None:
        for number, store in enumerate(self._stores):
            store.subscribe(_OfShard(self, number, listener))

    async def keep_present(self, stop: asyncio.Event) -> None:
        await asyncio.gather(*(store.keep_present(stop) for store in self._stores))

    async def wait_until_watching(self, key: BucketKey | None) -> None:
        stores = self._stores if key is None else [self._of(key)]
        await asyncio.gather(*(store.wait_until_watching(key) for store in stores))

    async def changes_after(self, mark: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        marks = mark.split(".")
        if len(marks) != len(self._stores):
            return None
        found: list[ChangeEvent] = []
        for number in range(len(self._stores)) if key is None else [self.number_of(key)]:
            # One that was not listened to then has no place to go on from.
            one = (
                None
                if marks[number] == "0"
                else await self._stores[number].changes_after(marks[number], key)
            )
            if one is None:
                return None
            for changed in one:
                marks[number] = changed.mark
                found.append(placed(changed, number, ".".join(marks)))
        return found

    def includes(self, mark: str, changed: ChangeEvent) -> bool:
        one = mark.split(".")[changed.shard]
        return self._stores[changed.shard].includes(one, changed)

    async def catch_up(self) -> None:
        await asyncio.gather(*(store.catch_up() for store in self._stores))

    def number_of(self, key: BucketKey) -> int:
        return shard_of(self._names, key.device)

    def _of(self, key: BucketKey) -> EtcdStore:
        return self._stores[self.number_of(key)]

    def cached(self, _key: BucketKey) -> Snapshot | None:
        return None

    def read(self, key: BucketKey, stale_ok: bool = False) -> Awaitable[Snapshot]:
        return self._of(key).read(key, stale_ok)

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
    ) -> asyncio.Future[Snapshot]:
        return self._of(key).commit(key, change, preconditions, automation)

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        """One shard after another; a cursor tells in which to go on, and there from where."""
        if only.device is not None:
            return await self._of(BucketKey(only.device)).list(only, cursor, limit)
        number, inner = self._resumed(cursor)
        page = Page([], None, [])
        for at in range(number, len(self._stores)):
            if len(page.rows) == limit:
                return Page(page.rows, f"{at}.", page.unreadable)
            more = await self._stores[at].list(only, inner, limit - len(page.rows))
            page = Page([*page.rows, *more.rows], None, [*page.unreadable, *more.unreadable])
            if more.next_cursor is not None:
                return Page(page.rows, f"{at}.{more.next_cursor}", page.unreadable)
            inner = None
        return page

    def _resumed(self, cursor: str | None) -> tuple[int, str | None]:
        number, point, inner = ("0", ".", "") if cursor is None else cursor.partition(".")
        if not (point and number.isascii() and number.isdecimal() and len(number) < 9):
            raise InvalidRequest("cannot list from this cursor: use a next_cursor as it was given")
        return int(number), inner or None

    async def check(self) -> dict[str, Any]:
        found = await asyncio.gather(*(store.check() for store in self._stores))
        shards = dict(zip(self._names, found, strict=True))
        complete = {name: sum(one[name] for one in found) for name in SUMMED
                    if all(name in one for one in found)}  # fmt: skip
        hosts = {tuple(host.values()): host for one in found for host in one.pop("hosts", ())}
        return {
            "engine": "etcd",
            "healthy": self.problem is None,
            "problem": self.problem,
            "durability": "strict",
            "prefix": found[0]["prefix"],
            **complete,
            "hosts": [hosts[names] for names in sorted(hosts)],
            "shards": shards,
        }

    async def close(self) -> None:
        await asyncio.gather(*(store.close() for store in self._stores))


class _OfShard:
    """What one of them is told to listen with."""

    def __init__(self, shards: ShardedStore, number: int, listener: Subscriber) -> None:
        self._shards, self._number, self._listener = shards, number, listener

    def tell(self, changed: ChangeEvent) -> None:
        marks = self._shards.mark.split(".")
        marks[self._number] = changed.mark
        self._listener.tell(placed(changed, self._number, ".".join(marks)))

    def lost(self) -> None:
        self._listener.lost()

    @property
    def interests(self) -> Set[BucketKey] | None:
        """All that the listener wants, or nothing, where nothing of that is in this shard."""
        keys = self._listener.interests
        if keys is None or any(self._shards.number_of(key) == self._number for key in keys):
            return keys
        return frozenset()


def placed(changed: ChangeEvent, number: int, mark: str) -> ChangeEvent:
    """As one of all shards' changes."""
    return changed._replace(mark=mark, shard=number, number=changed.mark)
