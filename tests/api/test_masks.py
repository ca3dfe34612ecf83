"""``?mask=secrets``: masks in place of secrets wherever a bucket is told, and refused in writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Daemon, Response, pair
from sse import Stream

MASK = {"$masked": True}
SCHEMA = {
    "fields": [
        {"name": "token", "type": "any", "secret": True},
        {"name": "login", "type": "object",
         "properties": [{"name": "password", "type": "string", "secret": True}]},
    ]
}  # fmt: skip
BUCKET = {"token": "canary-1", "login": {"password": "canary-2", "user": "ada"}, "n": 1}
MASKED = {"token": MASK, "login": {"password": MASK, "user": "ada"}, "n": 1}
MERGE, PATCH = "application/merge-patch+json", "application/json-patch+json"


@pytest.fixture
def target(shared_daemon: Daemon, request: pytest.FixtureRequest) -> str:
    """The path of a bucket with secrets, of this test alone."""
    path = pair(request.node.name, "j")
    shared_daemon.request("PUT", "/v1/schemas/masks", SCHEMA)
    assert shared_daemon.request("PUT", f"{path}?automation=masks", BUCKET).status == 200
    return path


@pytest.fixture
def token(shared_daemon: Daemon, target: str, request: pytest.FixtureRequest) -> str:
    return shared_daemon.mint(request.node.name, "j", "masks")


def masked(daemon: Daemon, target: str, **more: Any) -> Response:
    return daemon.request("GET", f"{target}?mask=secrets", **more)


def test_a_read_by_name_and_by_token(shared_daemon: Daemon, target: str, token: str) -> None:
    assert masked(shared_daemon, target).bucket == MASKED
    assert masked(shared_daemon, "/v1/bucket", token=token).bucket == MASKED
    assert shared_daemon.request("GET", target).bucket == BUCKET
    assert shared_daemon.request("GET", "/v1/bucket", token=token).bucket == BUCKET
    for keys, expected in (("key=n", {"n": 1}), ("key=token&key=x", {"token": MASK})):
        for path in (f"{target}?mask=secrets&{keys}", f"{target}?{keys}&mask=secrets"):
            assert shared_daemon.request("GET", path).bucket == expected
    head = shared_daemon.request("HEAD", f"{target}?mask=secrets")
    assert head.headers["content-length"] == str(len(masked(shared_daemon, target).body))


def test_what_has_no_schema_has_no_secrets(shared_daemon: Daemon, target: str, token: str) -> None:
    for path in (pair("plain", "j"), pair("plain")):
        shared_daemon.request("PUT", path, BUCKET)
        assert masked(shared_daemon, path).bucket == BUCKET
        assert masked(shared_daemon, path).etag == shared_daemon.request("GET", path).etag
    assert masked(shared_daemon, pair("nothing", "j")).bucket == {}
    shared_daemon.request("PUT", "/v1/device/bucket", BUCKET, token=token)
    assert masked(shared_daemon, "/v1/device/bucket", token=token).bucket == BUCKET


def test_the_schema_of_a_name_that_is_given_counts_too(shared_daemon: Daemon, target: str) -> None:
    shared_daemon.request("PUT", "/v1/schemas/more", {"properties": {"n": {"writeOnly": True}}})
    both = shared_daemon.request("GET", f"{target}?automation=more&mask=secrets").bucket
    assert both == {**MASKED, "n": MASK}


@pytest.mark.parametrize("value", ["", "true", "all", "secrets,x"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_another_value_is_refused(
    shared_daemon: Daemon, target: str, method: str, value: str
) -> None:
    body = {} if method[0] == "P" else None
    answer = shared_daemon.request(method, f"{target}?mask={value}", body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert shared_daemon.request("GET", target).bucket == BUCKET


WRITES: list[tuple[str, str, Any, str]] = [
    ("PATCH", "", {"n": 2}, "application/json"),
    ("PATCH", "", {"n": 2}, MERGE),
    ("PATCH", "", [{"op": "replace", "path": "/n", "value": 2}], PATCH),
    ("PUT", "", BUCKET | {"n": 2}, "application/json"),
]


@pytest.mark.parametrize("write", WRITES, ids=lambda write: f"{write[0]} {write[3]}")
def test_the_answer_to_a_write(
    shared_daemon: Daemon, target: str, token: str, write: tuple[str, str, Any, str]
) -> None:
    method, _, body, kind = write
    headers = {"Content-Type": kind}
    answer = shared_daemon.request(method, f"{target}?mask=secrets", body, headers)
    assert answer.bucket == MASKED | {"n": 2}
    same = shared_daemon.request(method, "/v1/bucket?mask=secrets", body, headers, token=token)
    assert same.bucket == MASKED | {"n": 2}
    assert (answer.etag, answer.etag) == (same.etag, masked(shared_daemon, target).etag)
    minimal = {**headers, "Prefer": "return=minimal"}
    assert (
        "bucket" not in shared_daemon.request(method, f"{target}?mask=secrets", body, minimal).json
    )
    assert shared_daemon.request("GET", target).bucket == BUCKET | {"n": 2}


def test_what_a_delete_leaves(shared_daemon: Daemon, target: str) -> None:
    left = shared_daemon.request("DELETE", f"{target}?mask=secrets&key=n")
    assert left.bucket == {k: v for k, v in MASKED.items() if k != "n"}
    assert shared_daemon.request("DELETE", f"{target}?mask=secrets").bucket == {}


def test_a_masked_form_is_another_representation(shared_daemon: Daemon, target: str) -> None:
    def status(path: str, tag: str | None, method: str = "GET", body: Any = None) -> int:
        name = "If-None-Match" if method == "GET" else "If-Match"
        return shared_daemon.request(method, path, body, {name: str(tag)}).status

    plain, form = shared_daemon.request("GET", target), masked(shared_daemon, target)
    assert plain.etag != form.etag
    assert status(target, plain.etag) == status(f"{target}?mask=secrets", form.etag) == 304
    assert status(target, form.etag) == status(f"{target}?mask=secrets", plain.etag) == 200
    # A guard is about the state, whichever form of it was read.
    for path in (target, f"{target}?mask=secrets"):
        for etag in (plain.etag, form.etag):
            read = shared_daemon.request("GET", path, headers={"If-Match": str(etag)})
            assert read.status == 200
            unless = {"If-None-Match": str(etag)}
            assert shared_daemon.request("PATCH", path, {"n": 5}, unless).status == 412
    assert status(target, form.etag, "PATCH", {"n": 2}) == 200
    assert status(target, form.etag, "PATCH", {"n": 3}) == 412
    now = masked(shared_daemon, target)
    weak = f"W/{now.etag}"
    assert status(f"{target}?mask=secrets", weak) == 304
    assert status(f"{target}?mask=secrets", now.etag, "PUT", {"n": 4}) == 200


def test_masks_change_with_the_schema_at_once(daemon: Daemon) -> None:
    path, automation = pair("d", "j"), "/v1/schemas/a"
    daemon.request("PUT", f"{path}?automation=a", {"a": "canary-1", "b": "canary-2"})
    with Stream(daemon, f"{path}/events?mask=secrets") as stream:
        seen = []
        for number, marked in enumerate(["", "a", "b", "ab", ""]):
            properties = {key: {"writeOnly": True} for key in marked}
            daemon.request("PUT", automation, {"properties": properties})
            with daemon.connect() as sock:
                etag = seen[-1] if seen else '"none"'
                headers = {"If-None-Match": etag}
                form = daemon.request("GET", f"{path}?mask=secrets", None, headers, sock=sock)
                assert form.status == 200
            assert {k for k, v in form.bucket.items() if v == MASK} == set(marked)
            daemon.request("PATCH", path, {"a": f"canary{number}", "b": f"canary{number}"})
            told = stream.next().data["set"]
            assert {k for k, v in told.items() if v == MASK} == set(marked)
            seen.append(str(masked(daemon, path).etag))
    daemon.request("PUT", automation, SCHEMA)
    daemon.request("PUT", path, {"token": "canary"})
    assert masked(daemon, path).bucket == {"token": MASK}
    daemon.restart()
    assert masked(daemon, path).bucket == {"token": MASK}
    assert daemon.request("DELETE", automation).status == 200
    assert masked(daemon, path).bucket == {"token": "canary"}


@pytest.mark.files
def test_a_broken_schema_leaves_the_masks_of_the_last_good_one(daemon: Daemon) -> None:
    path = pair("d", "j")
    daemon.request("PUT", "/v1/schemas/a", SCHEMA)
    daemon.request("PUT", f"{path}?automation=a", BUCKET)
    (daemon.state_dir / "schemas" / "a.json").write_text('{"fields": [')
    while not daemon.request("GET", "/v1/schemas").json["schemas"][0]["problem"]:
        pass
    assert masked(daemon, path).bucket == MASKED


def test_streams(shared_daemon: Daemon, target: str, token: str) -> None:
    with (
        Stream(shared_daemon, f"{target}/events?mask=secrets&snapshot=true") as named,
        Stream(shared_daemon, "/v1/bucket/events?mask=secrets&snapshot=true", token) as own,
        Stream(shared_daemon, f"{target}/events?mask=secrets&key=token&snapshot=true") as some,
        Stream(shared_daemon, f"{target}/events?snapshot=true") as plain,
        Stream(shared_daemon, "/v1/events?mask=secrets&automation=masks") as every,
    ):
        assert named.next().data["set"] == own.next().data["set"] == MASKED
        assert plain.next().data["set"] == BUCKET
        assert some.next().data["set"] == {"token": MASK}
        changed = {"token": ["canary-3"], "login": {"password": "canary-4"}, "n": 2}
        shared_daemon.request("PATCH", target, changed)
        expected = {"token": MASK, "login": {"password": MASK}, "n": 2}
        for stream in (named, own, every):
            assert stream.next().data["set"] == expected
        assert plain.next().data["set"] == changed
        assert some.next().data["set"] == {"token": MASK}
        begun = named.begun
        shared_daemon.request("DELETE", target)
        assert named.next().data == {**_about(target), "set": {}, "removed": list(BUCKET)}
    with Stream(shared_daemon, f"{target}/events?mask=secrets", since=begun) as again:
        assert again.next().data["set"] == expected
    with Stream(shared_daemon, f"/v1/events?mask=secrets&device={_device(target)}",
                since=begun) as again:  # fmt: skip
        assert again.next().data["set"] == expected


def _device(target: str) -> str:
    return target.split("/")[3]


def _about(target: str) -> dict[str, Any]:
    from urllib.parse import unquote

    return {"device": unquote(_device(target)), "job": "j", "revision": 0}


def test_large_buckets(shared_daemon: Daemon, target: str) -> None:
    """Masks of what takes long are made in a worker thread, and are the same."""
    many = {f"k{n}": "x" * 300 for n in range(400)}
    login = {"password": "canary-9", "user": "y" * 200_000}
    with Stream(shared_daemon, f"{target}/events?mask=secrets") as stream:
        shared_daemon.request("PUT", target, {**many, "login": login, "token": "canary"})
        expected = {**many, "login": login | {"password": MASK}, "token": MASK}
        assert stream.next().data["set"] == expected
    assert masked(shared_daemon, target).bucket == expected
    written = shared_daemon.request("PATCH", f"{target}?mask=secrets", {"n": 1})
    assert written.bucket == {**expected, "n": 1}
    some = shared_daemon.request("GET", f"{target}?mask=secrets&key=login&key=k7").bucket
    assert some == {"login": expected["login"], "k7": many["k7"]}


def test_an_export(shared_daemon: Daemon, target: str) -> None:
    query = f"device={_device(target)}"
    [plain] = shared_daemon.request("GET", f"/v1/export?{query}").json["envelopes"]
    [form] = shared_daemon.request("GET", f"/v1/export?{query}&mask=secrets").json["envelopes"]
    assert (plain["bucket"], form["bucket"]) == (BUCKET, MASKED)
    assert plain | {"bucket": MASKED} == form


def test_a_check_says_where_secrets_are(shared_daemon: Daemon, target: str) -> None:
    check = "/v1/schemas/masks/check"
    answer = shared_daemon.request("POST", check, {"bucket": BUCKET})
    assert answer.json["secrets"] == ["/token", "/login/password"]
    assert b"canary" not in answer.body
    none = shared_daemon.request("POST", "/v1/schemas/none/check", {"bucket": BUCKET})
    assert none.json["secrets"] == []


def refused_writes() -> Iterator[tuple[str, Any, str]]:
    for value in (MASK, [MASK], {"deep": [{"er": MASK}]}):
        yield "PATCH", {"token": value}, "application/json"
        yield "PATCH", {"login": {"password": value}}, MERGE
        yield "PATCH", [{"op": "add", "path": "/token", "value": value}], PATCH
        yield "PATCH", [{"op": "test", "path": "/token", "value": value}], PATCH
        yield "PUT", {"token": value}, "application/json"
    yield "PUT", MASK, "application/json"
    yield "PUT", b'{"token": {"\\u0024masked": true}}', "application/json"
    yield "PUT", {"x": "é" * 100_000, "token": MASK}, "application/json"
    yield "PATCH", {"x": "y" * 100_000, "token": MASK}, "application/json"


@pytest.mark.parametrize(("method", "body", "kind"), list(refused_writes()))
def test_a_mask_is_never_written(
    shared_daemon: Daemon, target: str, token: str, method: str, body: Any, kind: str
) -> None:
    before = shared_daemon.request("GET", target)
    metadata = "?revision=90" if method == "PUT" else "?mask=secrets"
    for path, who in ((target, None), ("/v1/bucket", token), (target + metadata, None)):
        answer = shared_daemon.request(method, path, body, {"Content-Type": kind}, token=who)
        assert (answer.status, answer.json["code"]) == (400, "invalid_request"), answer
        assert "mask" in answer.json["error"]
        assert "canary" not in answer.json["error"]
    shared_daemon.request(method, pair("fresh", "j"), body, {"Content-Type": kind})
    assert shared_daemon.request("GET", pair("fresh", "j")).json["revision"] == 0
    now = shared_daemon.request("GET", target)
    assert (now.bucket, now.etag) == (BUCKET, before.etag)


def test_what_only_looks_like_a_mask_is_kept(shared_daemon: Daemon, target: str) -> None:
    values = [json.dumps(MASK), "$masked", {"$masked": False}, {"masked": True}, {'"$masked': True}]
    for value in values:
        written = shared_daemon.request("PATCH", target, {"n": value})
        assert written.bucket["n"] == value
