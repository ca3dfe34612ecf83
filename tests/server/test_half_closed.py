"""A client that shuts down its sending half, as socat and ``nc -N`` do, gets its responses."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from external_edits import write_lock
from harness import Daemon, encode_request, new_daemon, pair, receive_all

TARGET = pair("half", "closed")


def said_to(daemon: Daemon, *pieces: bytes) -> bytes:
    """What it says to a client that sends this and then shuts down its sending half."""
    with daemon.connect(20) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(0.02 if len(pieces) > 1 else 0)
        sock.shutdown(socket.SHUT_WR)
        return receive_all(sock)


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("size", [1, 200_000])
def test_writes_and_reads(shared_daemon: Daemon, close: bool, size: int) -> None:
    for n in range(5):
        body = {"n": n, "pad": "x" * size}
        for method in ("PUT", "PATCH", "GET"):
            sent = body if method != "GET" else None
            said = said_to(shared_daemon, encode_request(method, TARGET, sent, close=close))
            assert said.startswith(b"HTTP/1.1 200 "), said
            assert json.loads(said.partition(b"\r\n\r\n")[2])["bucket"] == body


def test_in_pieces_and_several_at_once(shared_daemon: Daemon) -> None:
    one = encode_request("PUT", TARGET, {"n": 1}, close=False)
    assert said_to(shared_daemon, one[:20], one[20:-3], one[-3:]).count(b"HTTP/1.1 200 ") == 1
    requests = [encode_request("PUT", TARGET, {"n": n}, close=False) for n in range(20)]
    said = said_to(shared_daemon, b"".join(requests))
    assert [int(part[:2].strip(b"}")) for part in said.split(b'{"n":')[1:]] == list(range(20))


def test_chunked(shared_daemon: Daemon) -> None:
    head = encode_request("PUT", TARGET, b"", {"Transfer-Encoding": "chunked"}, close=False)
    head = head.replace(b"Content-Length: 0\r\n", b"")
    said = said_to(shared_daemon, head, b'7\r\n{"n":8}\r\n', b"0\r\n\r\n")
    assert b'{"n":8}' in said


def test_what_takes_a_while(shared_daemon: Daemon) -> None:
    """A commit that waits for another program's lock, and a handler that is a coroutine."""
    assert b'"counts"' in said_to(shared_daemon, encode_request("GET", "/v1/status", close=False))
    said: list[bytes] = []
    with write_lock(shared_daemon):
        request = encode_request("PATCH", TARGET, {"n": 3}, close=False)
        client = threading.Thread(target=lambda: said.append(said_to(shared_daemon, request)))
        client.start()
        time.sleep(0.3)
        assert said == []
    client.join(20)
    assert said[0].startswith(b"HTTP/1.1 200 ")


def test_a_request_that_ends_before_it_is_complete(shared_daemon: Daemon) -> None:
    whole = encode_request("PUT", TARGET, {"n": 9}, close=False)
    for size in (5, 30, len(whole) - 1):
        said = said_to(shared_daemon, whole[:size])
        assert said.startswith(b"HTTP/1.1 400 "), said
        assert b"before it was complete" in said
    assert said_to(shared_daemon, b"") == b""


def test_a_stream_goes_on(shared_daemon: Daemon) -> None:
    shared_daemon.request("PUT", TARGET, {"n": 0})
    with shared_daemon.connect(20) as sock:
        sock.sendall(encode_request("GET", f"{TARGET}/events?snapshot=true", close=False))
        said = sock.recv(65536)
        sock.shutdown(socket.SHUT_WR)
        for n in (1, 2):
            time.sleep(0.1)
            shared_daemon.request("PUT", TARGET, {"n": n})
            while b'"n":%d' % n not in said:
                more = sock.recv(65536)
                assert more, said
                said += more


def test_a_stream_of_whom_is_gone_ends() -> None:
    """Also where its peer has shut down its sending half before, as soon as there is an event."""
    daemon = new_daemon()
    try:
        daemon.start()
        for half_first in (False, True):
            with daemon.connect(20) as sock:
                sock.sendall(encode_request("GET", f"{TARGET}/events", close=False))
                assert sock.recv(65536)
                if half_first:
                    sock.shutdown(socket.SHUT_WR)
                    time.sleep(0.1)
            deadline = time.monotonic() + 10
            while daemon.request("GET", "/v1/status").json["counts"]["watchers"]:
                assert time.monotonic() < deadline
                if half_first:
                    daemon.request("PUT", TARGET, {"n": time.monotonic()})
                time.sleep(0.05)
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log
    finally:
        daemon.remove()
