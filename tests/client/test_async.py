"""asyncio: nothing blocks, nothing is bound to one loop, and time counts from the call."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from bucketd_client import AsyncBucket, DaemonUnreachable, InvalidRequest, Timeout, aio
from fake import Seen, answer, fake
from harness import Daemon


@pytest.fixture
def mine(shared_daemon: Daemon, request: pytest.FixtureRequest) -> AsyncBucket:
    return AsyncBucket(device=request.node.name, job="j", socket=shared_daemon.socket)


def slow(connection: socket.socket, seen: Seen, _number: int) -> bool:
    time.sleep(0.3)
    answer(connection, 200, {"success": True, "bucket": {"body": seen.body.decode()}})
    return True


def test_the_loop_goes_on_while_a_call_waits() -> None:
    async def play(path: str) -> int:
        ticks = 0
        call = asyncio.create_task(AsyncBucket(device="d", job="j", socket=path).get())
        while not call.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    with fake(slow) as server:
        assert asyncio.run(play(server.path)) > 10


def test_the_threads_of_the_loop_are_left_to_the_program(tmp_path: Path) -> None:
    async def play() -> float:
        nobody = AsyncBucket(device="d", job="j", socket=str(tmp_path / "none"), timeout=1)
        calls = [asyncio.create_task(nobody.get()) for _ in range(3 * 16)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await asyncio.to_thread(time.sleep, 0)
        took = time.monotonic() - began
        for call in calls:
            with pytest.raises((DaemonUnreachable, Timeout)):
                await call
        return took

    assert asyncio.run(play()) < 0.5


def test_the_time_of_a_call_that_waits_for_its_turn_counts(tmp_path: Path) -> None:
    async def play() -> None:
        nobody = AsyncBucket(device="d", job="j", socket=str(tmp_path / "none"), timeout=0.5)
        began = time.monotonic()
        calls = [nobody.set(a=n) for n in range(4 * 16)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - began < 1.5
        assert {type(outcome) for outcome in outcomes} <= {DaemonUnreachable, Timeout}

    asyncio.run(play())


def test_data_goes_as_it_was_when_it_was_given() -> None:
    async def play(path: str) -> Any:
        data = {"list": [1]}
        call = asyncio.create_task(AsyncBucket(device="d", job="j", socket=path).set(data))
        await asyncio.sleep(0)
        data["list"].append(2)
        return (await call)["body"]

    with fake(slow) as server:
        assert asyncio.run(play(server.path)) == '{"list":[1]}'


def test_update_calls_the_function_on_the_loop(mine: AsyncBucket) -> None:
    here = []

    async def later(bucket: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        here.append(threading.get_ident())
        return {**bucket, "n": bucket.get("n", 0) + 1}

    def in_place(bucket: dict[str, Any]) -> None:
        here.append(threading.get_ident())
        bucket["n"] += 1

    async def play() -> dict[str, Any]:
        await mine.update(later)
        return await mine.update(in_place)

    assert asyncio.run(play()) == {"n": 2}
    assert set(here) == {threading.get_ident()}


def test_updates_side_by_side_lose_nothing(mine: AsyncBucket) -> None:
    async def count() -> None:
        for _ in range(10):
            await mine.update(lambda bucket: {"n": bucket.get("n", 0) + 1})

    async def play() -> dict[str, Any]:
        await asyncio.gather(*(count() for _ in range(8)))
        return await mine.get()

    assert asyncio.run(play()) == {"n": 80}


def test_loops_in_several_threads_share_a_client(mine: AsyncBucket) -> None:
    def work(number: int) -> None:
        async def play() -> None:
            for turn in range(20):
                assert (await mine.set({f"t{number}": turn}))[f"t{number}"] == turn

        asyncio.run(play())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(mine.get()) == {f"t{n}": 19 for n in range(4)}


def test_a_forked_child_has_threads_of_its_own(mine: AsyncBucket) -> None:
    asyncio.run(mine.set(who="parent"))
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if asyncio.run(mine.set(child=1)) == {"who": "parent", "child": 1} else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_cancelled_call_leaves_the_client_usable(mine: AsyncBucket) -> None:
    async def play() -> dict[str, Any]:
        call = asyncio.create_task(mine.set(a=1))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return await mine.set(b=1)

    assert asyncio.run(play())["b"] == 1


def test_what_is_refused_before_it_is_sent(mine: AsyncBucket) -> None:
    for bad in ({"x": {1}}, {"x": "\ud800"}, [1]):
        with pytest.raises(InvalidRequest):
            asyncio.run(mine.set(bad))  # type: ignore[arg-type]


def test_agent_outside_a_job_context_fails_without_an_exception() -> None:
    async def play() -> None:
        bucket, shared = aio.agent.utils.bucket, aio.agent.utils.deviceBucket
        for result in (await bucket.get(), await bucket.set({"a": 1}), await shared.get()):
            assert result["code"] == "no_job_context"
        assert (await bucket.set({"a": {1}}))["code"] == "invalid_request"

    asyncio.run(play())
