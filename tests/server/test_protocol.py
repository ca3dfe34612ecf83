"""HTTP as it may come: odd, hostile, slow. Each gets one clear answer; nothing is smuggled."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from harness import Daemon, encode_request, new_daemon, pair, read_response, receive_all

GET = b"GET /v1/devices/d/bucket HTTP/1.1\r\nHost: b\r\n"
PUT = b"PUT /v1/devices/d/bucket HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
CLOSE = b"Connection: close\r\n"


@pytest.fixture(scope="module")
def hasty() -> Iterator[Daemon]:
    """A daemon that waits for nobody."""
    daemon = new_daemon()
    daemon.config.write_text(
        "[limits]\nheader_timeout_seconds = 0.3\nbody_timeout_seconds = 0.3\n"
        "idle_timeout_seconds = 0.6\nmax_connections = 40\n"
    )
    try:
        yield daemon.start()
    finally:
        daemon.remove()


REFUSED: dict[str, tuple[bytes, bytes]] = {
    "both lengths": (PUT + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", b"400"),
    "two lengths": (PUT + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", b"400"),
    "a negative length": (PUT + b"Content-Length: -1\r\n\r\n{}", b"400"),
    "a signed length": (PUT + b"Content-Length: +2\r\n\r\n{}", b"400"),
    "a hexadecimal length": (PUT + b"Content-Length: 0x2\r\n\r\n{}", b"400"),
    "a bad chunk": (PUT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", b"400"),
    "an unknown encoding": (PUT + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", b"400"),
    "NUL in a header": (GET + b"X: a\0b\r\n\r\n", b"400"),
    "a header without a colon": (GET + b"nonsense\r\n\r\n", b"400"),
    "a blank before the colon": (GET + b"Content-Length : 2\r\n\r\n{}", b"400"),
    "a folded header": (GET + b"X: a\r\n b\r\n\r\n", b"400"),
    "no HTTP": (b"hello\r\n\r\n", b"400"),
    "HTTP/2.0": (b"GET /healthz HTTP/2.0\r\nHost: b\r\n\r\n", b"400"),
    "HTTP/9.9": (b"GET /healthz HTTP/9.9\r\nHost: b\r\n\r\n", b"400"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    "a long line": (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"400"),
    "headers of 40,000 bytes": (
        GET + CLOSE + 5 * (b"X: " + b"x" * 8000 + b"\r\n") + b"\r\n",
        b"400",
    ),
    "Origin": (GET + CLOSE + b"Origin: http://evil\r\n\r\n", b"403"),
    "Referer": (GET + CLOSE + b"Referer: http://evil\r\n\r\n", b"403"),
    "Origin of nobody": (GET + CLOSE + b"origin: null\r\n\r\n", b"403"),
    "Accept of something else": (GET + CLOSE + b"Accept: text/html\r\n\r\n", b"406"),
    "Accept without JSON": (GET + CLOSE + b"Accept: application/json;q=0\r\n\r\n", b"406"),
    "no such route": (b"GET /v2/bucket HTTP/1.1\r\nHost: b\r\n" + CLOSE + b"\r\n", b"404"),
    "another method": (GET.replace(b"GET", b"POST") + CLOSE + b"\r\n", b"405"),
    "a method of nobody": (GET.replace(b"GET", b"BREW") + CLOSE + b"\r\n", b"400"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(shared_daemon: Daemon, name: str) -> None:
    text, status = REFUSED[name]
    said = shared_daemon.raw(text)
    assert re.findall(rb"^HTTP/1\.1 (\d+)", said, re.M) == [status], said
    assert b'"success":false' in said
    assert (b"\r\nAllow: " in said) == (status == b"405")
    assert shared_daemon.request("GET", pair("d")).bucket == {}


def test_pipelined_requests_are_answered_in_order(shared_daemon: Daemon) -> None:
    with shared_daemon.connect() as sock:
        requests = [
            encode_request("PUT", pair("pipe", f"j{n % 3}"), {"n": n}, close=n == 19)
            for n in range(20)
        ]
        for split in (1, 7, 20):
            sock.sendall(b"".join(requests[:split]))
            del requests[:split]
            time.sleep(0.01)
        said = receive_all(sock)
    numbers = [int(piece.split(b"}")[0]) for piece in said.split(b'{"n":')[1:]]
    assert numbers == list(range(20))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_requests_in_pieces(shared_daemon: Daemon, size: int) -> None:
    """Also after the same heads were seen whole."""
    whole = encode_request("PUT", pair("pieces"), {"n": size}, close=False)
    with shared_daemon.connect() as sock:
        for text in (whole, whole):
            sock.sendall(text)
            assert read_response(sock).status == 200
        for _ in range(2):
            for at in range(0, len(whole), size):
                sock.sendall(whole[at : at + size])
            assert read_response(sock).bucket == {"n": size}
        sock.sendall(whole[:-3])
        time.sleep(0.05)
        sock.sendall(whole[-3:] + whole)
        assert [read_response(sock).status for _ in range(1)] == [200]


def test_a_repeated_head_with_another_body(shared_daemon: Daemon) -> None:
    with shared_daemon.connect() as sock:
        for n in (1, 2, 3, 4, 5):
            answer = shared_daemon.request("PUT", pair("again"), {"n": n}, sock=sock)
            assert answer.bucket == {"n": n}
        for text, status in ((b"[1, 2]", 400), (b'{"n"6}', 400), (b'{"n":6}', 200)):
            answer = shared_daemon.request("PUT", pair("again"), text.ljust(7), sock=sock)
            assert answer.status == status
        assert answer.bucket == {"n": 6}


def test_head_has_no_body(shared_daemon: Daemon) -> None:
    shared_daemon.request("PUT", pair("head"), {"n": 1})
    said = shared_daemon.raw(
        b"HEAD /v1/devices/head/bucket HTTP/1.1\r\nHost: b\r\n" + CLOSE + b"\r\n"
    )
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"ETag" in head
    assert body == b""


def test_expect_continue(shared_daemon: Daemon) -> None:
    with shared_daemon.connect() as sock:
        sock.sendall(PUT + CLOSE + b"Content-Length: 7\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b'{"n":1}')
        assert read_response(sock).bucket == {"n": 1}
    shared_daemon.request("DELETE", pair("d"))


def test_http_1_0_and_any_host(shared_daemon: Daemon) -> None:
    said = shared_daemon.raw(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 200 " in said.split(b"\r\n")[0]
    for target, status in (
        (b"http://some.where:99/healthz", b"200"),
        (b"HTTP://some.where/healthz", b"200"),
        (b"http://some.where?x=/healthz", b"404"),
        (b"https://some.where/healthz", b"404"),
    ):
        said = shared_daemon.raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n")
        assert said.startswith(b"HTTP/1.1 " + status), target


@pytest.mark.parametrize("header", [b"Connection", b"Proxy-Connection"])
def test_who_asks_to_close_is_closed_each_time(shared_daemon: Daemon, header: bytes) -> None:
    for _ in range(3):
        said = shared_daemon.raw(GET + header + b": close\r\n\r\n", timeout=3)
        assert said.startswith(b"HTTP/1.1 200")


def test_who_leaves_in_the_middle_is_no_error_of_ours(daemon: Daemon) -> None:
    for text in (PUT + b'Content-Length: 100\r\n\r\n{"n"', GET, GET + b"\r\n"):
        with daemon.connect() as sock:
            sock.sendall(text)
            time.sleep(0.05)
    assert daemon.request("GET", pair("d")).bucket == {}
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize(
    "start", [b"G", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nHost: b\r\nX: "]
)
def test_a_header_that_never_ends(hasty: Daemon, start: bytes) -> None:
    began = time.monotonic()
    with hasty.connect() as sock:
        sock.sendall(start)
        said = receive_all(sock)
    assert said.startswith(b"HTTP/1.1 408"), said
    assert b"request_timeout" in said
    assert 0.2 < time.monotonic() - began < 5


def test_a_body_that_never_ends(hasty: Daemon) -> None:
    with hasty.connect() as sock:
        sock.sendall(PUT + b'Content-Length: 100\r\n\r\n{"n"')
        said = receive_all(sock)
    assert said.startswith(b"HTTP/1.1 408"), said
    assert hasty.request("GET", pair("d")).bucket == {}


def test_an_idle_connection_ends_in_silence(hasty: Daemon) -> None:
    with hasty.connect() as sock:
        for _ in range(4):
            time.sleep(0.25)  # in use, and so not idle
            assert hasty.request("GET", "/v1/buckets", sock=sock).status == 200
            assert hasty.request("GET", pair("d"), sock=sock).status == 200
        assert receive_all(sock) == b""


def test_one_connection_too_many(hasty: Daemon) -> None:
    kept = [hasty.connect() for _ in range(40)]
    try:
        with hasty.connect() as sock:
            said = receive_all(sock)
        assert said.startswith(b"HTTP/1.1 503"), said
        assert b"overloaded" in said
        assert b"Retry-After" in said
    finally:
        for sock in kept:
            sock.close()
    time.sleep(0.1)
    assert hasty.request("GET", "/healthz").status == 200
