"""History and undo, over the API: what is told, to whom, and what taking a change back does."""

from __future__ import annotations

import itertools
import os
import pwd
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from external_edits import edit
from harness import Daemon, Response, pair

USER = pwd.getpwuid(os.getuid()).pw_name
SECRETS = {"properties": {"password": {"type": "string", "writeOnly": True}}}


def history(daemon: Daemon, path: str, query: str = "", token: str | None = None) -> list[Any]:
    answer = daemon.request("GET", f"{path}/history?{query}", token=token)
    assert answer.status == 200, answer
    found: list[Any] = answer.json["history"]
    return found


def undo(daemon: Daemon, path: str, revision: int | None = None, **more: Any) -> Response:
    body = {} if revision is None else {"revision": revision}
    return daemon.request("POST", f"{path}/undo", body, **more)


def refused(answer: Response, status: int, code: str) -> Any:
    assert (answer.status, answer.json["code"]) == (status, code), answer
    return answer.json


def test_every_change_is_told_the_newest_first(shared_daemon: Daemon) -> None:
    path = pair("phone", "told")
    body = {"device": "phone", "job": "told", "automation": "shop", "label": "run 7"}
    context = shared_daemon.request("POST", "/v1/contexts", body).json
    token = context["token"]
    first = shared_daemon.request("PUT", "/v1/bucket", {"a": 1, "b": [2]}, token=token)
    shared_daemon.request("PATCH", "/v1/bucket", {"a": 2, "c": None}, token=token)
    last = shared_daemon.request("DELETE", f"{path}?key=b&key=c")
    by_token = {
        "user": USER,
        "context": context["id"],
        "device": "phone",
        "job": "told",
        "automation": "shop",
        "run": "run 7",
    }
    found = history(shared_daemon, path, "values=true")
    times = [entry.pop("at") for entry in found]
    assert times == sorted(times, reverse=True)
    assert found[0].pop("etag") == (last.etag or "").strip('"')
    assert found[2].pop("etag") == (first.etag or "").strip('"')
    del found[1]["etag"]
    assert found == [
        {
            "revision": 3,
            "by": {"user": USER, "automation": "shop"},
            "set": [],
            "removed": ["b", "c"],
            "before": {"b": [2], "c": None},
        },
        {"revision": 2, "by": by_token, "set": ["a", "c"], "removed": [], "before": {"a": 1}},
        {"revision": 1, "by": by_token, "set": ["a", "b"], "removed": [], "before": {}},
    ]
    plain = history(shared_daemon, path)
    assert [set(entry) for entry in plain] == [
        {"revision", "at", "etag", "by", "set", "removed"} for _ in plain
    ]


def test_pages_have_every_change_once(shared_daemon: Daemon) -> None:
    path = pair("phone", "pages")
    for number in range(7):
        shared_daemon.request("PATCH", path, {"n": number})
    found, cursor = [], ""
    while True:
        answer = shared_daemon.request("GET", f"{path}/history?limit=3{cursor}").json
        assert len(answer["history"]) <= 3
        found += [entry["revision"] for entry in answer["history"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
        # Later changes are on no later page.
        shared_daemon.request("PATCH", path, {"n": cursor})
    assert found == [7, 6, 5, 4, 3, 2, 1]


def test_a_bucket_that_is_not_there_has_no_history(shared_daemon: Daemon) -> None:
    path = pair("phone", "nothing")
    assert history(shared_daemon, path) == []
    refused(undo(shared_daemon, path), 404, "not_found")
    refused(undo(shared_daemon, path, 1), 404, "not_found")
    assert shared_daemon.request("GET", path).json["revision"] == 0


def test_an_earlier_state_can_be_read(shared_daemon: Daemon) -> None:
    path = pair("phone", "earlier")
    answers = [
        shared_daemon.request("PUT", path, {"a": 1, "b": 2, "c": 3}),
        shared_daemon.request("PUT", path, {"c": 3, "b": 5}),
        shared_daemon.request("PATCH", path, {"d": {"e": [1.5, None]}}),
        shared_daemon.request("DELETE", f"{path}?key=c"),
    ]
    for number, answer in enumerate(answers, 1):
        found = shared_daemon.request("GET", f"{path}?revision={number}")
        assert found.body == answer.body
        assert found.etag == answer.etag
    assert shared_daemon.request("GET", f"{path}?revision=1&key=b").bucket == {"b": 2}
    guard = {"If-None-Match": answers[1].etag or ""}
    assert shared_daemon.request("GET", f"{path}?revision=2", headers=guard).status == 304
    assert shared_daemon.request("GET", f"{path}?revision=3", headers=guard).status == 200


@pytest.mark.parametrize("number", ["0", "-1", "1.0", "", "x", "9" * 16])
def test_a_revision_is_a_positive_whole_number(shared_daemon: Daemon, number: str) -> None:
    path = pair("phone", "numbers")
    shared_daemon.request("PUT", path, {"n": 1})
    refused(shared_daemon.request("GET", f"{path}?revision={number}"), 400, "invalid_request")


def test_what_an_undo_may_not_be(shared_daemon: Daemon) -> None:
    path = pair("phone", "bodies")
    shared_daemon.request("PUT", path, {"n": 1})
    refused(shared_daemon.request("POST", f"{path}/undo", []), 400, "invalid_json")
    for body in ({"revision": 0}, {"revision": "1"}, {"revision": True}, {"revisions": 1}):
        refused(shared_daemon.request("POST", f"{path}/undo", body), 400, "invalid_request")
    refused(
        shared_daemon.request("POST", f"{path}/undo", {"revision": 1.5}), 400, "invalid_request"
    )
    query = "revision=1&defaults=true"
    refused(shared_daemon.request("GET", f"{path}?{query}"), 400, "invalid_request")
    assert shared_daemon.request("GET", path).json["revision"] == 1


def test_the_future_is_not_found(shared_daemon: Daemon) -> None:
    path = pair("phone", "future")
    shared_daemon.request("PUT", path, {"n": 1})
    refused(shared_daemon.request("GET", f"{path}?revision=2"), 404, "not_found")
    refused(undo(shared_daemon, path, 2), 404, "not_found")


def test_the_last_change_is_taken_back_and_that_as_well(shared_daemon: Daemon) -> None:
    path = pair("phone", "last")
    shared_daemon.request("PUT", path, {"a": 1, "b": 2, "c": 3})
    shared_daemon.request("DELETE", f"{path}?key=b")
    answer = undo(shared_daemon, path)
    assert answer.body.startswith(b'{"success":true,"bucket":{"a":1,"b":2,"c":3},"revision":3')
    assert answer.json["undone"] == 2
    assert undo(shared_daemon, path).json["bucket"] == {"a": 1, "c": 3}
    assert [entry.get("undoes") for entry in history(shared_daemon, path)] == [3, 2, None, None]


def test_an_undo_takes_back_one_change_alone(shared_daemon: Daemon) -> None:
    path = pair("phone", "alone")
    shared_daemon.request("PUT", path, {"a": 1, "b": 1})
    shared_daemon.request("PATCH", path, {"a": 2, "new": 1})
    shared_daemon.request("PATCH", path, {"b": 2})
    assert undo(shared_daemon, path, 2).bucket == {"a": 1, "b": 2}
    # The keys have been touched since: by the undo.
    details = refused(undo(shared_daemon, path, 2), 409, "undo_conflict")["details"]
    assert details == [{"key": "a", "revision": 4}, {"key": "new", "revision": 4}]


def test_an_undo_conflicts_by_key(shared_daemon: Daemon) -> None:
    path = pair("phone", "conflict")
    shared_daemon.request("PUT", path, {"a": 1, "b": 1, "c": 1})
    shared_daemon.request("PATCH", path, {"a": 2, "b": 2})
    shared_daemon.request("PATCH", path, {"a": 3})
    shared_daemon.request("PATCH", path, {"c": 3})
    shared_daemon.request("PATCH", path, {"a": 4})
    answer = refused(undo(shared_daemon, path, 2), 409, "undo_conflict")
    assert answer["details"] == [{"key": "a", "revision": 5}]
    assert shared_daemon.request("GET", path).json["revision"] == 5
    # A change that was itself taken back is no conflict, in any order of the numbers.
    assert undo(shared_daemon, path, 5).bucket["a"] == 3
    assert undo(shared_daemon, path, 3).bucket["a"] == 2
    assert undo(shared_daemon, path, 2).bucket == {"a": 1, "b": 1, "c": 3}
    # The undo of an undo makes a change count again.
    assert undo(shared_daemon, path, 7).status == 409
    assert undo(shared_daemon, path, 8).bucket == {"a": 2, "b": 2, "c": 3}
    assert undo(shared_daemon, path, 7).bucket["a"] == 3
    answer = refused(undo(shared_daemon, path, 2), 409, "undo_conflict")
    assert answer["details"] == [{"key": "a", "revision": 10}]


def test_an_undo_is_a_write_like_any_other(shared_daemon: Daemon) -> None:
    path = pair("phone", "write")
    schema = {"properties": {"n": {"type": "integer"}}}
    shared_daemon.request("PUT", path, {"n": "text"})
    changed = shared_daemon.request("PUT", f"{path}?automation=counts", {"n": 1, "m": 1})
    assert shared_daemon.request("PUT", "/v1/schemas/counts", schema).status == 200
    refused(undo(shared_daemon, path), 422, "schema_violation")
    refused(undo(shared_daemon, path, headers={"If-Match": '"x"'}), 412, "precondition_failed")
    refused(undo(shared_daemon, path, headers={"Bucketd-Fence": "x"}), 412, "hold_lost")
    assert shared_daemon.request("GET", path).etag == changed.etag
    shared_daemon.request("PATCH", path, {"m": 2})
    minimal = {
        "If-Match": shared_daemon.request("GET", path).etag or "",
        "Prefer": "return=minimal",
    }
    answer = undo(shared_daemon, path, headers=minimal)
    assert answer.json == {"success": True, "revision": 4, "undone": 3}


def test_a_token_sees_its_own_history_alone(shared_daemon: Daemon) -> None:
    own, other = shared_daemon.mint("scope", "own"), shared_daemon.mint("scope", "other")
    of_device = shared_daemon.mint("scope")
    shared_daemon.request("PUT", "/v1/bucket", {"secret": "own"}, token=own)
    shared_daemon.request("PUT", "/v1/bucket", {"secret": "other"}, token=other)
    shared_daemon.request("PUT", "/v1/device/bucket", {"secret": "device"}, token=own)
    shared_daemon.request("PUT", "/v1/device/bucket", {"secret": "again"}, token=of_device)
    for token, job in (own, "own"), (other, "other"):
        (entry,) = history(shared_daemon, "/v1/bucket", "values=true", token=token)
        assert entry["by"]["job"] == job
        assert shared_daemon.request("GET", "/v1/bucket?revision=1", token=token).bucket == {
            "secret": job
        }
    found = history(shared_daemon, "/v1/device/bucket", "values=true", token=of_device)
    assert [entry["before"] for entry in found] == [{"secret": "device"}, {}]
    for path in ("/v1/bucket/history", "/v1/bucket?revision=1"):
        refused(shared_daemon.request("GET", path, token=of_device), 401, "no_job_context")
    refused(undo(shared_daemon, "/v1/bucket", token=of_device), 401, "no_job_context")
    for path in (pair("scope", "other"), pair("scope")):
        refused(shared_daemon.request("GET", f"{path}/history", token=own), 401, "no_job_context")
        refused(undo(shared_daemon, path, token=own), 401, "no_job_context")
    answer = undo(shared_daemon, "/v1/device/bucket", token=own)
    assert answer.json["deviceBucket"] == {"secret": "device"}


def test_secrets_are_masked_in_history(shared_daemon: Daemon) -> None:
    path, mask = pair("phone", "masked"), {"password": {"$masked": True}}
    assert shared_daemon.request("PUT", "/v1/schemas/secretive", SECRETS).status == 200
    token = shared_daemon.mint("phone", "masked", "secretive")
    shared_daemon.request("PUT", "/v1/bucket", {"password": "pw-1", "n": 1}, token=token)
    shared_daemon.request("PATCH", "/v1/bucket", {"password": "pw-2", "n": 2}, token=token)
    answer = shared_daemon.request("POST", f"{path}/undo?mask=secrets", {"revision": 2})
    assert answer.bucket == {**mask, "n": 1}
    assert undo(shared_daemon, path).bucket == {"password": "pw-2", "n": 2}
    # Another automation, by whose schema nothing is secret, does not uncover what was.
    shared_daemon.request("PATCH", f"{path}?automation=open", {"n": 3})
    masked = history(shared_daemon, path, "values=true&mask=secrets")
    assert [entry["before"] for entry in masked] == [
        {"n": 2},
        {**mask, "n": 1},
        {**mask, "n": 2},
        {**mask, "n": 1},
        {},
    ]
    shared_daemon.request("PATCH", path, {"password": "pw-3"})
    # Nor does a page on which no revision of the secretive automation is.
    masked = history(shared_daemon, path, "values=true&mask=secrets&limit=1")
    assert [entry["before"] for entry in masked] == [mask]
    shown = history(shared_daemon, "/v1/bucket", "values=true", token=token)[1:]
    assert shown[1]["before"] == {"password": "pw-1", "n": 1}
    earlier = shared_daemon.request("GET", f"{path}?revision=1&mask=secrets")
    assert earlier.bucket == {**mask, "n": 1}
    assert earlier.etag != shared_daemon.request("GET", f"{path}?revision=1").etag


@pytest.mark.files
def test_an_edit_by_another_program_is_a_change(daemon: Daemon) -> None:
    path = pair("phone", "edited")
    daemon.request("PUT", path, {"a": 1, "b": 2})
    daemon.request("GET", "/v1/status")
    edit(daemon, lambda bucket: {"b": 3, "c": 4}, "phone", "edited")
    newest, _ = history(daemon, path, "values=true")
    assert newest["by"] == {"edit": True}
    assert (newest["revision"], newest["set"], newest["removed"]) == (2, ["b", "c"], ["a"])
    assert newest["before"] == {"a": 1, "b": 2}
    assert daemon.request("GET", f"{path}?revision=1").bucket == {"a": 1, "b": 2}
    answer = undo(daemon, path)
    assert answer.body.startswith(b'{"success":true,"bucket":{"a":1,"b":2},"revision":3')


@pytest.mark.files
def test_an_edit_of_what_was_not_known_ends_the_history(daemon: Daemon) -> None:
    path = pair("phone", "offline")
    daemon.request("PUT", path, {"a": 1})
    daemon.request("PATCH", path, {"a": 2})
    assert daemon.stop() == 0
    edit(daemon, lambda bucket: {"b": 1}, "phone", "offline")
    daemon.start()
    daemon.request("PATCH", path, {"c": 1})
    newest, edited = history(daemon, path, "values=true")
    assert (newest["set"], newest["before"]) == (["c"], {})
    assert edited["by"] == {"edit": True}
    assert (edited["before_known"], edited["set"]) == (False, [])
    assert daemon.request("GET", f"{path}?revision=3").bucket == {"b": 1}
    refused(daemon.request("GET", f"{path}?revision=2"), 410, "not_kept")
    told = refused(undo(daemon, path, 3), 410, "not_kept")
    assert "what it replaced is not kept" in told["error"]
    told = refused(undo(daemon, path, 1), 410, "not_kept")
    assert "does not reach back" in told["error"]


@pytest.mark.files
def test_the_history_is_bounded_and_goes_with_its_bucket(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.env |= {"BUCKETD_HISTORY_REVISIONS": "10", "BUCKETD_HISTORY_BYTES": "4000"}
    daemon.start()
    path = pair("phone", "bounded")
    kept = daemon.state_dir / "history/devices/phone/jobs"
    for number in range(57):
        daemon.request("PATCH", path, {"n": number})
        if number % 7 == 0:
            daemon.request("GET", "/v1/status")
            assert sum(file.stat().st_size for file in kept.iterdir()) < 2 * 4000 + 100
    assert [entry["revision"] for entry in history(daemon, path)] == [*range(57, 47, -1)]
    assert daemon.request("GET", f"{path}?revision=47").bucket == {"n": 46}
    refused(daemon.request("GET", f"{path}?revision=46"), 410, "not_kept")
    refused(undo(daemon, path, 47), 410, "not_kept")
    large = daemon.request("PATCH", path, {"large": "x" * 1500}).json["revision"]
    daemon.request("PATCH", path, {"large": "y" * 1500})
    daemon.request("PATCH", path, {"large": "z" * 1500})
    # The values of two changes are as many bytes as there may be.
    found = [entry["revision"] for entry in history(daemon, path)]
    assert found == [*range(60, 60 - len(found), -1)]
    assert 3 < len(found) < 10
    daemon.request("PATCH", path, {"large": "w" * 5000})
    daemon.request("PATCH", path, {"large": ""})
    newest, before, *_ = history(daemon, path)
    assert (newest["before_known"], newest["set"], newest["removed"]) == (False, ["large"], [])
    assert before["revision"] == large + 3
    refused(undo(daemon, path), 410, "not_kept")
    refused(daemon.request("GET", f"{path}?revision={before['revision']}"), 410, "not_kept")
    # A change that did not touch these keys can be taken back through it.
    other = daemon.request("PATCH", path, {"other": 1}).json["revision"]
    daemon.request("PATCH", path, {"large": "v" * 5000})
    daemon.request("PATCH", path, {"large": ""})
    assert undo(daemon, path, other).json["undone"] == other
    daemon.request("DELETE", f"{path}?trash=false")
    daemon.request("PUT", path, {"anew": 1})
    assert [entry["revision"] for entry in history(daemon, path)] == [1]
    daemon.request("DELETE", f"{path}?trash=false")
    daemon.request("GET", "/v1/status")
    assert list(kept.iterdir()) == []


@pytest.mark.files
@pytest.mark.parametrize("off", ["BUCKETD_HISTORY_REVISIONS", "BUCKETD_HISTORY_BYTES"])
def test_zero_turns_it_off(stopped_daemon: Daemon, off: str) -> None:
    daemon = stopped_daemon
    daemon.env[off] = "0"
    daemon.start()
    path = pair("phone", "off")
    daemon.request("PUT", path, {"n": 1})
    daemon.request("PATCH", path, {"n": 2})
    assert history(daemon, path) == []
    assert daemon.request("GET", f"{path}?revision=2").bucket == {"n": 2}
    refused(daemon.request("GET", f"{path}?revision=1"), 410, "not_kept")
    refused(undo(daemon, path), 410, "not_kept")
    assert not (daemon.state_dir / "history").exists()


def test_an_import_is_told_at_the_time_it_was_made(shared_daemon: Daemon) -> None:
    path = pair("phone", "imported")
    query = "revision=17&created_at=2020-01-01T00:00:00.000Z&updated_at=2020-01-02T00:00:00.000Z"
    assert shared_daemon.request("PUT", f"{path}?{query}", {"n": 1}).json["revision"] == 17
    shared_daemon.request("PATCH", path, {"n": 2})
    newest, imported = history(shared_daemon, path)
    assert newest["at"] >= imported["at"] > "2026"
    assert (newest["revision"], imported["revision"]) == (18, 17)
    refused(shared_daemon.request("GET", f"{path}?revision=5"), 404, "not_found")


@pytest.mark.parametrize("keys", [5, 100])
def test_an_undo_gets_through_while_others_write(
    keeping: Callable[[int], Daemon], keys: int
) -> None:
    """A bucket of few keys is held by its members, one of many short ones as text."""
    # The history keeps more than two writers make on a fast disk before an undo is sent.
    daemon, path, stop = keeping(1000), pair("phone", f"busy {keys}"), threading.Event()
    daemon.request("PUT", path, {f"k{number}": number for number in range(keys)})

    def write(name: str) -> None:
        with daemon.connect() as sock:
            for number in itertools.count():
                daemon.request("PATCH", path, {name: number}, sock=sock)
                if stop.is_set():
                    return

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, name) for name in ("one", "other")]
        try:
            for number in range(20):
                made = daemon.request("PATCH", path, {"k1": -number}).json["revision"]
                answer = undo(daemon, path, made)
                assert (answer.status, answer.json.get("undone")) == (200, made)
                assert answer.bucket["k1"] == 1
        finally:
            stop.set()
    assert all(writer.exception() is None for writer in writers)


@pytest.mark.files
def test_a_deleted_bucket_takes_its_history_along(daemon: Daemon) -> None:
    path = pair("phone", "deleted")
    for number in range(4):
        daemon.request("PATCH", path, {"n": number})
    trash_id = daemon.request("DELETE", path).json["trash"]
    assert history(daemon, path) == []
    daemon.request("PUT", path, {"anew": 1})
    assert [entry["revision"] for entry in history(daemon, path)] == [1]
    refused(daemon.request("GET", f"{path}?revision=2"), 404, "not_found")
    daemon.request("DELETE", f"{path}?trash=false")
    restored = daemon.request("POST", f"/v1/trash/{trash_id}/restore").json["revision"]
    # At once, and once all is in its files.
    for _ in range(2):
        found = history(daemon, path)
        assert [entry["revision"] for entry in found] == [restored, 4, 3, 2, 1]
        assert (found[0]["set"], found[0]["removed"]) == ([], [])
        assert daemon.request("GET", f"{path}?revision=2").bucket == {"n": 1}
        daemon.request("GET", "/v1/status")
    assert undo(daemon, path, 4).bucket == {"n": 2}


def test_an_undo_brings_a_deleted_bucket_back(daemon: Daemon) -> None:
    token = daemon.mint("phone", "back")
    daemon.request("PUT", "/v1/bucket", {"n": 1}, token=token)
    trash_id = daemon.request("DELETE", "/v1/bucket", token=token).json["trash"]
    refused(undo(daemon, "/v1/bucket", 1, token=token), 404, "not_found")
    refused(undo(daemon, "/v1/device/bucket", token=token), 404, "not_found")
    answer = undo(daemon, "/v1/bucket", token=token)
    assert answer.json == {
        "success": True,
        "bucket": {"n": 1},
        "revision": 2,
        "restored": trash_id,
    }
    assert daemon.request("GET", "/v1/trash").json["trash"] == []


@pytest.mark.files
@pytest.mark.parametrize("way", ["no trash", "emptied"])
def test_a_bucket_that_is_deleted_for_good_leaves_no_history(daemon: Daemon, way: str) -> None:
    path = pair("phone", "good")
    daemon.request("PUT", path, {"password": "secret-1"})
    daemon.request("PATCH", path, {"password": "secret-2"})
    daemon.request("GET", "/v1/status")
    if way == "no trash":
        daemon.request("DELETE", f"{path}?trash=false")
    else:
        trash_id = daemon.request("DELETE", path).json["trash"]
        daemon.request("GET", "/v1/status")
        assert daemon.request("DELETE", f"/v1/trash/{trash_id}").status == 200
    daemon.request("GET", "/v1/status")
    assert [p for p in (daemon.state_dir / "history").rglob("*") if p.is_file()] == []
