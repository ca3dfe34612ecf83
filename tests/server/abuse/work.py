"""Requests that are legal and take much work, each for some seconds: it must not be the others'."""

from __future__ import annotations

import json
import time
from typing import Any

from attacks import HEAD, Attack, connections, send, until
from harness import Daemon, encode_request, pair, receive_all

MANY = json.dumps({f"{n}": 0 for n in range(100_000)}, separators=(",", ":")).encode()
NUMBERS = b'{"a":[' + b",".join([b"1"] * 500_000) + b"]}"
TEXTS: dict[str, Any] = {"properties": {"a": {"type": "array", "items": {"type": "string"}}}}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
PATCHES: tuple[tuple[list[dict[str, Any]], int], ...] = (
    ([{"op": "add", "path": f"/{n}", "value": 1} for n in range(20_000)], 200),
    ([{"op": "add", "path": f"/{n}", "value": 1} for n in range(1_500)], 200),
    ([{"op": "copy", "from": "/a", "path": "/b"}] * 1_000, 413),
    ([{"op": "move", "from": "/a/0", "path": "/a/-"}] * 2_000, 200),
    ([{"op": "add", "path": "/a" * 200_000, "value": 1}], 409),
)


def removed_keys(daemon: Daemon, seconds: float) -> None:
    """100,000 keys, of which 3,000 others are to be removed."""
    path = pair("many", "removed")
    query = "&".join(f"key=x{n}" for n in range(3_000))
    for _ in until(seconds):
        assert daemon.request("PUT", path, MANY).status == 200
        assert daemon.request("DELETE", f"{path}?{query}").status == 200
        time.sleep(0.2)


def json_patches(daemon: Daemon, seconds: float) -> None:
    """Many operations, long pointers, and what moves half a million members."""
    path = pair("many", "operations")
    for _ in until(seconds):
        for operations, status in PATCHES:
            daemon.request("PUT", path, b'{"a":[' + b",".join([b"1"] * 5_000) + b"]}")
            body = json.dumps(operations, separators=(",", ":")).encode()
            assert daemon.request("PATCH", path, body, JSON_PATCH).status == status
            time.sleep(0.1)


def violations(daemon: Daemon, seconds: float) -> None:
    """Half a million violations of a schema, before it is set and after."""
    path, schema = pair("many", "violations"), "/v1/schemas/violated"
    for _ in until(seconds):
        daemon.request("DELETE", schema)
        assert daemon.request("PUT", f"{path}?automation=violated", NUMBERS).status == 200
        assert daemon.request("PUT", schema, TEXTS).status == 409
        assert daemon.request("PUT", f"{schema}?force=true", TEXTS).status == 200
        assert daemon.request("PATCH", path, {"b": 1}).status == 422
        assert daemon.request("PUT", path, {"a": [1] * 2_000}).status == 422
        time.sleep(0.2)


def long_lists(daemon: Daemon, seconds: float) -> None:
    """500 buckets with the longest names, listed and exported, and all contexts."""
    with daemon.connect() as sock:
        for n in range(500):
            path = pair("\U0001f600" * 128, "\U0001f600" * 120 + f"{n}")
            assert daemon.request("PUT", path, {"pad": "x" * 2_000}, sock=sock).status == 200
    for _ in until(seconds):
        for path in ("/v1/buckets", "/v1/export", "/v1/contexts", "/v1/status", "/metrics"):
            assert daemon.request("GET", path).status == 200
        time.sleep(0.1)


def watched_keys(daemon: Daemon, seconds: float) -> None:
    """Up to 300 streams with snapshots, each of other keys of a bucket that changes as a whole."""
    path = pair("watched", "keys")
    daemon.request("PUT", path, MANY)
    with connections(daemon, min(300, int(40 * seconds))) as socks:
        for n, sock in enumerate(socks):
            target = f"{path}/events?snapshot=true&key={n}&key={n + 1000}"
            send(sock, encode_request("GET", target, close=False))
        for number, _ in enumerate(until(seconds)):
            body = MANY.replace(b":0", b":%d" % (number % 10))
            assert daemon.request("PUT", path, body).status == 200
            time.sleep(0.5)


def huge_headers(daemon: Daemon, seconds: float) -> None:
    """120 headers of 8,000 bytes, each a list of very many things."""
    start = f"GET {pair('huge', 'headers')} HTTP/1.1\r\nHost: b\r\nConnection: close\r\n".encode()
    for _ in until(seconds):
        for line in (
            b"Accept: " + b"a," * 4_000,
            b"If-Match: " + b'"",' * 2_600,
            b"X: " + b"x" * 8_000,
        ):
            assert daemon.raw(start + (line + b"\r\n") * 120 + b"\r\n").startswith(b"HTTP/1.1 400")
            time.sleep(0.02)


def tiny_chunks(daemon: Daemon, seconds: float) -> None:
    """A body that comes in 100,000 chunks of one byte."""
    body = b'{"a":"' + b"x" * 100_000 + b'"}'
    text = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = f"PUT {pair('tiny', 'chunks')} HTTP/1.1\r\nConnection: close\r\n".encode() + HEAD
    for _ in until(seconds):
        with daemon.connect() as sock:
            send(sock, head + b"Transfer-Encoding: chunked\r\n\r\n" + text)
            assert receive_all(sock).startswith(b"HTTP/1.1 200")
        time.sleep(0.1)


WORK: tuple[Attack, ...] = (
    *(removed_keys, json_patches, violations, long_lists, watched_keys, huge_headers, tiny_chunks),
)
