"""EtcdStore: buckets in an etcd cluster, one key each, shared by the daemons of many hosts.

Every read is linearizable. A change is a compare-and-swap on the key's ``mod_revision``; what
the last one left is remembered, so that a host that keeps writing a bucket needs one round trip.
A remembered state is only ever a guess that etcd confirms: nothing is answered from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..counting import Histogram
from ..errors import BucketdError, Internal, Overloaded, StorageFull
from ..model import ABSENT, BucketKey, Change, Guard, Snapshot, timestamp
from . import etcdkeys as keys
from .base import Changed, Filter, Listener, Page
from .etcdkeys import Held
from .etcdwatch import EtcdWatch
from .gateway import Access, Gateway, Lost, b64

_OF_THIS_PROCESS = secrets.token_hex(8)  # hosts share the ETags' space; 64 bits keep them apart
_numbers = itertools.count(1)
_REMEMBERED = 1000
_TRIES = 200
_SCANNED = 100


@dataclass(slots=True)
class _Turn:
    """Who changes one bucket, here: one after another, so that no host competes with itself."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class EtcdStore:
    """Use from one event loop; ``close`` it when done. ``prefix`` begins every key."""

    def __init__(self, access: Access, prefix: str) -> None:
        self._gateway, self._access, self._prefix = Gateway(access), access, prefix
        self._watch = EtcdWatch(self._gateway, prefix, access.timeout)
        self._turns: dict[BucketKey, _Turn] = {}
        self._last: OrderedDict[BucketKey, Held] = OrderedDict()
        self.problem: str | None = None
        self.histograms: dict[str, Histogram] = {}  # of a journal, which there is none of
        self.stalled_seconds = 0.0
        self._retries = 0

    @property
    def gateway(self) -> Gateway:
        """To the cluster, for what is shared besides buckets."""
        return self._gateway

    @property
    def mark(self) -> str:
        return self._watch.mark

    def listen(self, listener: Listener) -> None:
        self._watch.listen(listener)

    async def attend(self) -> None:
        try:
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
        self, _key: BucketKey, _change: Change, _guard: Guard, _automation: str | None = None
    ) -> asyncio.Future[Snapshot] | None:
        return None

    async def read(self, key: BucketKey) -> Snapshot:
        return (await self._load(key, self._deadline())).snapshot

    async def commit(
        self, key: BucketKey, change: Change, guard: Guard, automation: str | None = None
    ) -> Snapshot:
        deadline = self._deadline()
        async with self._turn(key, deadline):
            return await self._swap(_Write(key, change, guard, automation), deadline)

    async def _swap(self, write: _Write, deadline: float) -> Snapshot:
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
            done, held = await self._try(write, held, after, deadline)
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
        self, write: _Write, held: Held, after: Snapshot, deadline: float
    ) -> tuple[bool, Held]:
        """Whether the swap was made, and what the key holds now.

        After a lost answer it is sent again: either swap counts once, and its ETag tells of it.
        """
        key, lost = write.key, False
        body = _txn(keys.of(self._prefix, key), held, after, key)
        self._last.pop(key, None)
        while True:
            try:
                answer = await self._gateway.call("/v3/kv/txn", body, deadline, once=True)
            except Lost as error:
                lost = lost or error.sent
                await self._gateway.pause()
                if asyncio.get_running_loop().time() >= deadline:
                    raise self._unconfirmed(key, error, lost) from error
                continue
            except StorageFull as full:
                return True, await self._despite_full(key, after, full, lost, deadline)
            self.problem = None
            if answer.get("succeeded"):
                now = Held(after, int(answer["header"]["revision"]) if after.revision else 0)
                self._remember(key, now)
                return True, now
            now = keys.held(answer["responses"][0]["response_range"].get("kvs"), key)
            if lost:
                return _settled(write, after, now)
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
            raise _unknown(f"cannot change {key}: etcd is full and does not answer") from error
        if _made(after, now):
            return now
        if lost:
            raise _unknown(f"cannot change {key}: etcd's answer was lost, and it is full")
        raise full

    def _unconfirmed(self, key: BucketKey, error: Lost, sent: bool) -> BucketdError:
        self.problem = f"cannot reach a majority of etcd: {error}"
        told = f"cannot change {key}: etcd did not confirm it in {self._access.timeout:g} s"
        if sent:
            return _unknown(told)
        return Overloaded(f"{told}: no endpoint was reached; nothing was changed; try again")

    async def _load(self, key: BucketKey, deadline: float) -> Held:
        body = {"key": b64(keys.of(self._prefix, key))}
        answer = await self._range(body, f"read {key}", deadline)
        return keys.held(answer.get("kvs"), key)

    async def _range(self, body: dict[str, Any], what: str, deadline: float) -> dict[str, Any]:
        try:
            answer = await self._gateway.call("/v3/kv/range", body, deadline)
        except Lost as error:
            self.problem = f"cannot reach a majority of etcd: {error}"
            raise Overloaded(
                f"cannot {what}: etcd did not answer within {self._access.timeout:g} s ({error}); "
                "try again once a majority of its nodes is up"
            ) from error
        self.problem = None
        return answer

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        start = keys.resumed(self._prefix, cursor)
        page = Page([], None, [])
        for begin, end in keys.ranges(self._prefix, only):
            if start is None or start < end:
                more = await self._collect(page, max(begin, start or b""), end, only, limit)
                if more is not None:
                    return replace(page, next_cursor=keys.cursor(more))
        return page

    async def _collect(
        self, page: Page, begin: bytes, end: bytes, only: Filter, limit: int
    ) -> bytes | None:
        """Rows of one range into the page; where to go on, once it is full."""
        while True:
            body = {"key": b64(begin), "range_end": b64(end), "limit": str(_SCANNED)}
            answer = await self._range(body, "list the buckets", self._deadline())
            for found in answer.get("kvs", ()):
                if len(page.rows) == limit:
                    return begin
                begin = keys.collect(page, found, only) + b"\0"
            if not answer.get("more"):
                return None

    async def check(self) -> dict[str, Any]:
        counts: dict[str, Any] = {}
        for name, (begin, end) in keys.sections(self._prefix).items():
            body = {"key": b64(begin), "range_end": b64(end), "count_only": True}
            with contextlib.suppress(BucketdError):
                answer = await self._range(body, "count the buckets", self._deadline())
                counts[name] = int(answer.get("count", 0))
        return {
            "engine": "etcd",
            "healthy": self.problem is None,
            "problem": self.problem,
            "durability": "strict",
            "endpoints": list(self._access.endpoints),
            "prefix": self._prefix,
            "swap_retries": self._retries,
            **counts,
        }

    async def close(self) -> None:
        await self._watch.close()
        await self._gateway.close()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._access.timeout

    def _remember(self, key: BucketKey, held: Held) -> None:
        self._last[key] = held
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    @contextlib.asynccontextmanager
    async def _turn(self, key: BucketKey, deadline: float) -> AsyncIterator[None]:
        """In order of arrival; Overloaded for who does not get it in time."""
        turn = self._turns.setdefault(key, _Turn())
        turn.wanted += 1
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await turn.lock.acquire()
            except TimeoutError:
                raise Overloaded(
                    f"cannot change {key}: earlier changes of it still wait for etcd; nothing "
                    "was changed; try again"
                ) from None
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[key]


@dataclass(frozen=True, slots=True)
class _Write:
    key: BucketKey
    change: Change
    guard: Guard
    automation: str | None

    def after(self, now: Snapshot) -> Snapshot:
        """What it makes of this state: the very same object when nothing changes."""
        self.guard.check(now, self.key)
        stored = now.bucket if now.revision else None
        bucket = self.change.result(stored, self.automation or now.automation)
        if bucket == stored:
            return now
        if bucket is None:
            return ABSENT
        at = timestamp()
        return Snapshot(
            bucket,
            now.revision + 1,
            f"{_OF_THIS_PROCESS}{next(_numbers):06x}",
            self.automation or now.automation,
            now.created_at or at,
            at,
        )


def _made(after: Snapshot, now: Held) -> bool:
    """Whether the key holds what was to be written: ETags never repeat, absence may."""
    return now.snapshot.etag == after.etag if after.revision else not now.at


def _settled(write: _Write, after: Snapshot, now: Held) -> tuple[bool, Held]:
    """A swap whose first answer was lost did not hold the second time: did it the first?"""
    if _made(after, now) and (after.revision or not write.guard):
        return True, now
    raise _unknown(f"cannot change {write.key}: etcd's answer was lost, and it changed since")


def _cannot_watch(error: Exception) -> Overloaded:
    return Overloaded(
        f"cannot watch: etcd does not tell of changes ({error}); try again once a majority of "
        "its nodes is up"
    )


def _unknown(told: str) -> Internal:
    # Not "overloaded": clients may repeat that unasked, and this may have been done.
    return Internal(f"{told}; the outcome is unknown, so read it again before you repeat")


def _txn(name: bytes, held: Held, after: Snapshot, key: BucketKey) -> dict[str, Any]:
    """Put or delete if the key is as it was; else tell what it is."""
    coded = b64(name)
    if after.revision:
        put = {"request_put": {"key": coded, "value": b64(keys.encode(key, after))}}
    else:
        put = {"request_delete_range": {"key": coded}}
    return {
        "compare": [{"key": coded, "target": "MOD", "mod_revision": str(held.at)}],
        "success": [put],
        "failure": [{"request_range": {"key": coded}}],
    }
