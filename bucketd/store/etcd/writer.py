"""Changes made on etcd: compare-and-swap of a key until it holds, also where answers are lost.

What the last one left is remembered, so that a host that keeps writing a bucket needs one round
trip. A remembered state is only ever a guess that etcd confirms: nothing is answered from it.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ...errors import BucketdError, Overloaded, StorageFull
from ...model.bucket import BucketKey, Snapshot
from . import keys, stale_cache
from .client import Gateway, LeaseExpired, Lost
from .compare_and_swap import Write, made, settled, txn, unknown
from .idempotency import Fence, Slot
from .keys import StoredValue
from .reader import EtcdReading

_REMEMBERED = 1000
_REMEMBERED_BYTES = 16 * 1024 * 1024  # of buckets
_TRIES = 200


@dataclass(slots=True)
class _Swap:
    """One compare-and-swap, from ``held`` to ``after``; sent again until it is answered."""

    write: Write
    held: StoredValue
    after: Snapshot
    deadline: float
    tell: bool  # what the key holds, should the swap not hold
    lost: bool = False  # it may have been made by a try that was not answered
    asked: float = 0.0  # when the last try was sent
    slot: Slot | None = None  # by which one that makes a bucket is known

    @property
    def key(self) -> BucketKey:
        return self.write.key


class Writer:
    """Of keys below one prefix; messages name ``timeout``, in seconds."""

    def __init__(
        self, gateway: Gateway, reading: EtcdReading, fence: Fence, prefix: str, timeout: float
    ) -> None:
        self._gateway, self._reading, self._fence = gateway, reading, fence
        self._prefix, self._timeout = prefix, timeout
        self._last: OrderedDict[BucketKey, StoredValue] = OrderedDict()
        self._last_bytes = 0
        self.retries = 0

    async def make(self, write: Write, deadline: float) -> Snapshot:
        """Compare-and-swap until it holds, time is up, or others won too often."""
        held, fresh = self._last.get(write.key), False
        for attempt in range(_TRIES):
            if held is None:
                held, fresh = await self._reading.load(write.key, deadline), True
            after = _after(write, held.snapshot, fresh)
            if after is held.snapshot:
                if fresh:
                    return after
                held = None  # that nothing changes is for etcd to say
                continue
            done, held = await self._try(_Swap(write, held, after, deadline, tell=fresh))
            if done:
                return after
            fresh = True
            self.retries += 1
            await asyncio.sleep(random.uniform(0, 0.002 * min(attempt, 10)))  # noqa: S311
        raise Overloaded(
            f"cannot change {write.key}: other hosts changed it {_TRIES} times meanwhile; "
            "nothing was changed; try again"
        )

    async def _try(self, swap: _Swap) -> tuple[bool, StoredValue | None]:
        """Whether it was made, and what the key holds now (None: unknown, without ``tell``)."""
        self._forget(swap.key)
        try:
            answer = await self._answer(swap)
        except StorageFull as full:
            return True, await self._despite_full(swap, full)
        finally:
            if swap.slot is not None:
                self._fence.give(swap.slot, doubtful=True)
        self._reading.answered()
        return self._outcome(swap, answer)

    async def _answer(self, swap: _Swap) -> dict[str, Any]:
        """etcd's, to one try or the next: either swap counts once, and its ETag tells of it."""
        while True:
            try:
                return await self._ask(swap)
            except Lost as error:
                swap.lost, swap.tell = swap.lost or error.sent, True
                await self._gateway.pause()
                if asyncio.get_running_loop().time() >= swap.deadline:
                    raise self._unconfirmed(swap, error) from error
            except StorageFull:
                raise
            except BucketdError as error:
                if swap.lost:
                    told = f"cannot change {swap.key}: etcd's answer was lost, and then: {error}"
                    raise unknown(told) from error
                raise

    async def _ask(self, swap: _Swap) -> dict[str, Any]:
        """Send it once. Raises BucketdError, or Lost."""
        name = keys.of(self._prefix, swap.key)
        body = txn(name, swap.held, swap.after, swap.key, swap.tell)
        if not swap.held.at:
            made = await self._fenced(swap, body)
            if made is not None:
                return {"succeeded": True, "header": {"revision": made}}
        swap.asked = stale_cache.now()
        answer = await self._gateway.call("/v3/kv/txn", body, swap.deadline, once=True)
        if swap.slot is not None:
            made = answer["header"]["revision"] if answer.get("succeeded") else None
            self._fence.give(swap.slot, made)
            swap.slot = None
        return answer

    async def _fenced(self, swap: _Swap, body: dict[str, Any]) -> str | None:
        """Have it make the bucket once at most; the revision, if a try before has made it."""
        etag = str(swap.after.etag)
        if swap.slot is None:
            swap.slot = await self._fence.take(swap.deadline)
        elif swap.lost:
            try:
                made = await self._fence.close(swap.slot, etag, swap.deadline)
            except LeaseExpired as gone:
                self._fence.renew()
                told = f"cannot change {swap.key}: etcd's answer was lost, and {gone}"
                raise unknown(told) from gone
            if made is not None:
                return made
            swap.lost = False
        swap.slot.guard(body, etag)
        return None

    def _outcome(self, swap: _Swap, answer: dict[str, Any]) -> tuple[bool, StoredValue | None]:
        if answer.get("succeeded"):
            at = int(answer["header"]["revision"]) if swap.after.revision else 0
            now = StoredValue(swap.after, at)
            self._remember(swap.key, now)
            self._reading.note(swap.key, now, answer, swap.asked)
            return True, now
        if not answer.get("responses"):
            return False, None
        now = keys.held(answer["responses"][0]["response_range"].get("kvs"), swap.key)
        self._reading.note(swap.key, now, answer, swap.asked)
        if not swap.held.at and not now.at:
            self._fence.renew()
        if swap.lost:
            return settled(swap.write, swap.after, now)
        return False, now

    async def _despite_full(self, swap: _Swap, full: StorageFull) -> StoredValue:
        """What the key holds, if the swap was made: etcd makes the one that crosses its limit, and
        refuses it all the same. Else raises ``full``, where that is for certain.
        """
        key = swap.key
        try:
            now = await self._reading.load(key, swap.deadline)
            # Another host may have found it, and removed it since.
            if made(swap.after, now) or await self._was_made(swap):
                return now
        except (BucketdError, Lost) as error:
            raise unknown(f"cannot change {key}: etcd is full and does not answer") from error
        if swap.lost or now.at != swap.held.at:
            raise unknown(f"cannot change {key}: etcd is full, and told nothing for certain")
        raise full

    async def _was_made(self, swap: _Swap) -> bool:
        """Whether a bucket that is not there was, by this; of a stored one the revision tells."""
        if swap.slot is None:
            return False
        return await self._fence.noted(swap.slot, str(swap.after.etag), swap.deadline)

    def _unconfirmed(self, swap: _Swap, error: Lost) -> BucketdError:
        self._reading.unanswered(error)
        told = f"cannot change {swap.key}: etcd did not confirm it in {self._timeout:g} s"
        if swap.lost:
            return unknown(told)
        return Overloaded(f"{told}: no endpoint was reached; nothing was changed; try again")

    def _remember(self, key: BucketKey, held: StoredValue) -> None:
        self._forget(key)
        self._last[key] = held
        self._last_bytes += len(held.snapshot.bucket)
        while len(self._last) > _REMEMBERED or self._last_bytes > _REMEMBERED_BYTES:
            self._forget(next(iter(self._last)))

    def _forget(self, key: BucketKey) -> None:
        gone = self._last.pop(key, None)
        if gone is not None:
            self._last_bytes -= len(gone.snapshot.bucket)


def _after(write: Write, now: Snapshot, fresh: bool) -> Snapshot:
    """What it makes of this state: the state itself where that is a guess, and is refused."""
    try:
        return write.after(now)
    except BucketdError:
        if fresh:
            raise
        return now
