"""Responses as bytes: whole, in pieces, chunked, endless, and malformed."""

from __future__ import annotations

import socket
import time

import pytest
from bucketd_client import Bucket, BucketError, InternalError
from bucketd_client._http11 import MAX_BODY, MAX_HEAD, Response, ResponseParser, encode
from fake import Seen, fake

BODY = b'{"success": true, "bucket": {"a": 1}, "revision": 1}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: x\r\n\r\n%s" % (len(BODY), BODY)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\n%s\r\n%X;note=1\r\n%s\r\n0\r\nTrailer: 1\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
)


def read(data: bytes, step: int = 65536, method: str = "GET") -> tuple[Response, bool]:
    parser = ResponseParser(method)
    for at in range(0, len(data), step):
        if (response := parser.feed(data[at : at + step])) is not None:
            return response, parser.keeps_alive
    raise AssertionError("the parser waits for more")


@pytest.mark.parametrize("step", [1, 7, 65536])
@pytest.mark.parametrize("text", [PLAIN, CHUNKED], ids=["length", "chunks"])
def test_a_response_in_pieces(text: bytes, step: int) -> None:
    response, keep = read(text, step)
    assert (response.status, response.body, keep) == (200, BODY, True)


def test_header_names_are_lower_case() -> None:
    assert read(PLAIN)[0].headers["etag"] == "x"


def test_the_case_of_header_names_does_not_matter() -> None:
    lower = PLAIN.replace(b"Content-Length", b"content-length").replace(b"ETag", b"etag")
    response, keeps_alive = read(lower)
    assert (response.body, response.etag, keeps_alive) == (BODY, "x", True)


@pytest.mark.parametrize("data", [PLAIN, CHUNKED], ids=["length", "chunks"])
def test_part_of_a_response_is_none(data: bytes) -> None:
    for size in range(1, len(data)):
        assert ResponseParser("GET").feed(data[:size]) is None


def test_interim_responses_are_skipped() -> None:
    assert read(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + PLAIN)[0].body == BODY


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_responses_without_a_body(method: str) -> None:
    status = b"304 Not Modified" if method == "GET" else b"200 OK"
    text = b"HTTP/1.1 %s\r\nContent-Length: 9\r\n\r\n" % status
    assert read(text, method=method)[0].body == b""


@pytest.mark.parametrize(
    "text",
    [
        PLAIN + b"more",
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"ETag: x", b"Connection: Close"),
    ],
    ids=["surplus", "old", "close"],
)
def test_connections_that_are_not_kept(text: bytes) -> None:
    response, keep = read(text)
    assert response.body == BODY
    assert not keep


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%X\r\n" % (MAX_BODY + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * MAX_HEAD + 65536),
    ],
)
def test_what_is_not_a_response(text: bytes) -> None:
    with pytest.raises(InternalError, match="not a response of bucketd"):
        read(text)


def test_chunks_come_over_a_socket_and_leave_the_connection_usable() -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        for byte in CHUNKED:
            connection.send(bytes([byte]))
            time.sleep(0.0001)
        return True

    with fake(script) as server:
        for _ in range(3):
            assert Bucket(device="d", job="j", socket=server.path).get() == {"a": 1}
        assert server.connections == 1


@pytest.mark.parametrize("value", ["a\r\nX: y", "é😀", "\ud800"])
def test_headers_that_would_be_something_else(value: str) -> None:
    with pytest.raises(BucketError) as caught:
        encode("GET", "/", None, {"If-Match": value})
    assert caught.value.code == "invalid_request"
