"""Answers as bytes: whole, in pieces, in chunks, endless, and none at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from bucketd_client import Bucket, BucketError, InternalError
from bucketd_client._http11 import MAX_BODY, MAX_HEAD, Answer, Reader, encode, usual
from fake import Seen, fake

BODY = b'{"success": true, "bucket": {"a": 1}, "revision": 1}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: x\r\n\r\n%s" % (len(BODY), BODY)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\n%s\r\n%X;note=1\r\n%s\r\n0\r\nTrailer: 1\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
)


def read(text: bytes, step: int = 65536, method: str = "GET") -> tuple[Answer, bool]:
    pieces: Iterator[bytes] = iter([text[n : n + step] for n in range(0, len(text), step)])
    return Reader(lambda: next(pieces)).answer(method)


@pytest.mark.parametrize("step", [1, 7, 65536])
@pytest.mark.parametrize("text", [PLAIN, CHUNKED], ids=["length", "chunks"])
def test_an_answer_in_pieces(text: bytes, step: int) -> None:
    answer, keep = read(text, step)
    assert (answer.status, answer.body, keep) == (200, BODY, True)


def test_header_names_are_lower_case() -> None:
    assert read(PLAIN)[0].headers["etag"] == "x"


def test_the_short_way_reads_what_the_long_way_does() -> None:
    answer, other = usual(PLAIN), read(PLAIN)[0]
    assert answer is not None
    assert (answer.status, answer.head, answer.body) == (other.status, other.head, other.body)
    assert answer.etag == answer.headers["etag"] == "x"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN[:-1],
        PLAIN[:20],
        PLAIN + b"more",
        CHUNKED,
        PLAIN.replace(b"200 OK", b"304 Not Modified"),
        PLAIN.replace(b"ETag: x", b"Connection: close"),
        PLAIN.replace(b"Content-Length", b"content-length"),
        PLAIN.replace(b"Content-Length: ", b"Content-Length: +"),
    ],
)
def test_the_short_way_leaves_all_else_to_the_long_one(text: bytes) -> None:
    assert usual(text) is None


def test_interim_answers_are_passed_over() -> None:
    assert read(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + PLAIN)[0].body == BODY


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_without_a_body(method: str) -> None:
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
    answer, keep = read(text)
    assert answer.body == BODY
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
def test_what_is_no_answer(text: bytes) -> None:
    with pytest.raises(InternalError, match="no answer of bucketd"):
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
