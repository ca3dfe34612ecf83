"""asyncio: calls run on the loop itself, nothing is bound to one loop, a cancelled call is gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from bucketd_client import (
    AsyncBucket,
    ConnectionLost,
    DaemonUnreachable,
    InvalidRequest,
    Timeout,
    aio,
)
from bucketd_client._async_connections import MAX_CONNECTIONS, _loops
from fake import Seen, answer, fake
from harness import Daemon

OK = {"success": True, "bucket": {"a": 1}, "revision": 1}


@pytest.fixture
def mine(shared_daemon: Daemon, request: pytest.FixtureRequest) -> AsyncBucket:
    return AsyncBucket(device=request.node.name, job="j", socket=shared_daemon.socket)


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[str]:
    """A server that takes 0.3 s, and echoes the body."""

    async def respond(request: web.BaseRequest) -> web.Response:
        body = await request.text()
        await asyncio.sleep(0.3)
        return web.json_response({"success": True, "bucket": {"body": body}, "revision": 1})

    async with serving(respond, tmp_path) as path:
        yield path


@contextlib.asynccontextmanager
async def serving(
    respond: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], home: Path
) -> AsyncIterator[str]:
    """Serve on a unix socket, which the fixtures of pytest-aiohttp cannot."""
    runner = web.ServerRunner(web.Server(respond))
    await runner.setup()
    await web.UnixSite(runner, str(home / "s")).start()
    try:
        yield str(home / "s")
    finally:
        await runner.cleanup()


async def test_the_loop_runs_while_a_call_waits(slow: str) -> None:
    ticks = 0
    call = asyncio.create_task(AsyncBucket(device="d", job="j", socket=slow).get())
    while not call.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 10


async def test_a_call_takes_no_thread(mine: AsyncBucket) -> None:
    before = threading.active_count()
    await asyncio.gather(*(mine.set({f"k{n}": n}) for n in range(50)))
    assert threading.active_count() == before


async def test_the_time_of_a_call_that_waits_for_a_connection_counts(tmp_path: Path) -> None:
    nobody = AsyncBucket(device="d", job="j", socket=str(tmp_path / "none"), timeout=2)
    began = time.monotonic()
    calls = [nobody.set(a=n) for n in range(4 * MAX_CONNECTIONS)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - began < 6
    assert {type(outcome) for outcome in outcomes} <= {DaemonUnreachable, Timeout}


async def test_more_calls_than_connections_are_served_in_turn(slow: str) -> None:
    bucket = AsyncBucket(device="d", job="j", socket=slow, timeout=0.5)
    calls = [asyncio.create_task(bucket.get()) for _ in range(3 * MAX_CONNECTIONS)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:MAX_CONNECTIONS]] == [dict] * MAX_CONNECTIONS
    late = outcomes[MAX_CONNECTIONS:]
    assert {type(outcome) for outcome in late} == {Timeout}
    assert any("was not sent within" in str(outcome) for outcome in late)
    # The calls that gave up hold no connection.
    assert (await AsyncBucket(device="d", job="j", socket=slow).get())["body"] == ""


async def test_data_goes_as_it_was_when_it_was_given(slow: str) -> None:
    data = {"list": [1]}
    call = asyncio.create_task(AsyncBucket(device="d", job="j", socket=slow).set(data))
    await asyncio.sleep(0)
    data["list"].append(2)
    assert (await call)["body"] == '{"list":[1]}'


async def test_update_calls_the_function_on_the_loop(mine: AsyncBucket) -> None:
    here = []

    async def later(bucket: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        here.append(threading.get_ident())
        return {**bucket, "n": bucket.get("n", 0) + 1}

    def in_place(bucket: dict[str, Any]) -> None:
        here.append(threading.get_ident())
        bucket["n"] += 1

    await mine.update(later)
    assert await mine.update(in_place) == {"n": 2}
    assert set(here) == {threading.get_ident()}


async def test_updates_side_by_side_lose_nothing(mine: AsyncBucket) -> None:
    async def count() -> None:
        for _ in range(10):
            await mine.update(lambda bucket: {"n": bucket.get("n", 0) + 1})

    await asyncio.gather(*(count() for _ in range(8)))
    assert await mine.get() == {"n": 80}


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


def test_a_loop_that_shuts_down_leaves_nothing_open(mine: AsyncBucket) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    asyncio.run(mine.set(a=1))
    before, loops = descriptors(), len(_loops)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            asyncio.run(mine.get())
            gc.collect()
    assert (descriptors(), len(_loops)) == (before, loops)


def test_a_loop_that_is_closed_without_a_shutdown_is_forgotten(mine: AsyncBucket) -> None:
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(mine.set(a=1))
        loop.close()
    asyncio.run(mine.get())
    assert not [loop for loop in _loops if loop.is_closed()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # The program did not shut its loops down.
        gc.collect()


def test_a_forked_child_has_connections_of_its_own(mine: AsyncBucket) -> None:
    asyncio.run(mine.set(who="parent"))
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if asyncio.run(mine.set(child=1)) == {"who": "parent", "child": 1} else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


async def test_a_call_cancelled_at_any_moment_leaves_no_response_behind(
    mine: AsyncBucket, shared_daemon: Daemon
) -> None:
    """Each step of the loop is a moment; a later call of another bucket gets its own response."""
    other = AsyncBucket(device="other", job="j", socket=shared_daemon.socket)
    await mine.set(whose="mine")
    await other.set(whose="other")
    ended = cancelled = 0
    for steps in range(40):
        call = asyncio.create_task(mine.set({"whose": "mine", f"s{steps}": steps}))
        for _ in range(steps % 20):
            await asyncio.sleep(0.0005 if steps > 20 else 0)
        call.cancel()
        outcome = (await asyncio.gather(call, return_exceptions=True))[0]
        cancelled += isinstance(outcome, asyncio.CancelledError)
        ended += isinstance(outcome, dict)
        assert (await other.get()) == {"whose": "other"}
        assert (await mine.get())["whose"] == "mine"
    assert cancelled
    assert ended


async def test_a_cancelled_call_gives_its_connection_to_the_next(slow: str) -> None:
    bucket = AsyncBucket(device="d", job="j", socket=slow)
    calls = [asyncio.create_task(bucket.get()) for _ in range(MAX_CONNECTIONS)]
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(bucket.get()) for _ in range(3)]
    await asyncio.sleep(0.05)
    waiting[1].cancel()
    for call in calls:
        call.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in outcomes] == [dict, asyncio.CancelledError, dict]


RESPONSE = json.dumps(OK).encode()
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(RESPONSE), RESPONSE)


@contextlib.contextmanager
def cut() -> Iterator[tuple[str, list[int]]]:
    """A daemon that ends its first response after ``at[0]`` bytes, then closes or resets."""
    at: list[int] = [0, 0]

    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        at[1] += 1
        if at[1] > 1:
            answer(connection, 200, OK)
            return True
        connection.sendall(WHOLE[: at[0]])
        return at[0] == len(WHOLE)

    with fake(script) as server:
        yield server.path, at


async def test_a_response_that_is_cut_at_any_byte() -> None:
    """A read is repeated, and a write fails as one with an open outcome, unless all has arrived."""
    with cut() as (path, at):
        bucket = AsyncBucket(device="d", job="j", socket=path, timeout=3)
        for size in range(len(WHOLE) + 1):
            at[:] = [size, 0]
            assert await bucket.get() == {"a": 1}
            assert at[1] == (1 if size == len(WHOLE) else 2)
            at[:] = [size, 0]
            if size == len(WHOLE):
                assert await bucket.set(a=1) == {"a": 1}
            else:
                with pytest.raises(ConnectionLost):
                    await bucket.set(a=1)
            assert at[1] == 1


async def test_a_request_that_was_not_read_is_repeated(tmp_path: Path) -> None:
    """The daemon closes with our request unread: the kernel says ECONNRESET, so it did nothing."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            first, _ = listening.accept()
            time.sleep(0.1)
            first.close()
            second, _ = listening.accept()
            with second:
                second.recv(65536)
                answer(second, 200, OK)

        thread = threading.Thread(target=serve)
        thread.start()
        assert await AsyncBucket(device="d", job="j", socket=path).set(a=1) == {"a": 1}
        thread.join(5)


async def test_a_connection_closed_while_idle_makes_no_write_fail() -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 200, OK)
        return False

    with fake(script) as server:
        bucket = AsyncBucket(device="d", job="j", socket=server.path)
        for _ in range(20):
            await bucket.set(a=1)
        assert len(server.seen) == 20


async def test_bytes_that_nobody_asked_for_are_no_response() -> None:
    def script(connection: socket.socket, _seen: Seen, number: int) -> bool:
        answer(connection, 200, {**OK, "bucket": {"n": number}})
        if number == 1:
            time.sleep(0.05)
            answer(connection, 200, {**OK, "bucket": {"n": "unasked"}})
        return True

    with fake(script) as server:
        bucket = AsyncBucket(device="d", job="j", socket=server.path)
        assert await bucket.get() == {"n": 1}
        time.sleep(0.2)  # The loop does not run meanwhile.
        assert await bucket.get() == {"n": 2}
        assert server.connections == 2


async def test_a_full_queue_of_connections_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as waiting:
        listening.bind(path)
        listening.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock = waiting.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(path)
        with pytest.raises(DaemonUnreachable, match="accepts no further connections"):
            await AsyncBucket(device="d", job="j", socket=path, timeout=0.2).get()


async def test_a_large_body_that_is_refused_unread(mine: AsyncBucket) -> None:
    with pytest.raises(InvalidRequest.__base__) as caught:  # type: ignore[arg-type]
        await mine.set(x="x" * 20_000_000)
    assert caught.value.code == "too_large"
    assert await mine.get() == {}


async def test_no_time_to_send_it_all(tmp_path: Path) -> None:
    path = str(tmp_path / "deaf.sock")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        deaf.listen()
        for seconds, text in ((1e-6, "x"), (0.2, "x" * 3_000_000)):
            with pytest.raises(Timeout, match=r"it was not sent within .* s; nothing was changed"):
                await AsyncBucket(device="d", job="j", socket=path, timeout=seconds).set(a=text)


async def test_what_is_refused_before_it_is_sent(mine: AsyncBucket) -> None:
    for bad in ({"x": {1}}, {"x": "\ud800"}, [1]):
        with pytest.raises(InvalidRequest):
            await mine.set(bad)  # type: ignore[call-overload]


async def test_agent_outside_a_job_context_fails_without_an_exception() -> None:
    bucket, shared = aio.agent.utils.bucket, aio.agent.utils.deviceBucket
    for result in (await bucket.get(), await bucket.set({"a": 1}), await shared.get()):
        assert result["code"] == "no_job_context"


async def test_agent_refuses_data_without_json(
    mine: AsyncBucket, shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKETD_SOCKET", shared_daemon.socket)
    monkeypatch.setenv("BUCKETD_DEVICE", "a")
    monkeypatch.setenv("BUCKETD_JOB", "b")
    assert (await aio.agent.utils.bucket.set({"a": {1}}))["code"] == "invalid_request"
    assert (await aio.agent.utils.bucket.set({"a": 1}))["bucket"] == {"a": 1}
