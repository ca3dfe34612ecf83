"""Bytes that are nearly HTTP: each answer is one of ours, nobody is harmed, nothing is written.

Requests are put together from right and wrong pieces, so that most get past the
first check; what the daemon must do with the well-known tricks stands in
tests/api/test_protocol.py.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata

import pytest
from harness import Daemon, encode_name, escape, pair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCALE = float(os.environ.get("FUZZ_SCALE", "0.02"))
often = settings(
    max_examples=max(60, int(5000 * SCALE)),
    deadline=None,
    derandomize=SCALE < 1,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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


@often
@given(text=st.lists(requests(), min_size=1, max_size=3).map(b"".join) | st.binary(max_size=200))
def test_bytes_that_are_nearly_http(shared_daemon: Daemon, text: bytes) -> None:
    shared_daemon.request("PUT", BUCKET, {"kept": True})
    # The end of what is sent, so that nothing waits for more.
    with shared_daemon.connect(timeout=5) as sock:
        sock.sendall(text)
        sock.shutdown(1)
        said = b""
        while chunk := sock.recv(65536):
            said += chunk
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
