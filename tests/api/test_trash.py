"""A deleted bucket is in the trash, from where it comes back as it was."""

from __future__ import annotations

import itertools
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fleet import wait_until
from harness import Daemon, pair
from holders import Holder, hold_path
from sse import Stream

_numbers = itertools.count()


@pytest.fixture
def device() -> str:
    return f"phone-{next(_numbers)}"


def listed(daemon: Daemon, device: str, query: str = "") -> list[dict[str, Any]]:
    answer = daemon.request("GET", f"/v1/trash?device={device}{query}")
    assert answer.status == 200, answer
    rows: list[dict[str, Any]] = answer.json["trash"]
    return rows


def deleted(daemon: Daemon, device: str, job: str | None = "login", **bucket: Any) -> str:
    """Make a bucket, delete it, and return its id in the trash."""
    assert daemon.request("PUT", pair(device, job), bucket).status == 200
    answer = daemon.request("DELETE", pair(device, job))
    assert answer.status == 200
    trash_id: str = answer.json["trash"]
    return trash_id


def restore(daemon: Daemon, trash_id: str, **headers: str) -> Any:
    return daemon.request("POST", f"/v1/trash/{trash_id}/restore", headers=headers)


def test_a_deleted_bucket_comes_back_as_it_was(daemon: Daemon, device: str) -> None:
    path = f"{pair(device, 'login')}?automation=shop"
    daemon.request("PUT", path, {"a": 1})
    before = daemon.request("PATCH", path, {"b": None})
    gone = daemon.request("DELETE", path)
    assert gone.bucket == {}
    assert gone.headers["bucketd-trash"] == gone.json["trash"]
    back = restore(daemon, gone.json["trash"])
    assert (back.status, back.bucket) == (200, {"a": 1, "b": None})
    assert back.json["restored"] == gone.json["trash"]
    assert back.json["revision"] == before.json["revision"] + 1
    assert back.etag not in (None, before.etag)
    (row,) = daemon.request("GET", f"/v1/buckets?device={device}").json["buckets"]
    assert (row["automation"], row["revision"]) == ("shop", 3)
    assert daemon.request("GET", pair(device, "login")).etag == back.etag
    assert listed(daemon, device) == []


def test_a_device_bucket_too(daemon: Daemon, device: str) -> None:
    back = restore(daemon, deleted(daemon, device, None, tab=1))
    assert back.json["deviceBucket"] == {"tab": 1}
    assert "bucket" not in back.json


def test_the_list_says_what_and_who_and_when_but_no_value(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, "login", password="hunter2")
    (row,) = listed(daemon, device)
    assert row.pop("by")["user"]
    assert row.pop("deleted_at") < row.pop("expires_at")
    names = {"id": trash_id, "device": device, "job": "login", "automation": None}
    assert row == {**names, "revision": 1, "size": len('{"password":"hunter2"}')}
    assert b"hunter2" not in daemon.request("GET", "/v1/trash").body


def test_a_token_deletes_its_own_bucket_and_is_named(daemon: Daemon, device: str) -> None:
    token = daemon.mint(device, "login", "shop", label="run 7")
    daemon.request("PATCH", "/v1/bucket", {"n": 1}, token=token)
    gone = daemon.request("DELETE", "/v1/bucket", token=token)
    assert gone.headers["bucketd-trash"] == gone.json["trash"]
    (row,) = listed(daemon, device)
    by = row["by"]
    expected = {"device": device, "job": "login", "automation": "shop", "run": "run 7"}
    assert {name: by[name] for name in expected} == expected
    assert by["context"]
    for method, path in (
        ("GET", "/v1/trash"),
        ("POST", f"/v1/trash/{row['id']}/restore"),
        ("DELETE", f"/v1/trash/{row['id']}"),
    ):
        assert daemon.request(method, path, token=token).status == 401
    assert len(listed(daemon, device)) == 1


def test_a_minimal_answer_has_the_id_too(daemon: Daemon, device: str) -> None:
    daemon.request("PUT", pair(device), {"n": 1})
    gone = daemon.request("DELETE", pair(device), headers={"Prefer": "return=minimal"})
    assert gone.json == {"success": True, "revision": 0, "trash": gone.headers["bucketd-trash"]}
    back = restore(daemon, gone.json["trash"], Prefer="return=minimal")
    assert back.json == {"success": True, "revision": 2, "restored": gone.json["trash"]}


def test_for_good_leaves_nothing(daemon: Daemon, device: str) -> None:
    daemon.request("PUT", pair(device), {"n": 1})
    gone = daemon.request("DELETE", f"{pair(device)}?trash=false")
    assert "trash" not in gone.json
    assert "bucketd-trash" not in gone.headers
    assert listed(daemon, device) == []


def test_nothing_stored_is_nothing_deleted(daemon: Daemon, device: str) -> None:
    assert "trash" not in daemon.request("DELETE", pair(device)).json
    daemon.request("PUT", pair(device), {"n": 1})
    assert "trash" not in daemon.request("DELETE", f"{pair(device)}?key=n").json
    assert listed(daemon, device) == []


def test_trash_is_true_or_false_and_about_whole_buckets(daemon: Daemon, device: str) -> None:
    daemon.request("PUT", pair(device), {"n": 1})
    for query in ("trash=no", "trash=", "key=n&trash=false"):
        answer = daemon.request("DELETE", f"{pair(device)}?{query}")
        assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert daemon.request("GET", pair(device)).bucket == {"n": 1}


def test_a_bucket_that_stands_is_not_replaced(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, n=1)
    daemon.request("PUT", pair(device, "login"), {"n": 2})
    answer = restore(daemon, trash_id)
    assert (answer.status, answer.json["code"]) == (409, "exists")
    assert daemon.request("GET", pair(device, "login")).bucket == {"n": 2}
    assert [row["id"] for row in listed(daemon, device)] == [trash_id]


def test_each_deletion_is_there_by_itself(daemon: Daemon, device: str) -> None:
    ids = [deleted(daemon, device, n=number) for number in range(3)]
    assert [row["id"] for row in listed(daemon, device)] == ids[::-1]
    assert restore(daemon, ids[1]).bucket == {"n": 1}
    assert [row["id"] for row in listed(daemon, device)] == [ids[2], ids[0]]


def test_what_is_deleted_for_good_is_gone(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, n=1)
    assert daemon.request("DELETE", f"/v1/trash/{trash_id}").json == {"success": True}
    for method, path in (("DELETE", ""), ("POST", "/restore")):
        answer = daemon.request(method, f"/v1/trash/{trash_id}{path}")
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert listed(daemon, device) == []


@pytest.mark.parametrize("trash_id", ["0" * 24, "x", "..", "%2e%2e%2fdevices", "a" * 5000])
def test_an_id_that_is_none_is_not_found(daemon: Daemon, trash_id: str) -> None:
    for method, path in (("DELETE", ""), ("POST", "/restore")):
        assert daemon.request(method, f"/v1/trash/{trash_id}{path}").status == 404


def test_a_restore_has_no_body(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, n=1)
    answer = daemon.request("POST", f"/v1/trash/{trash_id}/restore", {"automation": "x"})
    assert answer.status == 400
    # Some clients send an object with every POST.
    assert daemon.request("POST", f"/v1/trash/{trash_id}/restore", {}).status == 200


def test_pages_and_filters(daemon: Daemon, device: str) -> None:
    ids = [deleted(daemon, device, job, n=1) for job in ("a", "b", None, "a", "c")]
    found: list[str] = []
    query = f"/v1/trash?device={device}&limit=2"
    cursor: str | None = ""
    while cursor is not None:
        page = daemon.request("GET", query + (f"&cursor={cursor}" if cursor else "")).json
        assert len(page["trash"]) <= 2
        found += [row["id"] for row in page["trash"]]
        cursor = page["next_cursor"]
    assert found == ids[::-1]
    assert [row["id"] for row in listed(daemon, device, "&job=a")] == [ids[3], ids[0]]
    assert [row["id"] for row in listed(daemon, device, "&job=")] == [ids[2]]
    assert listed(daemon, device, "&automation=shop") == []
    for query in ("limit=0", "cursor=x", "device=", "automation=", "all=true"):
        assert daemon.request("GET", f"/v1/trash?{query}").status == 400


def test_it_counts_for_nothing_and_is_listed_nowhere_else(daemon: Daemon, device: str) -> None:
    deleted(daemon, device, n=1)
    assert daemon.request("GET", f"/v1/buckets?device={device}").json["buckets"] == []
    assert daemon.request("GET", f"/v1/export?device={device}").json["envelopes"] == []
    answer = daemon.request("GET", pair(device, "login"))
    assert (answer.bucket, answer.json["revision"], answer.etag) == ({}, 0, None)


def test_it_is_counted(daemon: Daemon, device: str) -> None:
    def count() -> Any:
        return daemon.request("GET", "/v1/status").json["counts"]["trashed_buckets"]

    before = count()
    for number in (1, 2):
        deleted(daemon, device, n=number)
    # Counting is done now and then, so that it takes little of the time.
    wait_until(lambda: count() == before + 2)
    line = f"bucketd_trashed_buckets {before + 2}.0"
    assert line in daemon.request("GET", "/metrics").body.decode()


def test_an_exclusive_hold_refuses_a_restore_as_any_write(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, n=1)
    with Holder(daemon, hold_path(device, "login"), {"exclusive": True}).taken() as holder:
        assert restore(daemon, trash_id).json["code"] == "held"
        assert len(listed(daemon, device)) == 1
        fence = holder.hold["fence"]
        assert restore(daemon, trash_id, **{"Bucketd-Fence": fence}).status == 200
        answer = daemon.request("DELETE", pair(device, "login"))
        assert answer.json["code"] == "held"
    assert listed(daemon, device) == []


def test_a_schema_does_not_keep_a_bucket_out(daemon: Daemon, device: str) -> None:
    path = f"{pair(device, 'login')}?automation={device}"
    daemon.request("PUT", path, {"n": "text"})
    trash_id = daemon.request("DELETE", path).json["trash"]
    schema = {"fields": [{"name": "n", "type": "number"}]}
    assert daemon.request("PUT", f"/v1/schemas/{device}", schema).status == 200
    assert restore(daemon, trash_id).bucket == {"n": "text"}
    assert daemon.request("PATCH", pair(device, "login"), {"m": 1}).status == 422


def test_many_restores_at_once_bring_it_back_once(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, n=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: restore(daemon, trash_id).status, range(8)))
    assert answers.count(200) == 1
    assert set(answers) <= {200, 404, 409}
    assert daemon.request("GET", pair(device, "login")).json["revision"] == 2


def test_a_restored_id_does_not_come_back_after_another_deletion(
    daemon: Daemon, device: str
) -> None:
    first = deleted(daemon, device, n=1)
    restore(daemon, first)
    daemon.request("DELETE", pair(device, "login"))
    assert restore(daemon, first).status == 404
    assert [row["id"] for row in listed(daemon, device)] != [first]


def test_it_is_there_after_a_restart(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, n=1)
    daemon.restart()
    assert [row["id"] for row in listed(daemon, device)] == [trash_id]
    assert restore(daemon, trash_id).bucket == {"n": 1}
    daemon.restart()
    assert listed(daemon, device) == []
    assert daemon.request("GET", pair(device, "login")).json["revision"] == 2


def test_it_is_there_after_a_kill(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, n=1)
    daemon.kill()
    daemon.start()
    assert [row["id"] for row in listed(daemon, device)] == [trash_id]
    assert restore(daemon, trash_id).bucket == {"n": 1}
    daemon.kill()
    daemon.start()
    assert listed(daemon, device) == []
    assert daemon.request("GET", pair(device, "login")).bucket == {"n": 1}


def test_what_was_emptied_stays_away_after_a_kill(daemon: Daemon, device: str) -> None:
    """The journal still has the deletion, with all the values."""
    kept, emptied = (deleted(daemon, device, job, n=1) for job in ("kept", "emptied"))
    assert daemon.request("DELETE", f"/v1/trash/{emptied}").status == 200
    daemon.kill()
    daemon.start()
    assert [row["id"] for row in listed(daemon, device)] == [kept]


def test_events_tell_a_restore_as_any_change(daemon: Daemon, device: str) -> None:
    trash_id = deleted(daemon, device, n=1)
    with Stream(daemon, f"{pair(device, 'login')}/events") as stream:
        restore(daemon, trash_id)
        told = stream.next().data
    assert (told["revision"], told["set"]) == (2, {"n": 1})


def undo(daemon: Daemon, path: str, token: str | None = None, body: Any = None) -> Any:
    return daemon.request("POST", f"{path}/undo", body, token=token)


def test_an_undo_of_a_deletion_restores_the_newest_one(daemon: Daemon, device: str) -> None:
    path = pair(device, "login")
    first, second = (deleted(daemon, device, n=number) for number in (1, 2))
    deleted(daemon, device, "other", n=3)
    back = undo(daemon, path, body={})
    assert (back.status, back.bucket, back.json["restored"]) == (200, {"n": 2}, second)
    assert "undone" not in back.json
    assert [row["id"] for row in listed(daemon, device, "&job=login")] == [first]


def test_a_token_takes_its_own_deletion_back(daemon: Daemon, device: str) -> None:
    token = daemon.mint(device, "login")
    for path, label in ("/v1/bucket", "bucket"), ("/v1/device/bucket", "deviceBucket"):
        daemon.request("PUT", path, {"n": 1}, token=token)
        gone = daemon.request("DELETE", path, token=token)
        # A revision that is named is that of a change, not the deletion.
        answer = undo(daemon, path, token, {"revision": 1})
        assert answer.json["code"] in ("not_found", "not_kept")
        back = undo(daemon, path, token)
        assert (back.json[label], back.json["restored"]) == ({"n": 1}, gone.json["trash"])


def test_where_nothing_was_deleted_there_is_nothing_to_undo(daemon: Daemon, device: str) -> None:
    daemon.request("PUT", pair(device), {"n": 1})
    daemon.request("DELETE", f"{pair(device)}?trash=false")
    deleted(daemon, device, "login", n=1)
    answer = undo(daemon, pair(device), body={})
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert daemon.request("GET", pair(device)).json["revision"] == 0


@pytest.mark.files
def test_days_that_a_reload_shortens_are_soon_over(daemon: Daemon, device: str) -> None:
    deleted(daemon, device, n=1)
    daemon.stop()
    daemon.config.write_text("[trash]\ndays = 30\n")
    daemon.start()
    assert len(listed(daemon, device)) == 1
    daemon.config.write_text("[trash]\ndays = 0.000001\n")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: not listed(daemon, device), 10)


@pytest.mark.files
def test_a_page_of_large_buckets_is_short(daemon: Daemon, device: str) -> None:
    ids = [deleted(daemon, device, text="x" * 1_000_000) for _ in range(40)]
    first = daemon.request("GET", f"/v1/trash?device={device}").json
    assert 30 <= len(first["trash"]) < 40
    rest = listed(daemon, device, f"&cursor={first['next_cursor']}")
    assert [row["id"] for row in first["trash"] + rest] == ids[::-1]
