"""Bytes that are nearly HTTP: each answer is one of ours, nobody is harmed, nothing is written.

Requests are put together from right and wrong pieces, so that most get past the
first check; what the daemon must do with the well-known tricks stands in
tests/server/test_protocol.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import time
import unicodedata
from collections.abc import Callable

import pytest
from harness import Daemon, encode_name, encode_request, escape, pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SILENCE_SECONDS = 0.03
SCALE = float(os.environ.get("FUZZ_SCALE", "0.02"))
often = settings(
    max_examples=max(60, int(5000 * SCALE)),
    derandomize=SCALE < 1,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
pytestmark = pytest.mark.timeout(max(120, 1200 * SCALE))
BUCKET = pair("kept", "as it is")
TARGETS = [
    *(BUCKET, "/v1/bucket", "/b/..%2f..%2fetc/passwd", "/v1/devices/%00/bucket", "*", "//", ""),
    *(BUCKET + "?key=%", BUCKET.upper(), "http://bucketd" + BUCKET, BUCKET + "#x", "/" * 9000),
]
VERSIONS = ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "HTTP/1.1 ", "http/1.1", "", "ICAP/1.0"]
FIELDS = [
    *(
        "Host: b",
        "Host: b\r\nHost: c",
        "Content-Length: 2",
        "Content-Length: 2\r\nContent-Length: 3",
    ),
    *("Content-Length: +2", "Content-Length: -1", "Content-Length: 2, 2", "Content-Length: 0x2"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: x"),
    *("Transfer-Encoding : chunked", "Transfer-Encoding:\tchunked", "TE: trailers", "Upgrade: h2c"),
    *("Connection: close", "Connection: keep-alive, x", "Expect: 100-continue", "Expect: x"),
    *(
        "Origin: http://localhost",
        "Authorization: Bearer x",
        "X: \0",
        "X\r\n folded: 1",
        ": x",
        "X",
    ),
    *("Content-Type: application/json", "X: " + "y" * 9000, "X: é", "Content-Encoding: gzip"),
]
BODIES = [
    *(b"", b"{}", b'{"a": 1}', b"2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\n", b"-1\r\n", b"zz\r\n"),
    *(b"2;x=\r\n{}\r\n0\r\n\r\n", b"2\n{}\n0\n\n", b"ffffffffffffffff\r\n", b"\0" * 50),
    b"0\r\n\r\nPUT " + BUCKET.encode() + b" HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
]
methods = st.sampled_from(["GET", "PUT", "PATCH", "HEAD", "get", "P UT", "", "CONNECT", "PRI"])
ends = st.sampled_from(["\r\n", "\n", "\r", "\r\n\r\n"])
WRITES = re.compile(rb"^(PUT|PATCH|DELETE) ", re.MULTILINE)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = " ".join(
        (draw(methods), draw(st.sampled_from(TARGETS)), draw(st.sampled_from(VERSIONS)))
    )
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=5))
    end = draw(ends) if draw(st.integers(0, 9)) == 0 else "\r\n"
    head = end.join([line, *fields, "", ""]).encode()
    text = head + draw(st.sampled_from(BODIES))
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=4)) + text[at:]
    return text


def said_to(daemon: Daemon, text: bytes) -> bytes:
    """What it says before it closes, or is silent for a while: it may wait for more."""
    said = b""
    with daemon.connect(timeout=SILENCE_SECONDS) as sock, contextlib.suppress(OSError):
        sock.sendall(text)
        while chunk := sock.recv(65536):
            said += chunk
    return said


@often
@given(text=st.lists(requests(), min_size=1, max_size=3).map(b"".join) | st.binary(max_size=200))
def test_bytes_that_are_nearly_http(shared_daemon: Daemon, text: bytes) -> None:
    shared_daemon.request("PUT", BUCKET, {"kept": True})
    said = said_to(shared_daemon, text)
    for answer in re.split(rb"(?=HTTP/1\.[01] \d{3} )", said)[1:]:
        status, body = int(answer[9:12]), answer.partition(b"\r\n\r\n")[2]
        assert (status < 500 and status != 100) or b"100-continue" in text, answer
        if body and status != 200:
            assert json.loads(body)["success"] is False
    assert re.match(rb"HTTP/1\.[01] |$", said), said
    kept = shared_daemon.request("GET", BUCKET)
    if not WRITES.search(text):
        assert kept.bucket == {"kept": True}


@often
@given(name=st.text(max_size=140))
def test_every_text_is_a_name_or_refused(shared_daemon: Daemon, name: str) -> None:
    legal = 1 <= len(name) <= 128 and not any(unicodedata.category(c) == "Cc" for c in name)
    answer = shared_daemon.request("PUT", pair(name, "job"), {"name": name})
    if not name:
        assert answer.status in (400, 404)
        return
    assert answer.status == (200 if legal else 400), answer
    if legal:
        path = shared_daemon.state_dir / "devices" / encode_name(name) / "jobs" / "job.json"
        listed = shared_daemon.request("GET", f"/v1/buckets?device={escape(name)}").json["buckets"]
        assert path.exists()  # files are current as soon as a list was answered
        assert json.loads(path.read_bytes())["device"] == name
        assert [row["device"] for row in listed] == [name]


PIPE = pair("piped", "job")
# Each several times over one connection, so that most have heads that were seen before.
STEPS: list[tuple[bytes, int]] = [
    *((encode_request("PUT", PIPE, {"n": n}, close=False), 200) for n in range(3)),
    (encode_request("PUT", PIPE, b'{"n":x}', close=False), 400),
    (encode_request("PATCH", PIPE, {"m": 1}, close=False), 200),
    (encode_request("GET", PIPE, close=False), 200),
    (encode_request("HEAD", PIPE, close=False), 200),
    (encode_request("GET", PIPE + "?x=1", close=False), 400),
    (encode_request("GET", "/healthz", close=False), 200),
    (encode_request("GET", "/v1/bucket", token="x", close=False), 401),
    (encode_request("PUT", PIPE, {"n": 7}, {"Expect": "100-continue"}, close=False), 200),
    (
        encode_request("PUT", PIPE, b"", {"Transfer-Encoding": "chunked"}, close=False).replace(
            b"Content-Length: 0\r\n", b""
        )
        + b'7;a=b\r\n{"n":8}\r\n0\r\nX-Trailer: x\r\n\r\n',
        200,
    ),
]


@often
@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 2500), max_size=8),
    apart=st.booleans(),
    pause=st.booleans(),
)
def test_requests_cut_anywhere_are_answered_in_their_order(
    shared_daemon: Daemon,
    steps: list[tuple[bytes, int]],
    cuts: list[int],
    apart: bool,
    pause: bool,
) -> None:
    """However they come: several at once, or one in pieces, by the short way or the long one."""
    text = b"".join(request for request, _ in steps)
    ends = itertools.accumulate(len(request) for request, _ in steps) if apart else ()
    bounds = [0, *sorted({*ends, *(cut % len(text) for cut in cuts), len(text)})]
    with shared_daemon.connect(timeout=5) as sock:
        for start, end in itertools.pairwise(bounds):
            sock.sendall(text[start:end])
            time.sleep(0.002 if pause else 0)
        answers = AnswersOf(sock)
        for request, status in steps:
            answer = answers.next(head_only=request.startswith(b"HEAD"))
            assert answer[0] == status, (request, answer)
            sent = re.search(rb'\{"n": ?(\d)\}', request)
            if status == 200 and sent and request.startswith(b"PUT"):
                assert json.loads(answer[1])["bucket"] == {"n": int(sent[1])}
        sock.settimeout(0.001)
        with pytest.raises(TimeoutError):
            sock.recv(1)


class AnswersOf:
    """One answer after the other, interim ones left out."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._text = sock, b""

    def next(self, head_only: bool) -> tuple[int, bytes]:
        while True:
            head = self._until(lambda text: text.find(b"\r\n\r\n") + 4)
            length = re.search(rb"Content-Length: (\d+)", head)
            size = int(length[1]) if length and not head_only else 0
            body = self._until(lambda text, size=size: size if len(text) >= size else 3)
            if not head.startswith(b"HTTP/1.1 100"):
                return int(head[9:12]), body

    def _until(self, end: Callable[[bytes], int]) -> bytes:
        """What stands up to an end, which is 3 while it is not there."""
        while (at := end(self._text)) == 3:
            chunk = self._sock.recv(65536)
            assert chunk, "closed in between"
            self._text += chunk
        found, self._text = self._text[:at], self._text[at:]
        return found
