"""Bad input gets a clear error, on every way to a bucket, and changes nothing at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness import Daemon, encode_request, pair, read_response

MIB = 1024 * 1024
BEFORE = {"kept": [1, None, "ü"], "n": 2**64 - 1}
JSON = "application/json"
MERGE, PATCH = "application/merge-patch+json", "application/json-patch+json"

NOT_KEPT_EXACTLY: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"loggedIn=true",
    "cut short": b'{"a": 1',
    "two values": b'{"a": 1} {"b": 2}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "minus Infinity": b'{"a": -Infinity}',
    "a number beyond all": b'{"a": 1e400}',
    "2^64": b'{"a": 18446744073709551616}',
    "-2^63-1": b'{"a": -9223372036854775809}',
    "1000 digits": b'{"a": %s}' % (b"9" * 1000),
    "a large integer within": b'{"a": [{"b": 123456789012345678901}]}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a lone surrogate as key": b'{"\\udfff": 1}',
    "invalid UTF-8": b'{"a": "\xff\xfe"}',
    "an overlong encoding": b'{"a": "\xc0\xaf"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "nested 100,000 deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested and never closed": b'{"a":' * 100_000,
    "a control character": b'{"a": "\x01"}',
    "a comma too many": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
}
OTHER_JSON = {"null": b"null", "a number": b"3", "a string": b'"x"', "true": b"true"}


@contextmanager
def unchanged(daemon: Daemon, target: str) -> Iterator[None]:
    """Body, revision, ETag and the bytes of all files are the same afterwards."""

    def look() -> Any:
        answer = daemon.request("GET", target)
        return answer.body, answer.etag

    before = look(), daemon.files()
    yield
    assert (look(), daemon.files()) == before


@pytest.fixture(scope="module", params=["pair", "device", "token"])
def way(request: pytest.FixtureRequest, shared_daemon: Daemon) -> tuple[str, str, dict[str, str]]:
    """A bucket with something in it: how to ask for it, and the same for the operator."""
    named = pair("bad") if request.param == "device" else pair("bad", request.param)
    assert shared_daemon.request("PUT", named, BEFORE).status == 200
    if request.param != "token":
        return named, named, {}
    token = shared_daemon.mint("bad", "token")
    return "/v1/bucket", named, {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("name", NOT_KEPT_EXACTLY)
def test_json_that_cannot_be_kept(
    shared_daemon: Daemon, way: tuple[str, str, dict[str, str]], method: str, name: str
) -> None:
    target, named, headers = way
    with unchanged(shared_daemon, named):
        answer = shared_daemon.request(method, target, NOT_KEPT_EXACTLY[name], headers)
    assert (answer.status, answer.json["code"]) == (400, "invalid_json"), answer
    assert answer.json["error"].startswith("cannot read the request body: ")
    assert answer.json["success"] is False


@pytest.mark.parametrize("kind", [JSON, MERGE])
@pytest.mark.parametrize("name", [*OTHER_JSON, "an array"])
def test_json_of_another_type(
    shared_daemon: Daemon, way: tuple[str, str, dict[str, str]], kind: str, name: str
) -> None:
    target, named, headers = way
    body = OTHER_JSON.get(name, b"[1]")
    with unchanged(shared_daemon, named):
        answer = shared_daemon.request("PATCH", target, body, {**headers, "Content-Type": kind})
        assert (answer.status, answer.json["code"]) == (400, "invalid_json")
        assert name.split(" ")[-1] in answer.json["error"] or name == "true"
        assert shared_daemon.request("PUT", target, body, headers).status == 400


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**63, 1e308, -0.0, 5e-324])
def test_numbers_at_the_edge_are_kept(shared_daemon: Daemon, number: float) -> None:
    body = json.dumps({"n": number}).encode()
    assert shared_daemon.request("PUT", pair("edge", "n"), body).status == 200
    assert json.loads(shared_daemon.request("GET", pair("edge", "n")).body)["bucket"]["n"] == number


def test_a_body_over_the_limit(shared_daemon: Daemon, way: tuple[str, str, dict[str, str]]) -> None:
    target, named, headers = way
    body = b'{"a": "%s"}' % (b"x" * MIB)
    with unchanged(shared_daemon, named):
        answer = shared_daemon.request("PUT", target, body, headers)
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert str(MIB) in answer.json["error"]
        chunk = b"%x\r\n%s\r\n" % (len(body), body)
        chunked = {**headers, "Transfer-Encoding": "chunked", "Content-Type": JSON}
        head = encode_request("PUT", target, None, chunked)
        with shared_daemon.connect() as sock:
            sock.sendall(head + chunk + b"0\r\n\r\n")
            answer = read_response(sock)
        assert (answer.status, answer.json["code"]) == (413, "too_large")


def test_a_declared_length_is_refused_before_it_is_sent(shared_daemon: Daemon) -> None:
    head = encode_request("PUT", pair("bad", "declared"), None, {"Content-Length": str(2**40)})
    with shared_daemon.connect() as sock:
        sock.sendall(head + b'{"a"')
        answer = read_response(sock)
    assert (answer.status, answer.json["code"]) == (413, "too_large")


def test_a_merge_that_grows_the_bucket_over_the_limit(shared_daemon: Daemon) -> None:
    target = pair("bad", "grown")
    shared_daemon.request("PUT", target, {"largest": "x" * 600_000, "second": "y" * 300_000})
    with unchanged(shared_daemon, target):
        answer = shared_daemon.request("PATCH", target, {"third": "z" * 200_000})
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert str(MIB) in answer.json["error"]
    assert [d["key"] for d in answer.json["details"]] == ["largest", "second", "third"]
    assert shared_daemon.request("PATCH", target, {"largest": 1}).status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "json", PATCH + "x",
             "application/json; charset=latin-1", "multipart/form-data"],
)  # fmt: skip
def test_the_wrong_media_type(
    shared_daemon: Daemon, way: tuple[str, str, dict[str, str]], kind: str
) -> None:
    target, named, headers = way
    with unchanged(shared_daemon, named):
        for method in ("PUT", "PATCH"):
            answer = shared_daemon.request(
                method, target, {"a": 1}, {**headers, "Content-Type": kind}
            )
            assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")
        compressed = {**headers, "Content-Encoding": "gzip"}
        assert shared_daemon.request("PUT", target, {"a": 1}, compressed).status == 415


@pytest.mark.parametrize("kind", ["application/merge-patch+json", PATCH])
def test_a_patch_is_no_whole_bucket(
    shared_daemon: Daemon, way: tuple[str, str, dict[str, str]], kind: str
) -> None:
    """Nor is it one the second time, when the head is known."""
    target, named, headers = way
    with unchanged(shared_daemon, named):
        for _ in range(3):
            answer = shared_daemon.request("PUT", target, {}, {**headers, "Content-Type": kind})
            assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("guard", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["", " ", "abc", '"', '"a" "b"', "*x", 'w/"a"'])
def test_a_guard_that_is_none(
    shared_daemon: Daemon, way: tuple[str, str, dict[str, str]], guard: str, value: str
) -> None:
    target, named, headers = way
    with unchanged(shared_daemon, named):
        for method, body in (("PUT", {"a": 1}), ("PATCH", {"a": 1}), ("DELETE", None)):
            answer = shared_daemon.request(method, target, body, {**headers, guard: value})
            assert (answer.status, answer.json["code"]) == (400, "invalid_request"), answer


@pytest.mark.parametrize(
    "operations",
    [{}, [1], [{}], [{"op": "put", "path": "/a", "value": 1}], [{"op": "add", "path": "/a"}],
     [{"op": "add", "path": "a", "value": 1}], [{"op": "move", "path": "/a"}],
     [{"op": "add", "path": "/~2", "value": 1}], [{"op": "add", "path": 1, "value": 1}]],
    ids=json.dumps,
)  # fmt: skip
def test_no_json_patch(
    shared_daemon: Daemon, way: tuple[str, str, dict[str, str]], operations: Any
) -> None:
    target, named, headers = way
    with unchanged(shared_daemon, named):
        answer = shared_daemon.request(
            "PATCH", target, operations, {**headers, "Content-Type": PATCH}
        )
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "operations",
    [[{"op": "remove", "path": "/absent"}], [{"op": "test", "path": "/n", "value": 0}],
     [{"op": "add", "path": "/new", "value": 1}, {"op": "replace", "path": "/no/where",
                                                  "value": 1}],
     [{"op": "replace", "path": "", "value": [1]}], [{"op": "add", "path": "/kept/9", "value": 1}]],
    ids=json.dumps,
)  # fmt: skip
def test_a_json_patch_that_does_not_apply(
    shared_daemon: Daemon, way: tuple[str, str, dict[str, str]], operations: Any
) -> None:
    target, named, headers = way
    with unchanged(shared_daemon, named):
        answer = shared_daemon.request(
            "PATCH", target, operations, {**headers, "Content-Type": PATCH}
        )
    assert (answer.status, answer.json["code"]) == (409, "patch_failed")


@pytest.mark.parametrize("query", ["keys=a", "x=1", "key=%", "key=%ff", "automation=a"])
def test_parameters_that_a_route_does_not_have(shared_daemon: Daemon, query: str) -> None:
    target = pair("bad")
    shared_daemon.request("PUT", target, BEFORE)
    with unchanged(shared_daemon, target):
        answer = shared_daemon.request("DELETE", f"{target}?{query}")
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["/v1/buckets", "/v1/events"])
@pytest.mark.parametrize("query", ["device=", "job=", "automation=", "device=%07"])
def test_a_filter_that_is_no_name(shared_daemon: Daemon, path: str, query: str) -> None:
    """Of a script whose variable is empty; no rows would look as if there were no buckets."""
    answer = shared_daemon.request("GET", f"{path}?{query}")
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("key", ["", "__proto__", "constructor", "a.b", "$x", "/", "~", "é", "0"])
def test_keys_are_opaque(shared_daemon: Daemon, key: str) -> None:
    target = pair("keys", "opaque")
    shared_daemon.request("PUT", target, {"other": 1})
    assert shared_daemon.request("PATCH", target, {key: {"__proto__": 1}}).bucket == {
        "other": 1,
        key: {"__proto__": 1},
    }
    escaped = "".join(f"%{b:02X}" for b in key.encode())
    assert shared_daemon.request("GET", f"{target}?key={escaped}").bucket == {key: {"__proto__": 1}}
    assert shared_daemon.request("DELETE", f"{target}?key={escaped}").bucket == {"other": 1}


def test_a_dense_text_that_begins_as_an_indented_one_is_json(shared_daemon: Daemon) -> None:
    target = pair("dense", "job")
    body = b'{\n  "a": [' + b",".join([b"1"] * 200_000) + b"]\n}\n"
    answer = shared_daemon.request("PUT", target, body, {"Content-Type": "application/json"})
    assert (answer.status, answer.bucket) == (200, {"a": [1] * 200_000})


SECRET = "hunter2-secret"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (f"limit={SECRET}", {}),
        (f"cursor={SECRET}", {}),
        ("", {"Accept": f"text/{SECRET}"}),
        ("", {"X-Bad\x01": SECRET}),
        ("", {"X": f"{SECRET}\0"}),
        ("", {"Content-Length": SECRET}),
        ("", {"Transfer-Encoding": SECRET}),
        ("", {"X": SECRET * 1000}),
        ("", {"Host": f"b\r\nHost: {SECRET}"}),
        ("", {"Origin": SECRET}),
    ],
)
def test_a_refusal_repeats_no_value(
    shared_daemon: Daemon, query: str, headers: dict[str, str]
) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": "b"} | headers).items())
    said = shared_daemon.raw(
        f"GET /v1/buckets?{query} HTTP/1.1\r\nConnection: close\r\n{head}\r\n".encode()
    )
    assert re.match(rb"HTTP/1.1 4\d\d ", said), said
    assert SECRET.encode() not in said


def test_a_refused_write_repeats_no_value(shared_daemon: Daemon) -> None:
    target = pair("d", "values")
    for headers in (
        {"If-Match": SECRET},
        {"Content-Type": SECRET},
        {"Content-Encoding": SECRET},
        {"Content-Type": f"application/json; charset={SECRET}"},
    ):
        answer = shared_daemon.request("PUT", target, {"a": SECRET}, headers)
        assert answer.status in (400, 415), headers
        assert SECRET.encode() not in answer.body
    for query in (f"revision={SECRET}", f"created_at={SECRET}", f"updated_at={SECRET}"):
        answer = shared_daemon.request("PUT", f"{target}?{query}", {"a": 1})
        assert answer.status == 400
        assert SECRET.encode() not in answer.body
