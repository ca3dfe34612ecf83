"""What a hostile or careless client does, each for some seconds, over sockets of its own.

All are bounded: in seconds, in connections, and in requests a second where
speed is not the point.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

from harness import Daemon, encode_request, pair, receive_all

Attack = Callable[[Daemon, float], None]
MIB = 1024 * 1024
HEAD = b"Host: bucketd\r\nContent-Type: application/json\r\n"
HOSTILE = (
    b"[" * 500_000,
    b"[],[" * 250_000,
    b'{"a":' * 150_000,
    b"[" + b"[]," * 340_000 + b"[]]",
    b'{"a": "' + b"\\u0041" * 170_000 + b'"}',
    b'{"a": ' + b"9" * 1_000_000 + b"}",
    b'{"a": 1' + b"0" * 300 + b".5e-300}",
    b'{"a": "' + b"\xf0\x9f\x98\x80" * 250_000 + b'"}',
    b'{"\\ud800": 1}',
    b"{" + b",".join(b'"k": %d' % n for n in range(90_000)) + b"}",
)


@contextlib.contextmanager
def connections(daemon: Daemon, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(number):
            socks.append(stack.enter_context(connected(daemon)))
        yield socks


def connected(daemon: Daemon) -> socket.socket:
    """A connection, as soon as the queue of those not yet accepted has room."""
    while True:
        try:
            return daemon.connect(timeout=10)
        except BlockingIOError:
            time.sleep(0.005)


def send(sock: socket.socket, text: bytes) -> bool:
    """Whether the daemon still takes it."""
    try:
        sock.sendall(text)
    except OSError:
        return False
    return True


def until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


def idle(daemon: Daemon, seconds: float) -> None:
    """2,000 connections that say nothing."""
    with connections(daemon, 2000):
        time.sleep(seconds)


def slow_headers(daemon: Daemon, seconds: float) -> None:
    """300 connections, a byte of a header at a time."""
    with connections(daemon, 300) as socks:
        for sock in socks:
            send(sock, b"GET /v1/bucket HTTP/1.1\r\nX: ")
        for _ in until(seconds):
            for sock in socks:
                send(sock, b"x")
            time.sleep(0.2)


def slow_bodies(daemon: Daemon, seconds: float) -> None:
    """300 connections, a byte of a body at a time."""
    head = f"PUT {pair('slow', 'body')} HTTP/1.1\r\n".encode() + HEAD
    with connections(daemon, 300) as socks:
        for sock in socks:
            send(sock, head + b"Content-Length: 1000000\r\n\r\n{")
        for _ in until(seconds):
            for sock in socks:
                send(sock, b" ")
            time.sleep(0.2)


def huge_bodies(daemon: Daemon, seconds: float) -> None:
    """1 GiB, declared or in chunks, sent until the daemon has had enough."""
    head = f"PUT {pair('huge', 'body')} HTTP/1.1\r\n".encode() + HEAD
    chunk = b"%X\r\n" % MIB + b" " * MIB + b"\r\n"
    for _ in until(seconds):
        for framing, piece in ((b"Content-Length: 1073741824", b" " * MIB), (None, chunk)):
            with connected(daemon) as sock:
                send(sock, head + (framing or b"Transfer-Encoding: chunked") + b"\r\n\r\n")
                began = time.monotonic()
                while send(sock, piece):
                    assert time.monotonic() < began + 5, "the daemon reads on and on"
        time.sleep(0.05)


def pipelining(daemon: Daemon, seconds: float) -> None:
    """20 connections with 200 requests each before an answer is read."""
    text = encode_request("GET", pair("pipe", "line"), close=False) * 200
    with connections(daemon, 20) as socks:
        for _ in until(seconds):
            for sock in socks:
                send(sock, text)
            for sock in socks:
                seen = 0
                while seen < 200:
                    seen += sock.recv(MIB).count(b"HTTP/1.1 200")
            time.sleep(0.2)


def many_keys(daemon: Daemon, seconds: float) -> None:
    """100,000 keys in one bucket, set, merged and asked for."""
    keys = {f"{n}": 0 for n in range(100_000)}
    path, whole = pair("many", "keys"), json.dumps(keys, separators=(",", ":")).encode()
    query = "&".join(f"key={n}" for n in range(2000))
    for number, _ in enumerate(until(seconds)):
        refused = {
            daemon.request("PUT", path, whole).status,
            daemon.request("PATCH", path, {"1": number}).status,
            daemon.request("GET", f"{path}?{query}").status,
        } - {200}
        assert not refused, refused
        time.sleep(0.1)


def hostile_json(daemon: Daemon, seconds: float) -> None:
    """Texts that parsers choke on, all within the limit of one body."""
    for _ in until(seconds):
        for text in HOSTILE:
            status = daemon.request("PUT", pair("hostile", "json"), text).status
            assert status in (200, 400, 413), (status, text[:20])
            time.sleep(0.02)


def tight_loop(daemon: Daemon, seconds: float) -> None:
    """A job that writes as fast as it is answered, on 8 connections."""
    with connections(daemon, 8) as socks:
        for number, _ in enumerate(until(seconds)):
            for index, sock in enumerate(socks):
                body = {"n": number, "pad": "x" * 1000}
                send(sock, encode_request("PATCH", pair("tight", f"{index}"), body, close=False))
            for sock in socks:
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def churn(daemon: Daemon, seconds: float) -> None:
    """Connections that come, say half a request, and go."""
    for _ in until(seconds):
        for text in (b"", b"GET /v1/bu", b"\0" * 100, b"\x16\x03\x01\x02\x00\x01"):
            with connected(daemon) as sock:
                send(sock, text)
        time.sleep(0.001)


def unread_answers(daemon: Daemon, seconds: float) -> None:
    """100 connections that ask for 1 MiB again and again, and read nothing."""
    path = pair("unread", "answers")
    daemon.request("PUT", path, {"pad": "x" * 1_000_000})
    text = encode_request("GET", path, close=False)
    with connections(daemon, 100) as socks:
        for sock in socks:
            sock.settimeout(0.01)
        for _ in until(seconds):
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(text * 10)
            time.sleep(0.1)


def unread_events(daemon: Daemon, seconds: float) -> None:
    """1,000 streams of one bucket, none of them read, while that changes in a loop."""
    path = pair("unread", "events")
    text = encode_request("GET", f"{path}/events?snapshot=true", close=False)
    with connections(daemon, 1000) as socks:
        for sock in socks:
            assert send(sock, text)
        for number, _ in enumerate(until(seconds)):
            body = {"n": number, "pad": str(number % 10) * 10_000}
            assert daemon.request("PATCH", path, body).status == 200
            time.sleep(0.01)


def contexts(daemon: Daemon, seconds: float) -> None:
    """An operator that mints and never revokes."""
    for _ in until(seconds):
        daemon.mint("minting", "job", ttl_seconds=60)
        time.sleep(0.001)


ATTACKS: tuple[Attack, ...] = (
    *(idle, slow_headers, slow_bodies, huge_bodies, pipelining, many_keys, hostile_json),
    *(tight_loop, churn, unread_answers, unread_events, contexts),
)


def is_served(daemon: Daemon) -> bool:
    """Whether everybody is served as before."""
    path = pair("after", json.dumps(time.monotonic()))
    wrote = daemon.request("PUT", path, {"a": 1}).status == 200
    with daemon.connect() as sock:
        sock.sendall(encode_request("GET", path))
        return wrote and b'{"a":1}' in receive_all(sock)
