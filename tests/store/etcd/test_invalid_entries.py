"""What is below the prefix and is not ours is named as a problem; all else is served."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ctl_shell import Shell
from fleet import Cluster, Host, b64, wait_until
from harness import pair
from sse import Stream

SECRET = "hunter2"


@pytest.fixture
def host(etcd: Cluster) -> Iterator[Host]:
    found = etcd.host(BUCKETD_STORE_ETCD_PREFIX=f"/{time.monotonic_ns()}/")
    try:
        found.start()
        yield found
    finally:
        found.remove()


def put(etcd: Cluster, key: bytes, value: Any) -> None:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    etcd.nodes[0].ask("/v3/kv/put", {"key": b64(key), "value": b64(text)})


def stored(etcd: Cluster, key: bytes) -> dict[str, Any]:
    found = etcd.nodes[0].ask("/v3/kv/range", {"key": b64(key)})["kvs"][0]
    return dict(json.loads(base64.b64decode(found["value"])))


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "two"},
        {"revision": True},
        {"revision": 0},
        {"etag": 7},
        {"device": "another"},
        {"device": ["p"]},
        {"device": "\ud800"},
        {"automation": {}},
        {"updated_at": 5},
        {"bucket": [SECRET]},
        {"format": "bucketd/2"},
    ],
    ids=str,
)
def test_a_value_that_is_not_the_bucket_of_its_key(
    etcd: Cluster, host: Host, change: dict[str, Any]
) -> None:
    for job in ("a", "b", "c"):
        assert host.request("PUT", pair("p", job), {"job": job}).status == 200
    key = f"{host.prefix}job/p/b".encode()
    put(etcd, key, {**stored(etcd, key), **change})
    page = host.request("GET", "/v1/buckets").json
    assert [row["job"] for row in page["buckets"]] == ["a", "c"]
    assert page["unreadable"] == [key.decode()]
    for method, body in (("GET", None), ("PATCH", {"n": 1})):
        answer = host.request(method, pair("p", "b"), body)
        assert (answer.status, answer.json["code"]) == (500, "bucket_corrupt"), answer
        assert SECRET.encode() not in answer.body
    assert host.request("PATCH", pair("p", "c"), {"n": 1}).status == 200


def test_keys_and_values_of_other_kinds(etcd: Cluster, host: Host) -> None:
    host.request("PUT", pair("p", "a"), {})
    strange = [b"device/\xff\xfe", b"device/", b"job/p", b"job/p/%2", b"job/p/a/b", b"job/x/y"]
    with Stream(host, "/v1/events") as stream:
        for number, name in enumerate(strange):
            value = [b"\xff" + SECRET.encode(), {}, [], "x", 5, b""][number]
            put(etcd, host.prefix.encode() + name, value)
        assert host.request("PATCH", pair("p", "a"), {"n": 1}).status == 200
        seen = stream.next()
        while seen.kind != "bucket":
            seen = stream.next()
        assert seen.data["set"] == {"n": 1}
    page = host.request("GET", "/v1/buckets").json
    assert [row["job"] for row in page["buckets"]] == ["a"]
    assert len(page["unreadable"]) == len(strange)
    assert SECRET not in json.dumps(page) + host.log


def test_a_change_to_what_is_not_a_bucket_is_a_gap(etcd: Cluster, host: Host) -> None:
    """To tell of a removal would be wrong: a read says that the bucket is corrupt."""
    path = pair("p", "a")
    host.request("PUT", path, {"n": 1})
    with Stream(host, f"{path}/events") as stream:
        put(etcd, f"{host.prefix}job/p/a".encode(), {"not": "a bucket"})
        assert stream.next().kind == "gap"


def test_a_schema_that_is_not_valid_stays_in_force_and_is_a_problem(
    etcd: Cluster, host: Host
) -> None:
    schema = {"fields": [{"name": "n", "type": "number"}]}
    for name in ("one", "two"):
        assert host.request("PUT", f"/v1/schemas/{name}", schema).status == 200
    put(etcd, f"{host.prefix}schema/one".encode(), SECRET)
    wait_until(lambda: bool(host.request("GET", "/v1/status").json["store"]["problems"]))
    problems = host.request("GET", "/v1/status").json["store"]["problems"]
    assert len(problems) == 1
    assert "shared schema of 'one'" in problems[0]
    host.restart()
    time.sleep(0.5)
    assert host.request("GET", "/v1/schemas/one").status == 200
    bad = host.request("PUT", f"{pair('p', 'j')}?automation=one", {"n": "x"})
    assert bad.status == 422
    assert SECRET not in host.log
    assert host.request("PUT", "/v1/schemas/one", schema).status == 200
    wait_until(lambda: not host.request("GET", "/v1/status").json["store"]["problems"])


def test_a_host_that_is_not_valid_is_told_and_all_others_are_served(
    etcd: Cluster, host: Host
) -> None:
    host.request("PUT", pair("p", "a"), {})
    values = [b"\xff", [], {}, {"host": {"a": SECRET}, "version": "1", "started_at": "now"}]
    for number, value in enumerate(values):
        put(etcd, f"{host.prefix}host/{number}".encode(), value)
    put(etcd, host.prefix.encode() + b"host/\xff", {})
    wait_until(lambda: len(host.request("GET", "/v1/status").json["store"]["hosts"]) == 1)
    store = host.request("GET", "/v1/status").json["store"]
    names = [f"{host.prefix}host/{number}" for number in range(4)] + [f"{host.prefix}host/\\xff"]
    assert [
        name for name in names if any(repr(name) in told for told in store["problems"])
    ] == names
    assert SECRET not in json.dumps(store) + host.log
    assert host.request("GET", "/metrics").status == 200


def test_a_schema_is_never_said_to_fit_what_cannot_be_read(etcd: Cluster, host: Host) -> None:
    path = f"{pair('p', 'a')}?automation=mail"
    host.request("PUT", path, {"n": 1})
    put(etcd, f"{host.prefix}job/p/b".encode(), {"automation": "mail", "bucket": {"n": SECRET}})
    schema = {"fields": [{"name": "n", "type": "number"}]}
    told = host.request("PUT", "/v1/schemas/mail?dry_run=true", schema).json
    assert (told["count"], told["unreadable"]) == (0, [f"{host.prefix}job/p/b"])
    done = Shell(host)("schema", "check", "mail", "-", stdin=json.dumps(schema))
    assert (done.returncode, f"{host.prefix}job/p/b" in done.stderr) == (1, True)
    assert SECRET not in done.stdout + done.stderr


def test_a_record_of_the_shard_that_is_not_valid_is_told(etcd: Cluster) -> None:
    host = etcd.host(BUCKETD_STORE_ETCD_PREFIX=f"/{time.monotonic_ns()}/")
    put(etcd, f"{host.prefix}shard".encode(), SECRET)
    try:
        host.start()
        answer = host.request("GET", pair("p", "a"))
        assert (answer.status, answer.json["code"]) == (500, "internal")
        assert "is not valid" in answer.json["error"]
        assert SECRET.encode() not in answer.body
    finally:
        host.remove()
