"""What each verb does to a bucket, its revision and its ETag."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import Daemon, Response, pair

MERGE, PATCH = "application/merge-patch+json", "application/json-patch+json"


def patch(daemon: Daemon, target: str, body: Any, kind: str) -> Response:
    return daemon.request("PATCH", target, body, {"Content-Type": kind})


def test_get_creates_nothing(daemon: Daemon) -> None:
    for target in (pair("d", "j"), pair("d")):
        answer = daemon.request("GET", target)
        assert (answer.bucket, answer.json["revision"], answer.etag) == ({}, 0, None)
    for method, body in (("PATCH", {}), ("DELETE", None)):
        assert daemon.request(method, pair("d", "j"), body).json["revision"] == 0
    assert daemon.request("DELETE", f"{pair('d', 'j')}?key=a").json["revision"] == 0
    assert not (daemon.state_dir / "devices").exists()
    assert daemon.request("GET", "/v1/buckets").json["buckets"] == []


def test_set_merges_shallowly(shared_daemon: Daemon) -> None:
    target = pair("d", "merge")
    shared_daemon.request("PATCH", target, {"a": {"x": 1, "y": 2}, "b": 1, "c": [1]})
    answer = shared_daemon.request("PATCH", target, {"a": {"z": 3}, "b": None})
    assert answer.bucket == {"a": {"z": 3}, "b": None, "c": [1]}
    assert answer.json["revision"] == 2
    assert list(answer.json) == ["success", "bucket", "revision"]


def test_a_write_that_changes_nothing(shared_daemon: Daemon) -> None:
    target = pair("d", "nothing")
    first = shared_daemon.request("PUT", target, {"a": {"x": 1, "y": 2}, "b": 1})
    for method, body in (
        ("PATCH", {}),
        ("PATCH", {"b": 1}),
        ("PUT", {"b": 1, "a": {"y": 2, "x": 1}}),
    ):
        answer = shared_daemon.request(method, target, body)
        assert (answer.json["revision"], answer.etag) == (1, first.etag)
    answer = shared_daemon.request("DELETE", f"{target}?key=absent")
    assert (answer.json["revision"], answer.etag) == (1, first.etag)
    for body in ({"b": 1.0}, {"b": True}, {"b": "1"}):
        assert shared_daemon.request("PATCH", target, body).json["revision"] > 1, body


def test_a_write_binds_another_automation(shared_daemon: Daemon) -> None:
    """Also where the content stays: it is what the next write is checked by."""
    target = pair("d", "rebound")
    first = shared_daemon.request("PUT", f"{target}?automation=one", {"a": 1})
    same = shared_daemon.request("PATCH", f"{target}?automation=one", {"a": 1})
    assert (same.json["revision"], same.etag) == (1, first.etag)
    assert shared_daemon.request("PATCH", target, {}).json["revision"] == 1  # names none
    for method, body in (("PUT", {"a": 1}), ("PATCH", {}), ("DELETE", None)):
        name = f"by-{method}"
        query = f"?automation={name}" + ("&key=absent" if method == "DELETE" else "")
        answer = shared_daemon.request(method, target + query, body)
        assert answer.bucket == {"a": 1}
        rows = shared_daemon.request("GET", f"/v1/buckets?automation={name}").json["buckets"]
        assert [(row["job"], row["revision"]) for row in rows] == [
            ("rebound", answer.json["revision"])
        ]
    nothing = pair("d", "not there")
    answer = shared_daemon.request("PATCH", f"{nothing}?automation=one", {})
    assert answer.json["revision"] == 0  # creates nothing, so there is nothing to bind


def test_replace_remove_clear(shared_daemon: Daemon) -> None:
    target = pair("d", "replace")
    shared_daemon.request("PUT", target, {"a": 1, "b": 2, "c": 3})
    assert shared_daemon.request("PUT", target, {"b": 1, "c": 2}).bucket == {"b": 1, "c": 2}
    answer = shared_daemon.request("DELETE", f"{target}?key=b&key=x")
    assert (answer.bucket, answer.json["revision"]) == ({"c": 2}, 3)
    answer = shared_daemon.request("DELETE", target)
    assert (answer.bucket, answer.json["revision"], answer.etag) == ({}, 0, None)


def test_an_etag_never_repeats(daemon: Daemon) -> None:
    """Not after a deletion, not after a crash: revisions begin again, so they cannot tell."""
    target, seen = pair("d", "j"), []
    for round_number in range(3):
        for number in range(3):
            answer = daemon.request("PUT", target, {"n": number})
            assert answer.json["revision"] == number + 1
            seen.append(answer.etag)
        daemon.request("DELETE", target)
        if round_number:
            daemon.kill()
            daemon.start()
    assert len(set(seen)) == len(seen)
    for etag in seen:
        headers = {"If-Match": str(etag)}
        assert daemon.request("PUT", target, {"n": 9}, headers).status == 412


def test_merge_patch(shared_daemon: Daemon) -> None:
    """The examples of RFC 7396, appendix A, as far as they are objects."""
    cases: list[tuple[Any, Any, Any]] = [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    for before, change, after in cases:
        shared_daemon.request("PUT", pair("d", "mp"), before)
        assert patch(shared_daemon, pair("d", "mp"), change, MERGE).bucket == after, change


def test_json_patch(shared_daemon: Daemon) -> None:
    target = pair("d", "jp")
    shared_daemon.request("PUT", target, {"a": [1, 2], "b": {"c/d": 1, "m~n": 2}})
    operations = [
        {"op": "test", "path": "/b/c~1d", "value": 1},
        {"op": "add", "path": "/a/-", "value": 3},
        {"op": "replace", "path": "/b/m~0n", "value": None},
        {"op": "copy", "from": "/a", "path": "/e"},
        {"op": "move", "from": "/b/c~1d", "path": "/f"},
        {"op": "remove", "path": "/a/0"},
    ]
    answer = patch(shared_daemon, target, operations, PATCH)
    assert answer.bucket == {"a": [2, 3], "b": {"m~n": None}, "e": [1, 2, 3], "f": 1}
    assert answer.json["revision"] == 2


def test_json_patch_that_changes_and_then_replaces_the_whole(shared_daemon: Daemon) -> None:
    """What it came to in between is no measure of whether anything has changed."""
    target = pair("d", "jp-whole")
    shared_daemon.request("PUT", target, {"a": 1})
    operations = [
        {"op": "replace", "path": "/a", "value": 2},
        {"op": "replace", "path": "", "value": {"a": 2}},
    ]
    answer = patch(shared_daemon, target, operations, PATCH)
    assert (answer.bucket, answer.json["revision"]) == ({"a": 2}, 2)


def test_guards(shared_daemon: Daemon) -> None:
    target = pair("d", "guards")
    anew = {"If-None-Match": "*"}
    first = shared_daemon.request("PUT", target, {"n": 1}, anew)
    assert first.status == 200
    refused = shared_daemon.request("PUT", target, {"n": 2}, anew)
    assert (refused.status, refused.json["code"]) == (412, "precondition_failed")
    assert refused.json["revision"] == 1
    etag = str(first.etag)
    for value, status in (
        ('"other"', 412),
        (f"W/{etag}", 412),
        (f'"other", {etag}', 200),
        (etag, 412),
    ):
        answer = shared_daemon.request("PATCH", target, {"n": value}, {"If-Match": value})
        assert answer.status == status, value
    assert shared_daemon.request("DELETE", target, None, {"If-Match": "*"}).status == 200
    assert shared_daemon.request("DELETE", target, None, {"If-Match": "*"}).status == 412


def test_not_modified(shared_daemon: Daemon) -> None:
    target = pair("d", "304")
    etag = str(shared_daemon.request("PUT", target, {"n": 1}).etag)
    for value in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = shared_daemon.request("GET", target, headers={"If-None-Match": value})
        assert (answer.status, answer.body, answer.etag) == (304, b"", etag), value
    assert shared_daemon.request("GET", target, headers={"If-None-Match": '"x"'}).status == 200
    with shared_daemon.connect() as sock:  # and again with heads that were seen before
        for _ in range(3):
            answer = shared_daemon.request("GET", target, None, {"If-None-Match": etag}, sock=sock)
            assert answer.status == 304


def test_the_device_bucket_is_of_all_jobs(shared_daemon: Daemon) -> None:
    one, two = shared_daemon.mint("shared", "one"), shared_daemon.mint("shared", "two")
    answer = shared_daemon.request("PATCH", "/v1/device/bucket", {"model": "p7"}, token=one)
    assert list(answer.json) == ["success", "deviceBucket", "revision"]
    answer = shared_daemon.request("GET", "/v1/device/bucket", token=two)
    assert answer.bucket == {"model": "p7"}
    assert shared_daemon.request("GET", "/v1/bucket", token=two).bucket == {}
    assert shared_daemon.request("GET", pair("shared")).bucket == {"model": "p7"}


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_pages_of_a_list_are_the_whole(daemon: Daemon, limit: int) -> None:
    for number in range(7):
        job = None if number % 3 == 0 else f"j{number}"
        daemon.request("PUT", pair(f"d{number % 2}-{number if job is None else 0}", job), {"n": 1})
    rows, cursor = [], ""
    while cursor is not None:
        query = f"?limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        page = daemon.request("GET", f"/v1/buckets{query}").json
        assert len(page["buckets"]) <= limit
        rows += page["buckets"]
        cursor = page["next_cursor"]
    assert len(rows) == len({(row["device"], row["job"]) for row in rows}) == 7
    assert {row["revision"] for row in rows} == {1}
    assert {row["size"] for row in rows} == {len(json.dumps({"n": 1}).replace(" ", ""))}
    assert daemon.request("GET", "/v1/buckets?limit=0").status == 400
    assert daemon.request("GET", "/v1/buckets?cursor=nonsense").status == 400


@pytest.mark.parametrize("target", [pair("d", "minimal"), pair("minimal")])
def test_a_write_may_be_answered_without_the_bucket(shared_daemon: Daemon, target: str) -> None:
    """``Prefer: return=minimal``; also where the head is repeated, and the bucket is large."""
    minimal = {"Prefer": 'respond-async, Return="minimal"; x=1'}
    writes: tuple[tuple[str, Any, int], ...] = (
        ("PUT", {"a": 1}, 1),
        ("PATCH", {"b": 1}, 2),
        ("PATCH", {"b": 2}, 3),
        ("PATCH", {"pad": "x" * 200_000}, 4),
        ("PATCH", {"pad": "x" * 200_000}, 4),
    )
    for method, body, revision in writes:
        answer = shared_daemon.request(method, target, body, minimal)
        assert answer.json == {"success": True, "revision": revision}
        assert answer.headers["preference-applied"] == "return=minimal"
        assert answer.etag == shared_daemon.request("GET", target).etag
    answer = shared_daemon.request("DELETE", f"{target}?key=pad", None, minimal)
    assert answer.json == {"success": True, "revision": 5}
    answer = shared_daemon.request("DELETE", target, None, minimal)
    trash = answer.headers["bucketd-trash"]
    assert (answer.json, answer.etag) == ({"success": True, "revision": 0, "trash": trash}, None)


@pytest.mark.parametrize("prefer", ["return=representation", "return=maximal", "respond-async", ""])
def test_any_other_preference_gives_the_bucket(shared_daemon: Daemon, prefer: str) -> None:
    answer = shared_daemon.request("PUT", pair("d", "prefer"), {"a": 1}, {"Prefer": prefer})
    assert answer.bucket == {"a": 1}
    assert "preference-applied" not in answer.headers
    read = shared_daemon.request("GET", pair("d", "prefer"), None, {"Prefer": "return=minimal"})
    assert read.bucket == {"a": 1}
