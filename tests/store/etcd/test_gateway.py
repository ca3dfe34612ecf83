"""One call of the gateway, to endpoints that answer in every way that HTTP allows, late, or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest

from bucketd.errors import Internal
from bucketd.store.etcd.client import Access, Gateway, Lost

Answering = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


class Endpoint:
    """What it is asked is kept; how it answers each is said by ``turns``, the last one for ever."""

    def __init__(self, *turns: Answering) -> None:
        self.turns = list(turns)
        self.asked: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.url = ""
        self._serving: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def end(self) -> None:
        """Once its connections are, which are the gateway's to close."""
        await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.asked.append((head, body))
                turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
                await turn(writer, body)


@contextlib.asynccontextmanager
async def serving(
    *endpoints: Endpoint, timeout: float = 2.0, below: str = ""
) -> AsyncIterator[Gateway]:
    async with contextlib.AsyncExitStack() as stack:
        for endpoint in endpoints:
            server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
            stack.push_async_callback(endpoint.end)
            stack.callback(server.close)
            endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gateway = Gateway(Access(tuple(e.url + below for e in endpoints), timeout))
        stack.push_async_callback(gateway.close)
        yield gateway


async def call(gateway: Gateway, said: Any, seconds: float = 2.0, once: bool = True) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    return await gateway.call("/v3/kv/range", {"said": said}, deadline, once=once)


async def echo(writer: asyncio.StreamWriter, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body) + body)


async def chunked(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(body), 5000):
        piece = body[at : at + 5000]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def until_the_end(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    writer.close()


async def and_close(writer: asyncio.StreamWriter, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body) + body)


async def late(writer: asyncio.StreamWriter, body: bytes) -> None:
    await asyncio.sleep(0.4)
    await echo(writer, body)


async def half(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[:-3]))
    await writer.drain()
    writer.close()


async def nothing(writer: asyncio.StreamWriter, _body: bytes) -> None:
    writer.close()


async def no_http(writer: asyncio.StreamWriter, _body: bytes) -> None:
    writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")


async def no_json(writer: asyncio.StreamWriter, _body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<p>")


@pytest.mark.parametrize("how", [echo, chunked, until_the_end, and_close])
@pytest.mark.parametrize("size", [0, 400_000])
def test_answers_are_read_whole(how: Answering, size: int) -> None:
    async def run() -> None:
        endpoint = Endpoint(how)
        async with serving(endpoint) as gateway:
            for number in range(3):
                assert await call(gateway, [number, "x" * size]) == {"said": [number, "x" * size]}
        assert endpoint.connections == (1 if how in (echo, chunked) else 3)
        head, body = endpoint.asked[-1]
        assert head.startswith(b"POST /v3/kv/range HTTP/1.1\r\n")
        assert b"\r\nHost: " + endpoint.url.removeprefix("http://").encode() + b"\r\n" in head
        assert head.lower().count(b"content-length") == 1
        assert orjson.loads(body)["said"][0] == 2

    asyncio.run(run())


@pytest.mark.parametrize("how", [half, nothing, no_http, no_json])
def test_what_is_no_answer_may_have_been_done(how: Answering) -> None:
    async def run() -> None:
        async with serving(Endpoint(how, echo)) as gateway:
            with pytest.raises(Lost) as lost:
                await call(gateway, 1)
            assert lost.value.sent
            assert await call(gateway, 2) == {"said": 2}

    asyncio.run(run())


def test_what_comes_too_late_answers_no_other_call() -> None:
    async def run() -> None:
        async with serving(Endpoint(late, echo)) as gateway:
            with pytest.raises(Lost, match="no answer in time") as lost:
                await call(gateway, 1, 0.2)
            assert lost.value.sent
            given_up = asyncio.create_task(call(gateway, 2))
            await asyncio.sleep(0)
            given_up.cancel()
            for number in range(3, 9):
                assert await call(gateway, number) == {"said": number}
                await asyncio.sleep(0.1)

    asyncio.run(run())


def test_what_was_not_sent_was_not_done_and_another_endpoint_is_asked() -> None:
    async def run() -> None:
        hung, good = Endpoint(late), Endpoint(echo)
        async with serving(hung, good, timeout=0.6) as gateway:
            assert await call(gateway, 1, 0.6, once=False) == {"said": 1}
            assert len(hung.asked) == len(good.asked) == 1
        gone = Gateway(Access((good.url,), 0.6))
        with pytest.raises(Lost) as lost:
            await call(gone, 2)
        assert not lost.value.sent
        await gone.close()

    asyncio.run(run())


def test_an_endpoint_may_have_a_path_and_refusals_are_told() -> None:
    async def refuse(writer: asyncio.StreamWriter, _body: bytes) -> None:
        told = b'{"error":"no","code":7,"message":"no"}'
        head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(told) + told)

    async def run() -> None:
        endpoint = Endpoint(refuse)
        async with serving(endpoint, below="/of/etcd/") as gateway:
            with pytest.raises(Internal, match=r"refuses this daemon \(no\)"):
                await call(gateway, 1)
        assert endpoint.asked[0][0].startswith(b"POST /of/etcd/v3/kv/range HTTP/1.1\r\n")

    asyncio.run(run())


def test_who_gives_up_on_an_endpoint_together_goes_on_together() -> None:
    """Not each one step further: two of two would be back at the one that hangs."""

    async def hang(_writer: asyncio.StreamWriter, _body: bytes) -> None:
        await asyncio.sleep(1)

    async def run() -> None:
        hung, good = Endpoint(hang), Endpoint(echo)
        async with serving(hung, good, timeout=0.6) as gateway:
            asked = [call(gateway, number, 0.9, once=False) for number in range(4)]
            assert await asyncio.gather(*asked) == [{"said": number} for number in range(4)]
            assert (len(hung.asked), len(good.asked)) == (4, 4)

    asyncio.run(run())


def test_a_stream_that_nobody_wants_any_more_costs_no_endpoint_its_place() -> None:
    async def telling(writer: asyncio.StreamWriter, _body: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"result": {"n": 1}}\n' * 2)
        await writer.drain()

    async def run() -> None:
        one, other = Endpoint(telling, echo), Endpoint(echo)
        async with serving(one, other) as gateway:
            soon = asyncio.get_running_loop().time() + 2
            async with contextlib.aclosing(gateway.stream("/v3/watch", {}, soon)) as answers:
                assert await anext(answers) == {"n": 1}
            await call(gateway, 1)
        assert (len(one.asked), len(other.asked)) == (2, 0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (b'{"error": "etcdserver: no leader", "code": 14}', Lost),
        (b'{"error": {"message": "etcdserver: no leader", "grpc_code": 14}}\n', Lost),
        (b'{"error": "permission denied", "code": 7}', Internal),
        (b'{"result": {"n"', Lost),
    ],
)
def test_a_stream_that_is_refused(told: bytes, error: type[Exception]) -> None:
    async def refuse(writer: asyncio.StreamWriter, _body: bytes) -> None:
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n" + told)
        await writer.drain()
        writer.close()

    async def run() -> None:
        async with serving(Endpoint(refuse)) as gateway:
            soon = asyncio.get_running_loop().time() + 2
            async with contextlib.aclosing(gateway.stream("/v3/watch", {}, soon)) as answers:
                with pytest.raises(error):
                    await anext(answers)

    asyncio.run(run())
