"""Spread devices over several etcd clusters; the device's name determines the cluster.

Rendezvous hashing: a device belongs to the shard whose name hashes highest together with the
device's. Every host gets the same result, and adding a shard moves devices only to that shard.
Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from typing import Any

from ...errors import InvalidRequest
from ...model.author import UNKNOWN, Author
from ...model.bucket import BucketKey, Snapshot
from ...model.changes import Change
from ...model.preconditions import Preconditions
from ...model.revisions import History
from ...stats import Histogram
from ..base import ChangeEvent, Filter, Page, Subscriber
from ..holds import Hold, HoldQueue
from .client import EtcdOptions
from .holds import EtcdHolds
from .schemas import EtcdSchemas
from .sharded_trash import ShardedTrash
from .store import EtcdStore
from .topology import Shard

_SUMMED = ("buckets", "device_buckets", "trashed_buckets", "swap_retries", "stale_reads")


def shard_of(names: tuple[str, ...], device: str) -> int:
    """Return the index of the shard that has a device."""
    weights = [hashlib.sha256(f"{name}\0{device}".encode()).digest() for name in names]
    return weights.index(max(weights))


class ShardedStore:
    """Present several clusters, by their names, as one store; an event id joins one of each."""

    def __init__(self, shards: Mapping[str, EtcdOptions]) -> None:
        self._names = names = tuple(sorted(shards))
        # Holds of two shards are of different devices, so they never exclude each other.
        queue = HoldQueue()
        self._stores = [EtcdStore(shards[name], Shard(name, names), queue) for name in names]
        self.holds = ShardedHolds(queue, lambda hold: self._of(hold.key).holds, self._stores)
        self.trash = ShardedTrash([store.trash for store in self._stores], self.number_of)
        self.histograms: dict[str, Histogram] = {}
        self.stalled_seconds = 0.0

    @property
    def quarantine(self) -> None:
        """Return None, since values that are damaged stay in the cluster."""
        return None

    def shared_schemas(self) -> EtcdSchemas:
        """Return the schemas, all of which are in the first shard."""
        return self._stores[0].shared_schemas()

    @property
    def problem(self) -> str | None:
        found = zip(self._names, (store.problem for store in self._stores), strict=True)
        return "; ".join(f"shard {name}: {cause}" for name, cause in found if cause) or None

    @property
    def event_id(self) -> str:
        return ".".join(store.event_id for store in self._stores)

    def subscribe(self, subscriber: Subscriber) -> None:
        for number, store in enumerate(self._stores):
            store.subscribe(_ShardSubscriber(self, number, subscriber))

    async def run_background(self, stop: asyncio.Event) -> None:
        await asyncio.gather(*(store.run_background(stop) for store in self._stores))

    async def wait_until_watching(self, key: BucketKey | None) -> None:
        stores = self._stores if key is None else [self._of(key)]
        await asyncio.gather(*(store.wait_until_watching(key) for store in stores))

    async def changes_after(self, event_id: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        event_ids = event_id.split(".")
        if len(event_ids) != len(self._stores):
            return None
        found: list[ChangeEvent] = []
        for number in range(len(self._stores)) if key is None else [self.number_of(key)]:
            # A shard that was not watched then has no event id to resume from.
            one = (
                None
                if event_ids[number] == "0"
                else await self._stores[number].changes_after(event_ids[number], key)
            )
            if one is None:
                return None
            for changed in one:
                event_ids[number] = changed.event_id
                found.append(_of_all_shards(changed, number, ".".join(event_ids)))
        return found

    def includes(self, event_id: str, changed: ChangeEvent) -> bool:
        one = event_id.split(".")[changed.shard]
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

    async def history(self, key: BucketKey) -> History:
        return await self._of(key).history(key)

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
        author: Author = UNKNOWN,
    ) -> asyncio.Future[Snapshot]:
        return self._of(key).commit(key, change, preconditions, automation, author)

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        """List one shard after another; a cursor joins the current shard and its own cursor."""
        if only.device is not None:
            return await self._of(BucketKey(only.device)).list(only, cursor, limit)
        number, inner = self._parse_cursor(cursor)
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

    def _parse_cursor(self, cursor: str | None) -> tuple[int, str | None]:
        number, point, inner = ("0", ".", "") if cursor is None else cursor.partition(".")
        if not (point and number.isascii() and number.isdecimal() and len(number) < 9):
            raise InvalidRequest("cannot list from this cursor: use a next_cursor as it was given")
        return int(number), inner or None

    async def check(self) -> dict[str, Any]:
        found = await asyncio.gather(*(store.check() for store in self._stores))
        shards = dict(zip(self._names, found, strict=True))
        complete = {name: sum(one[name] for one in found) for name in _SUMMED
                    if all(name in one for one in found)}  # fmt: skip
        hosts = {tuple(host.values()): host for one in found for host in one.pop("hosts", ())}
        return {
            "engine": "etcd",
            "healthy": self.problem is None,
            "problem": self.problem,
            "problems": [
                f"shard {name}: {problem}"
                for name, one in shards.items()
                for problem in one["problems"]
            ],
            "durability": "strict",
            "prefix": found[0]["prefix"],
            **complete,
            "hosts": [hosts[names] for names in sorted(hosts)],
            "shards": shards,
        }

    async def close(self) -> None:
        await asyncio.gather(*(store.close() for store in self._stores))


class ShardedHolds:
    """Present the holds of all shards as one queue. ``of`` returns those of an entry's shard."""

    def __init__(
        self, queue: HoldQueue, of: Callable[[Hold], EtcdHolds], stores: Iterable[EtcdStore]
    ) -> None:
        self.queue, self._of, self._stores = queue, of, stores

    async def add(self, hold: Hold) -> None:
        await self._of(hold).add(hold)

    async def adopt(self, hold: Hold) -> None:
        await self._of(hold).adopt(hold)

    async def confirm(self, hold: Hold) -> None:
        await self._of(hold).confirm(hold)

    def release(self, hold: Hold) -> asyncio.Future[None]:
        return self._of(hold).release(hold)

    async def refresh(self) -> None:
        await asyncio.gather(*(store.holds.refresh() for store in self._stores))


class _ShardSubscriber:
    """Subscribe to one shard, and publish its changes as changes of all shards."""

    def __init__(self, shards: ShardedStore, number: int, subscriber: Subscriber) -> None:
        self._shards, self._number, self._subscriber = shards, number, subscriber

    def publish(self, changed: ChangeEvent) -> None:
        event_ids = self._shards.event_id.split(".")
        event_ids[self._number] = changed.event_id
        self._subscriber.publish(_of_all_shards(changed, self._number, ".".join(event_ids)))

    def gap(self) -> None:
        self._subscriber.gap()

    @property
    def interests(self) -> Set[BucketKey] | None:
        """Return all interests; none if none of them is in this shard."""
        keys = self._subscriber.interests
        if keys is None or any(self._shards.number_of(key) == self._number for key in keys):
            return keys
        return frozenset()


def _of_all_shards(changed: ChangeEvent, number: int, event_id: str) -> ChangeEvent:
    """Return a shard's change as a change of all shards."""
    return changed._replace(event_id=event_id, shard=number, number=changed.event_id)
