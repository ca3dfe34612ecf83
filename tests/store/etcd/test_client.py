"""One call to endpoints that answer in every way that HTTP allows, late, wrongly, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from bucketd.errors import BucketdError, Internal
from bucketd.store.etcd.client import EtcdClient, EtcdOptions, LeaseExpired, Unavailable

Answer = Callable[[web.BaseRequest, bytes], Awaitable[web.StreamResponse]]
ClientOf = Callable[..., Awaitable[tuple[EtcdClient, list["Endpoint"]]]]


class Endpoint:
    """Keep what was asked, and give one answer after the other, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[web.BaseRequest] = []
        self.connections: set[asyncio.BaseTransport | None] = set()
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.asked.append(request)
        self.connections.add(request.transport)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request, body)


@pytest.fixture
async def client_of(aiohttp_raw_server: Any) -> AsyncIterator[ClientOf]:
    """Serve endpoints, and return a client of them."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *answers: list[Answer], timeout: float = 2.0, path: str = ""
        ) -> tuple[EtcdClient, list[Endpoint]]:
            endpoints = [Endpoint(*several) for several in answers]
            for endpoint in endpoints:
                server = await aiohttp_raw_server(endpoint)
                endpoint.url = str(server.make_url(path))
            client = EtcdClient(EtcdOptions(tuple(e.url for e in endpoints), "/x/", timeout))
            stack.push_async_callback(client.close)
            return client, endpoints

        yield start


async def call(client: EtcdClient, sent: Any, seconds: float = 2.0, once: bool = True) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    return await client.call("/v3/kv/range", {"sent": sent}, deadline, once=once)


def stream(client: EtcdClient) -> contextlib.aclosing[Any]:
    soon = asyncio.get_running_loop().time() + 2
    return contextlib.aclosing(client.stream("/v3/watch", {}, soon))


async def echo(_request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return web.Response(body=body)


async def chunked(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for at in range(0, len(body), 5000):
        await response.write(body[at : at + 5000])
    return response


async def and_close(_request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    response = web.Response(body=body)
    response.force_close()
    return response


async def late(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    await asyncio.sleep(0.4)
    return await echo(request, body)


async def hang(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    await asyncio.sleep(1)
    return await echo(request, body)


def raw(text: bytes) -> Answer:
    """Send these bytes, with the body in place of BODY, then close the connection."""

    async def send(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.write(text.replace(b"BODY", body))
        request.transport.close()
        return web.Response()

    return send


def refusal(body: bytes, status: int = 400) -> Answer:
    async def refuse(_request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    return refuse


until_the_end = raw(b"HTTP/1.1 200 OK\r\n\r\nBODY")
with_trailer = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                   b"2;why=not\r\n{}\r\n0\r\nServer-Timing: 1\r\n\r\n")  # fmt: skip
half = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\nBODY")
nothing = raw(b"")
no_http = raw(b"SSH-2.0-OpenSSH\r\n\r\n")
no_status = raw(b"HTTP/1.1\r\n\r\n")
no_json = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<p>")
no_object = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
no_chunk = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsize\r\n{}\r\n")
endless_head = raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3_000_000)


@pytest.mark.parametrize("how", [echo, chunked, until_the_end, and_close])
@pytest.mark.parametrize("size", [0, 400_000])
async def test_answers_are_read_whole(client_of: ClientOf, how: Answer, size: int) -> None:
    client, (endpoint,) = await client_of([how])
    for number in range(3):
        assert await call(client, [number, "x" * size]) == {"sent": [number, "x" * size]}
    assert len(endpoint.connections) == (1 if how in (echo, chunked) else 3)
    request = endpoint.asked[-1]
    assert (request.method, request.path) == ("POST", "/v3/kv/range")
    assert request.headers["Host"] == endpoint.url.removeprefix("http://").rstrip("/")
    assert len(request.headers.getall("Content-Length")) == 1
    assert (await request.json())["sent"][0] == 2


async def test_chunks_may_have_extensions_and_trailers(client_of: ClientOf) -> None:
    client, _ = await client_of([with_trailer])
    assert await call(client, 1) == {}


@pytest.mark.parametrize(
    "how",
    [half, nothing, no_http, no_status, no_json, no_object, no_chunk, endless_head],
)
async def test_what_is_not_a_valid_answer_may_have_been_applied(
    client_of: ClientOf, how: Answer
) -> None:
    client, _ = await client_of([how, echo])
    with pytest.raises(Unavailable) as raised:
        await call(client, 1)
    assert raised.value.maybe_applied
    assert await call(client, 2) == {"sent": 2}


async def test_what_comes_too_late_answers_no_other_call(client_of: ClientOf) -> None:
    client, _ = await client_of([late, echo])
    with pytest.raises(Unavailable, match="no answer in time") as raised:
        await call(client, 1, 0.2)
    assert raised.value.maybe_applied
    given_up = asyncio.create_task(call(client, 2))
    await asyncio.sleep(0)
    given_up.cancel()
    for number in range(3, 9):
        assert await call(client, number) == {"sent": number}
        await asyncio.sleep(0.1)


async def test_what_was_not_sent_was_not_applied_and_another_endpoint_is_asked(
    client_of: ClientOf, unused_tcp_port: int
) -> None:
    client, (hung, good) = await client_of([late], [echo], timeout=0.6)
    assert await call(client, 1, 0.6, once=False) == {"sent": 1}
    assert len(hung.asked) == len(good.asked) == 1
    gone = EtcdClient(EtcdOptions((f"http://127.0.0.1:{unused_tcp_port}",), "/x/", 0.6))
    with pytest.raises(Unavailable, match="connection refused") as raised:
        await call(gone, 2)
    assert not raised.value.maybe_applied


@pytest.mark.parametrize("how", [half, nothing, late])
async def test_a_login_without_an_answer_means_that_the_request_was_not_sent(
    client_of: ClientOf, how: Answer
) -> None:
    _, (endpoint,) = await client_of([how])
    options = EtcdOptions((endpoint.url,), "/x/", 0.4, user="farm", password="secret")
    client = EtcdClient(options)
    with pytest.raises(Unavailable) as raised:
        await call(client, 1)
    assert not raised.value.maybe_applied
    assert [request.path for request in endpoint.asked] == ["/v3/auth/authenticate"]
    assert "secret" not in repr(options)
    await client.close()


async def test_an_endpoint_may_have_a_path_and_refusals_are_reported(client_of: ClientOf) -> None:
    refused = refusal(b'{"error": "no", "code": 7, "message": "no"}', 403)
    client, (endpoint,) = await client_of([refused], path="/of/etcd/")
    with pytest.raises(Internal, match=r"refuses this daemon \(permission denied\)"):
        await call(client, 1)
    assert endpoint.asked[0].path == "/of/etcd/v3/kv/range"


@pytest.mark.parametrize("code", [None, 1, 2, 3, 5, 7, 8, 9, 11, 14, 16, 99, "x"])
@pytest.mark.parametrize(
    "message", ["", "auth: ", "no leader ", "too many requests ", "lease not found ", "too large "]
)
async def test_no_error_passes_on_what_etcd_says(
    client_of: ClientOf, code: object, message: str
) -> None:
    """It may name a key, or have a part of a value."""
    body = b'{"error": "%bhunter2", "message": "%bhunter2", "code": %b}'
    words = message.encode()
    encoded = b"null" if code is None else str(code).encode() if code != "x" else b'"x"'
    refused = refusal(body % (words, words, encoded))
    client, _ = await client_of([refused])
    with pytest.raises((BucketdError, Unavailable, LeaseExpired)) as raised:
        await call(client, 1)
    assert "hunter2" not in str(raised.value)


async def test_calls_that_leave_an_endpoint_together_go_on_together(client_of: ClientOf) -> None:
    """Not each one step further: two of two would be back at the one that hangs."""
    client, (hung, good) = await client_of([hang], [echo], timeout=0.6)
    asked = [call(client, number, 0.9, once=False) for number in range(4)]
    assert await asyncio.gather(*asked) == [{"sent": number} for number in range(4)]
    assert (len(hung.asked), len(good.asked)) == (4, 4)


async def test_a_stream_that_its_reader_leaves_costs_no_endpoint_its_place(
    client_of: ClientOf,
) -> None:
    async def results(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        # A result may come in pieces, and several may come at once.
        for piece in (b'{"result": {"n"', b': 1}}\n{"result": {"n": 2}}\n'):
            await response.write(piece)
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        return response

    client, (one, other) = await client_of([results, echo], [echo])
    async with stream(client) as answers:
        assert [await anext(answers) for _ in range(2)] == [{"n": 1}, {"n": 2}]
    await call(client, 1)
    assert (len(one.asked), len(other.asked)) == (2, 0)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error": "etcdserver: no leader", "code": 14}', Unavailable),
        (b'{"error": {"message": "etcdserver: no leader", "grpc_code": 14}}\n', Unavailable),
        (b'{"error": "permission denied", "code": 7}', Internal),
        (b'{"result": {"n"', Unavailable),
        (b"", Unavailable),
    ],
)
async def test_a_stream_that_is_refused(
    client_of: ClientOf, body: bytes, error: type[Exception]
) -> None:
    head = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"
    client, _ = await client_of([raw(head + body)])
    async with stream(client) as answers:
        with pytest.raises(error):
            await anext(answers)


def test_a_daemon_on_files_does_not_import_the_engine() -> None:
    program = "import sys, bucketd.daemon; print([n for n in sys.modules if 'store.etcd' in n])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
