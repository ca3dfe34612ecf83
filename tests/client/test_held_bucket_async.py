"""Holds on asyncio: a task keeps them, and a cancellation releases them."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
from bucketd_client import AsyncBucket, Bucket, Held, HoldLost, InvalidRequest, _hold_session
from harness import Daemon


@pytest.fixture
def place(shared_daemon: Daemon) -> Daemon:
    return shared_daemon


@pytest.fixture
def bucket(place: Daemon, request: pytest.FixtureRequest) -> AsyncBucket:
    return AsyncBucket(device=request.node.name, job="j", socket=place.socket)


async def is_free(bucket: AsyncBucket) -> bool:
    async with bucket.hold(wait=2):
        return True


async def test_the_holder_writes_and_another_is_told_who_holds(bucket: AsyncBucket) -> None:
    async with bucket.hold(exclusive=True) as held:
        assert await held.set({"n": 1}) == {"n": 1}
        assert (await held.update(lambda now: {**now, "n": 2})) == {"n": 2}
        with pytest.raises(Held) as refused:
            await bucket.hold(wait=0.05).acquire()
        assert refused.value.details[0]["id"] == held.id
        with pytest.raises(Held):
            await bucket.set(n=3)
        assert not held.lost
    # It is released before the next statement.
    assert await bucket.set(n=3) == {"n": 3}
    for call in (held.get(), held.set(n=4)):
        with pytest.raises(HoldLost, match="was released"):
            await call


async def test_without_a_block(bucket: AsyncBucket) -> None:
    with pytest.raises(InvalidRequest, match="use with, or acquire"):
        await bucket.hold().set(a=1)
    held = await bucket.hold().acquire()
    with pytest.raises(InvalidRequest, match="held already"):
        await held.acquire()
    await held.release()
    await held.release()
    async with held as again:
        assert await again.set(a=1) == {"a": 1}
    assert await is_free(bucket)


async def test_tasks_take_turns(bucket: AsyncBucket) -> None:
    inside, most = 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with bucket.hold() as held:
            inside += 1
            most = max(most, inside)
            await held.set(a=1)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(8)))
    assert most == 1


async def test_a_cancelled_wait_leaves_the_queue(bucket: AsyncBucket) -> None:
    async with bucket.hold():
        waiting = asyncio.create_task(bucket.hold(wait=30).acquire())
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await is_free(bucket)


async def test_a_waiter_that_goes_away_as_it_is_served(bucket: AsyncBucket) -> None:
    for _ in range(20):
        held = await bucket.hold().acquire()
        waiting = asyncio.create_task(bucket.hold(wait=30).acquire())
        await asyncio.sleep(0.02)
        release = asyncio.create_task(held.release())
        waiting.cancel()
        await asyncio.gather(waiting, release, return_exceptions=True)
        assert await is_free(bucket)


async def test_a_cancelled_block_releases(bucket: AsyncBucket) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with bucket.hold():
            entered.set()
            await asyncio.sleep(60)

    working = asyncio.create_task(work())
    await entered.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await is_free(bucket)


async def test_a_loss_can_cancel_the_work(place: Daemon, bucket: AsyncBucket) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with bucket.hold(on_lost=task.cancel) as held:
            held_id.append(held.id)
            entered.set()
            await asyncio.sleep(60)

    held_id: list[str] = []
    working = asyncio.create_task(work())
    await entered.wait()
    await asyncio.to_thread(place.request, "DELETE", f"/v1/holds/{held_id[0]}")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(working), 5)


def test_a_hold_ends_with_its_loop(place: Daemon, bucket: AsyncBucket) -> None:
    async def take() -> None:
        held.append(await bucket.hold().acquire())

    held: list[object] = []
    asyncio.run(take())
    with Bucket(device=bucket._device, job="j", socket=place.socket).hold(wait=2):
        pass
    with pytest.warns(ResourceWarning, match="unreleased hold of AsyncHeldBucket"):
        held.clear()


async def test_a_forgotten_hold_is_released_with_a_warning(bucket: AsyncBucket) -> None:
    held = [await bucket.hold().acquire()]
    with pytest.warns(ResourceWarning, match="unreleased hold"):
        held.clear()
    assert await is_free(bucket)


async def test_a_child_neither_keeps_nor_releases(place: Daemon, bucket: AsyncBucket) -> None:
    async with bucket.hold() as held:
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(HoldLost):
                _ = held._scope()
                os._exit(1)
            # Only the parent's descriptor is left.
            os._exit(0 if os.readlink(f"/proc/self/fd/{_descriptor(held)}") == os.devnull else 2)
        assert os.waitpid(pid, 0)[1] == 0
        assert await held.set(a=1) == {"a": 1}
    assert await is_free(bucket)


def _descriptor(held: object) -> int:
    number: int = held._keeper._connection._sock.fileno()  # type: ignore[attr-defined]
    return number


async def test_across_a_restart(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    # A daemon takes long to start on a busy machine.
    monkeypatch.setattr(_hold_session, "RETURN_SECONDS", 60.0)
    told = asyncio.Event()
    bucket = AsyncBucket(device="d", job="j", socket=daemon.socket)
    async with bucket.hold(exclusive=True, on_lost=told.set) as held:
        daemon.kill()
        await asyncio.to_thread(daemon.start)
        assert await held.set(a=1) == {"a": 1}
        with pytest.raises(Held):
            await bucket.hold(wait=0).acquire()
        assert not held.lost
        # A hold that is still on its way back has the longer time.
        async with asyncio.timeout(30):
            while not daemon.request("GET", "/v1/holds").json["holds"][0]["connected"]:
                await asyncio.sleep(0.01)
        monkeypatch.setattr(_hold_session, "RETURN_SECONDS", 0.5)
        daemon.kill()
        await asyncio.wait_for(told.wait(), 30)
        with pytest.raises(HoldLost, match="was not back within"):
            await held.set(a=2)
