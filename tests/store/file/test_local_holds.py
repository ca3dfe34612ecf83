"""A hold ends once its own writes in progress are done, since they may still become durable."""

from __future__ import annotations

import asyncio

import pytest

from bucketd.errors import HoldLost
from bucketd.model.bucket import ABSENT, BucketKey, Snapshot
from bucketd.store.file.holds import LocalHolds
from bucketd.store.holds import Hold, HoldQueue, Owner

KEY = BucketKey("phone", "login")


def new(number: int) -> Hold:
    return Hold(str(number), f"fence {number}", KEY, Owner("ada", 1000, 1), "host")


async def nothing() -> None:
    """Settle a store without commits."""


def test_a_write_in_progress_delays_the_next_holder() -> None:
    async def run() -> None:
        holds = LocalHolds(HoldQueue(), nothing)
        first, second = new(1), new(2)
        await holds.add(first)
        await holds.add(second)
        writes: list[asyncio.Future[Snapshot]] = [
            asyncio.get_running_loop().create_future() for _ in range(2)
        ]
        for write in writes:
            holds.follow(first.fence, write)
        ended = holds.release(first)
        assert holds.release(first) is ended
        with pytest.raises(HoldLost):
            holds.queue.check(KEY, (first.fence,))
        writes[0].set_result(ABSENT)
        await asyncio.sleep(0)
        assert not ended.done()
        assert not second.held
        writes[1].set_exception(HoldLost("refused"))
        await ended
        assert second.held
        holds.queue.check(KEY, (second.fence,))

    asyncio.run(run())


def test_a_fence_never_given_is_followed_by_nobody() -> None:
    async def run() -> None:
        holds = LocalHolds(HoldQueue(), nothing)
        holds.follow("never", asyncio.get_running_loop().create_future())
        await holds.add(new(1))
        await holds.release(new(2))

    asyncio.run(run())
