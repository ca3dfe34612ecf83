"""Keep the queue of holds in etcd, for all hosts: a key for each entry, under its host's lease.

    <prefix>hold/<device>/<secret>          an entry; its create_revision is its place in the queue
    <prefix>exclusive/<device>[/<job>]      there is an exclusive hold of this

Every host that needs the queue mirrors it by a watch. An entry is held once the mirror has all
entries before it, and none of those excludes it; later ones can only come behind. The fence names
the key and its create_revision, and a write with it compares that revision in the transaction of
the bucket. So once the key is gone, no write with the fence is applied, whoever sends it late.

A host that cannot renew its lease tells its holders that they have lost, before etcd lets the lease
expire and the next one in the queue gets the hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import BucketdError, HoldLost, Overloaded
from ...fs import filenames
from ...model.bucket import BucketKey
from ..holds import LOST, Hold, HoldQueue, hold_lost
from .client import RETRY_PAUSE_SECONDS, EtcdClient, LeaseExpired, Unavailable, b64
from .hold_keys import Guard, decode, encode, session_of
from .keys import KeyValue, key_of, prefix_range
from .session import Session
from .topology import ClusterTopology
from .watch import Compacted, watch

log = logging.getLogger(__name__)
# A host with entries puts a key that its mirror has to see, at this interval.
BEAT_SECONDS = 3.0
LEASE_CHECK_SECONDS = 0.25
RELEASE_RETRY_SECONDS = 0.25
BROKEN, UNREACHABLE = "broken", "unreachable"


@dataclass(slots=True, eq=False)
class _Entry:
    """An entry and its key. ``lease`` is that of this host, where the entry is of this host.

    ``seen`` is done once the mirror has it; ``deleting`` is the task that deletes the key.
    """

    key: bytes
    hold: Hold
    lease: str | None = None
    seen: asyncio.Future[None] | None = None
    deleting: asyncio.Task[None] | None = None


class EtcdHolds:
    """The queue of one cluster. ``queue`` may be that of several, whose devices differ."""

    def __init__(
        self, client: EtcdClient, session: Session, topology: ClusterTopology, queue: HoldQueue
    ) -> None:
        self._client, self._session, self._topology = client, session, topology
        self.queue = queue
        self._prefix = client.options.prefix
        self._begin, self._end = prefix_range(f"{self._prefix}hold/")
        # No encoded name of a device begins with a point.
        self._beat_key = self._begin + f".beat/{session.id}".encode()
        # All entries that the mirror has, and those of this host, by their keys.
        self._entries: dict[bytes, _Entry] = {}
        self._own: dict[bytes, _Entry] = {}
        # The mirror has all entries up to this revision.
        self._revision = 0
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._deletions: set[asyncio.Task[None]] = set()
        self._in_place = asyncio.Event()
        self._silence_limit: asyncio.Timeout | None = None
        self.problem: str | None = None

    # --- of HoldStore

    async def add(self, hold: Hold) -> None:
        """Put the key of an entry, and wait until the mirror shows its place."""
        entry = _Entry(self._key(hold.key.device, hold.fence), hold)
        entry.seen = asyncio.get_running_loop().create_future()
        try:
            await self._follow()
            self._own[entry.key] = entry
            await self._put(entry)
            self._expect_event()
            async with asyncio.timeout(self._client.options.timeout):
                await entry.seen
        except (Unavailable, TimeoutError) as error:
            raise _no_answer(f"hold {hold}", error) from error

    async def adopt(self, hold: Hold) -> None:
        """Put the key of an earlier daemon's hold under this host's lease; its place stays."""
        secret, _, _ = hold.fence.partition(".")
        entry = _Entry(self._key(hold.key.device, secret), hold)
        entry.seen = asyncio.get_running_loop().create_future()
        # The mirror must not take it for an entry of another host.
        self._own[entry.key] = entry
        while True:
            try:
                await self._follow()
                if not await self._put(entry, is_held=True):
                    raise HoldLost(f"cannot continue the hold of {hold}: it has ended in etcd")
                await entry.seen
                return
            except (Unavailable, TimeoutError, Overloaded) as error:
                log.warning("cannot continue a hold yet: %s", error)
                await asyncio.sleep(RELEASE_RETRY_SECONDS)

    async def confirm(self, hold: Hold) -> None:
        """Put the key that refuses unfenced writes, for an exclusive hold."""
        entry = self._entries.get(self._key_of_fence(hold))
        if entry is None or hold.ending:
            raise HoldLost(f"cannot hold {hold}: it was had, and lost at once")
        if not hold.exclusive:
            return
        try:
            if not await self._put(entry, is_held=True):
                raise HoldLost(f"cannot hold {hold}: it was had, and lost at once")
        except Unavailable as error:
            raise _no_answer(f"hold {hold}", error) from error

    def release(self, hold: Hold) -> asyncio.Future[None]:
        entry = self._entry_of(hold)
        if entry is None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        hold.ending = True
        if entry.deleting is None:
            entry.deleting = asyncio.create_task(self._delete(entry))
            self._deletions.add(entry.deleting)
            entry.deleting.add_done_callback(self._deletions.discard)
        return asyncio.shield(entry.deleting)

    async def refresh(self) -> None:
        """Wait until the mirror has everything up to now."""
        try:
            await self._follow()
            revision = await self._put_beat()
            seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._revision < revision:
                self._awaited.append((revision, seen))
                async with asyncio.timeout(self._client.options.timeout):
                    await seen
        except (Unavailable, TimeoutError) as error:
            raise _no_answer("list the holds", error) from error

    # --- for the writer

    async def guard(self, key: BucketKey, fences: Iterable[str], deadline: float) -> Guard:
        """Return what a change of a bucket has to compare. Raises BucketdError, Unavailable."""
        guard, covered = Guard(key, self.queue), False
        for fence in fences:
            secret, _, revision = fence.partition(".")
            hold = self.queue.with_fence(fence)
            if hold is None and revision.isdecimal():
                # A hold that another host has just taken may not be in the mirror, if there is one.
                hold = await self._read(self._key(key.device, secret), deadline)
            if hold is None or hold.fence != fence or not hold.guards(key):
                self.queue.refused += 1
                raise hold_lost(key)
            guard.fences.append((self._key(key.device, secret), revision))
            # It excludes all others that could be exclusive.
            covered = covered or (not hold.name and hold.covers(key))
        if not covered:
            guard.exclusive = [self._exclusive_key(BucketKey(key.device))]
            if key.job is not None:
                guard.exclusive.append(self._exclusive_key(key))
        return guard

    async def check(self, guard: Guard, deadline: float) -> None:
        """Raise HoldLost or Held unless a change of nothing would be applied now.

        Raises Unavailable without an answer.
        """
        request = {"compare": guard.compares(), "success": [], "failure": guard.reads()}
        answer = await self._client.call("/v3/kv/txn", request, deadline)
        if not answer.get("succeeded"):
            guard.check(answer.get("responses", []))

    async def close(self) -> bool:
        """Stop the mirror; report whether holds of this host live on, for its next daemon."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._deletions:
            await asyncio.wait(self._deletions, timeout=self._client.options.timeout)
        for task in list(self._deletions):
            task.cancel()
        return any(entry.hold.held and not entry.hold.ending for entry in self._own.values())

    # --- keys

    def _key(self, device: str, secret: str) -> bytes:
        return self._begin + f"{filenames.encode(device)}/{secret}".encode()

    def _key_of_fence(self, hold: Hold) -> bytes:
        return self._key(hold.key.device, hold.fence.partition(".")[0])

    def _exclusive_key(self, key: BucketKey) -> bytes:
        job = "" if key.job is None else f"/{filenames.encode(key.job)}"
        return f"{self._prefix}exclusive/{filenames.encode(key.device)}{job}".encode()

    def _entry_of(self, hold: Hold) -> _Entry | None:
        key = self._key_of_fence(hold)
        return self._own.get(key) or self._entries.get(key)

    async def _put(self, entry: _Entry, is_held: bool = False) -> bool:
        """Put an entry's key under this host's lease; one that ``is_held`` must be there already.

        With that, put the key of an exclusive hold, too. Return False if the hold has ended.
        Raises BucketdError or Unavailable.
        """
        hold, value = entry.hold, b64(encode(entry.hold, self._session.id))

        def request(lease: str) -> dict[str, Any]:
            entry.lease = lease
            puts = [entry.key]
            if is_held and hold.exclusive:
                puts.append(self._exclusive_key(hold.key))
            return {
                "compare": [_unchanged(entry.key, hold.order)] if is_held else [],
                "success": [
                    {"request_put": {"key": b64(key), "value": value, "lease": lease}}
                    for key in puts
                ],
            }

        answer = await self._session.call_with_lease("/v3/kv/txn", request, self._client.deadline())
        return bool(answer.get("succeeded"))

    async def _delete(self, entry: _Entry) -> None:
        """Delete the keys of an entry, however long that takes; then it has ended."""
        hold = entry.hold
        deletions = [{"request_delete_range": {"key": b64(entry.key)}}]
        if hold.exclusive and hold.order:
            # A late transaction must not delete the key of the next one.
            key = b64(self._exclusive_key(hold.key))
            deletions.append({"request_delete_range": {"key": key}})
        request = {
            "compare": [_unchanged(entry.key, hold.order)] if hold.order else [],
            "success": deletions,
        }
        while True:
            try:
                await self._client.call("/v3/kv/txn", request, self._client.deadline())
                break
            except (BucketdError, Unavailable, LeaseExpired) as error:
                log.debug("cannot delete the key of a hold yet: %s", error)
                await asyncio.sleep(RELEASE_RETRY_SECONDS)
        self._forget(entry)

    async def _read(self, key: bytes, deadline: float) -> Hold | None:
        answer = await self._client.call("/v3/kv/range", {"key": b64(key)}, deadline)
        kvs = answer.get("kvs")
        return decode(kvs[0]) if kvs else None

    # --- the mirror

    async def _follow(self) -> None:
        """Return once the mirror follows the queue.

        Raises BucketdError, Unavailable or TimeoutError.
        """
        if not self._tasks:
            await self._topology.verify(self._client.deadline())
            if not self._tasks:
                run = (self._mirror(), self._put_beats(), self._watch_lease())
                self._tasks = [asyncio.create_task(one) for one in run]
        async with asyncio.timeout(self._client.options.timeout):
            await self._in_place.wait()

    async def _mirror(self) -> None:
        while True:
            try:
                await self._load()
                await self._mirror_events()
            except Compacted:
                continue
            except (BucketdError, Unavailable, TimeoutError) as error:
                self._note(str(error) or "it sends no events", logging.WARNING)
            except Exception as error:
                self._note(f"unexpected error ({type(error).__name__})", logging.ERROR, error)
            await asyncio.sleep(RETRY_PAUSE_SECONDS)

    def _note(self, cause: str, level: int, error: Exception | None = None) -> None:
        level = logging.DEBUG if self.problem else level
        log.log(level, "the mirror of holds broke, and starts again: %s", cause, exc_info=error)
        self.problem = f"cannot follow the holds in etcd: {cause}; trying again"

    async def _load(self) -> None:
        """Read all entries, and bring the mirror to their state."""
        request = {"key": b64(self._begin), "range_end": b64(self._end)}
        answer = await self._client.call("/v3/kv/range", request, self._client.deadline())
        kvs = sorted(answer.get("kvs", ()), key=lambda kv: int(kv["create_revision"]))
        current = {key_of(kv): int(kv["create_revision"]) for kv in kvs}
        for entry in list(self._entries.values()):
            if current.get(entry.key) != entry.hold.order:
                self._on_deleted(entry.key)
        for kv in kvs:
            self._on_put(kv)
        self._advance(int(answer["header"]["revision"]))

    async def _mirror_events(self) -> None:
        events = watch(self._client, self._begin, self._end, self._revision + 1)
        try:
            async with contextlib.aclosing(events) as batches:
                while True:
                    limit = BEAT_SECONDS + self._client.options.timeout if self._own else None
                    async with asyncio.timeout(limit) as self._silence_limit:
                        batch = await anext(batches)
                    self._silence_limit = None
                    for event in batch:
                        if event.get("type") == "DELETE":
                            self._on_deleted(key_of(event["kv"]))
                        else:
                            self._on_put(event["kv"])
                        self._advance(int(event["kv"]["mod_revision"]))
                    self.problem = None
                    self._in_place.set()
        finally:
            self._silence_limit = None

    def _on_put(self, kv: KeyValue) -> None:
        key, revision = key_of(kv), int(kv["create_revision"])
        if key.startswith(self._begin + b".beat/"):
            return
        known = self._entries.get(key)
        if known is not None and known.hold.order == revision:
            return
        if known is not None:
            self._on_deleted(key)
        entry, hold = self._own.get(key), decode(kv)
        if hold is None:
            log.warning("ignored a hold in etcd: its value is not valid")
            return
        if entry is None:
            entry = _Entry(key, hold)
        elif entry.hold.order in (0, revision):
            entry.hold.order, entry.hold.fence = revision, hold.fence
        else:
            # A hold of an earlier daemon was replaced, which only a late transaction can do.
            self._lose(entry, UNREACHABLE)
            return
        self._entries[key] = entry
        self.queue.add(entry.hold)
        if entry.seen is not None and not entry.seen.done():
            entry.seen.set_result(None)
        if session_of(kv) == self._session.id and key not in self._own:
            # Put late, after this host has deleted it.
            self.release(entry.hold)

    def _on_deleted(self, key: bytes) -> None:
        entry = self._entries.get(key)
        if entry is not None:
            if key in self._own and not entry.hold.ending:
                entry.hold.lost = BROKEN if self._is_leased(entry) else UNREACHABLE
            self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        """Take out an entry whose key is gone. Those behind it may be held from now on."""
        self._own.pop(entry.key, None)
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        entry.hold.ending = True
        self.queue.remove(entry.hold)
        if entry.seen is not None and not entry.seen.done():
            entry.seen.set_exception(HoldLost(f"cannot hold {entry.hold}: it was lost at once"))
            entry.seen.exception()

    def _advance(self, revision: int) -> None:
        self._revision = max(self._revision, revision)
        awaited, self._awaited = self._awaited, []
        for at, seen in awaited:
            if at > self._revision:
                self._awaited.append((at, seen))
            elif not seen.done():
                seen.set_result(None)

    async def _put_beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self._own:
                with contextlib.suppress(BucketdError, Unavailable):
                    await self._put_beat()

    async def _put_beat(self) -> int:
        """Put the beat, and return its revision; the mirror has to see it by the deadline."""
        answer = await self._session.put_with_lease(self._beat_key)
        self._expect_event()
        return int(answer["header"]["revision"])

    def _expect_event(self) -> None:
        deadline, limit = self._client.deadline(), self._silence_limit
        if limit is not None and not limit.expired():
            when = limit.when()
            if when is None or deadline < when:
                limit.reschedule(deadline)

    # --- the lease

    def _is_leased(self, entry: _Entry) -> bool:
        """Report whether the lease of an entry is certainly not expired."""
        now = asyncio.get_running_loop().time()
        return entry.lease == self._session.lease and now < self._session.valid_until

    async def _watch_lease(self) -> None:
        """Tell holders that they have lost, once their lease may have expired."""
        while True:
            await asyncio.sleep(LEASE_CHECK_SECONDS)
            for entry in list(self._own.values()):
                if entry.lease is not None and not self._is_leased(entry):
                    try:
                        self._lose(entry, UNREACHABLE)
                    except Exception:
                        # One holder that cannot be told must not keep the others from it.
                        log.exception("unexpected error while ending a hold")

    def _lose(self, entry: _Entry, reason: str) -> None:
        """Report a hold of this host as lost. It stays in the queue until its key is gone."""
        if not entry.hold.ending:
            entry.hold.lost = reason
            self.queue.changed(entry.hold, LOST)
            self.release(entry.hold)


def _unchanged(key: bytes, create_revision: int) -> dict[str, Any]:
    return {"key": b64(key), "target": "CREATE", "create_revision": str(create_revision)}


def _no_answer(what: str, error: Exception) -> Overloaded:
    cause = str(error) or "no answer in time"
    return Overloaded(
        f"cannot {what}: etcd does not answer ({cause}); try again once a majority of its nodes "
        "is up"
    )
