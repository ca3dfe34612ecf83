"""Holds as a client meets them: one at a time, and no write with an old fence."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from fleet import wait_until
from harness import Daemon, pair
from holders import Holder, hold_path, refused
from sse import Stream

_numbers = itertools.count()
MALFORMED: dict[str, Any] = {
    "no JSON": b"{",
    "nothing": b"",
    "no object": [],
    "an unknown member": {"wait": 5},
    "a wait of a string": {"wait_seconds": "5"},
    "a wait of a boolean": {"wait_seconds": True},
    "no number to wait": {"wait_seconds": None},
    "a wait below 0": {"wait_seconds": -0.1},
    "a wait beyond an hour": {"wait_seconds": 3600.5},
    "a name that is no string": {"name": 5},
    "no name": {"name": None},
    "a name with a control character": {"name": "a\n"},
    "a long name": {"name": "x" * 129},
    "exclusive, and not a boolean": {"exclusive": 1},
    "exclusive with a name": {"exclusive": True, "name": "login"},
    "a long label": {"label": "x" * 257},
    "a label with a control character": {"label": "a\x00"},
    "a fence that is none": {"fence": "a b"},
}


@pytest.fixture
def device() -> str:
    return f"phone-{next(_numbers)}"


def hold(daemon: Daemon, device: str, job: str | None = None, **body: Any) -> Holder:
    return Holder(daemon, hold_path(device, job), body)


def write(daemon: Daemon, device: str, job: str | None, **fences: Any) -> Any:
    return daemon.request("PATCH", pair(device, job), {"at": time.time()}, fences.get("headers"))


def test_a_hold_says_what_it_is_of(daemon: Daemon, device: str) -> None:
    with hold(daemon, device, "login", label="run 7").taken() as holder:
        about = dict(holder.hold)
        for name in ("id", "fence", "since"):
            assert about.pop(name)
        expected = {"name": "", "device": device, "job": "login"}
        assert about == {**expected, "exclusive": False, "label": "run 7"}


def test_a_second_one_is_refused_and_told_who_holds_it(daemon: Daemon, device: str) -> None:
    with hold(daemon, device, "login", label="run 7").taken() as first:
        with hold(daemon, device, "login") as second:
            said = refused(second.response(), 423, "held")
        (row,) = said["details"]
        assert row["id"] == first.id
        assert (row["state"], row["device"], row["job"]) == ("held", device, "login")
        assert (row["label"], row["connected"], row["since"]) == (
            "run 7",
            True,
            first.hold["since"],
        )
        assert row["by"]["user"] in said["error"]
        assert first.hold["fence"] not in str(said)


def test_the_connection_is_used_again_after_a_refusal(daemon: Daemon, device: str) -> None:
    with hold(daemon, device).taken(), hold(daemon, device) as second:
        assert second.response().status == 423
        read = daemon.request("GET", pair(device), sock=second.sock)
        assert read.status == 200


@pytest.mark.parametrize(
    ("one", "other"),
    [(None, None), (None, "login"), ("login", None), ("login", "login")],
)
def test_what_excludes_each_other(
    daemon: Daemon, device: str, one: str | None, other: str | None
) -> None:
    with hold(daemon, device, one).taken(), hold(daemon, device, other) as second:
        refused(second.response(), 423, "held")


def test_what_does_not_exclude_each_other(daemon: Daemon, device: str) -> None:
    with hold(daemon, device, "a").taken(), hold(daemon, device, "b").taken():
        with hold(daemon, device, "a", name="login").taken():
            hold(daemon, f"{device}-2", "a").taken().close()
        with hold(daemon, device, name="other").taken():
            pass


def test_waiters_are_served_first_come_first_served(daemon: Daemon, device: str) -> None:
    first = hold(daemon, device, "login").taken()
    waiting = []
    for number in range(5):
        waiting.append(hold(daemon, device, "login", wait_seconds=20, label=str(number)))
        wait_until(lambda n=number: len(listed(daemon, device)["waiting"]) == n + 1)
    labels = [row["label"] for row in listed(daemon, device)["waiting"]]
    assert labels == ["0", "1", "2", "3", "4"]
    for next_one in waiting:
        first.close()
        first = next_one.taken()
        assert [row["id"] for row in listed(daemon, device)["holds"]] == [first.id]
    first.close()


def test_a_device_waits_for_its_jobs_and_they_for_it(daemon: Daemon, device: str) -> None:
    one, two = hold(daemon, device, "a").taken(), hold(daemon, device, "b").taken()
    whole = hold(daemon, device, wait_seconds=20)
    wait_until(lambda: len(listed(daemon, device)["waiting"]) == 1)
    # It came after the device, so it does not overtake.
    with hold(daemon, device, "c") as late:
        (row,) = refused(late.response(), 423, "held")["details"]
        assert (row["state"], row["job"]) == ("waiting", None)
    one.close()
    jobs = [hold(daemon, device, job, wait_seconds=20) for job in ("a", "b")]
    wait_until(lambda: len(listed(daemon, device)["waiting"]) == 3)
    two.close()
    whole.taken().release()
    for job in jobs:
        job.taken().close()


def test_a_wait_ends_in_time(daemon: Daemon, device: str) -> None:
    with hold(daemon, device).taken(), hold(daemon, device, wait_seconds=0.3) as second:
        began = time.monotonic()
        refused(second.response(), 423, "held")
        assert 0.29 <= time.monotonic() - began < 5
        assert listed(daemon, device)["waiting"] == []


def test_a_waiter_that_goes_away_leaves_the_queue(daemon: Daemon, device: str) -> None:
    first = hold(daemon, device).taken()
    gone = hold(daemon, device, wait_seconds=20)
    last = hold(daemon, device, wait_seconds=20)
    wait_until(lambda: len(listed(daemon, device)["waiting"]) == 2)
    gone.close()
    wait_until(lambda: len(listed(daemon, device)["waiting"]) == 1)
    first.close()
    last.taken().close()


def test_it_is_released_by_shutting_down_the_sending_half(daemon: Daemon, device: str) -> None:
    holder = hold(daemon, device, "login", exclusive=True).taken()
    holder.release()
    assert write(daemon, device, "login").status == 200
    assert listed(daemon, device)["holds"] == []


def test_an_old_fence_changes_nothing(daemon: Daemon, device: str) -> None:
    holder = hold(daemon, device, "login").taken()
    assert write(daemon, device, "login", headers=holder.fence).status == 200
    holder.release()
    before = daemon.request("GET", pair(device, "login"))
    for method, body in (("PATCH", {"a": 1}), ("PUT", {}), ("DELETE", None), ("PATCH", {})):
        late = daemon.request(method, pair(device, "login"), body, holder.fence)
        refused(late, 412, "hold_lost")
    with hold(daemon, device, "login").taken() as second:
        assert second.hold["fence"] != holder.hold["fence"]
        refused(write(daemon, device, "login", headers=holder.fence), 412, "hold_lost")
    assert daemon.request("GET", pair(device, "login")).json == before.json


def test_a_fence_comes_before_a_precondition(daemon: Daemon, device: str) -> None:
    holder = hold(daemon, device).taken()
    failing = {**holder.fence, "If-Match": '"none"'}
    assert refused(write(daemon, device, None, headers=failing), 412, "precondition_failed")
    holder.release()
    refused(write(daemon, device, None, headers=failing), 412, "hold_lost")


@pytest.mark.parametrize(
    ("held", "written", "good"),
    [
        (None, None, True),
        (None, "a", True),
        ("a", "a", True),
        ("a", None, True),
        ("a", "b", False),
    ],
)
def test_what_a_fence_is_good_for(
    daemon: Daemon, device: str, held: str | None, written: str | None, good: bool
) -> None:
    with hold(daemon, device, held, name="login").taken() as holder:
        response = write(daemon, device, written, headers=holder.fence)
        assert response.status == (200 if good else 412)
        refused(write(daemon, f"{device}-2", written, headers=holder.fence), 412, "hold_lost")


def test_several_fences_must_all_live(daemon: Daemon, device: str) -> None:
    outer = hold(daemon, device, exclusive=True).taken()
    inner = hold(daemon, device, "a", name="login").taken()
    both = {"Bucketd-Fence": f"{outer.hold['fence']}, {inner.hold['fence']}"}
    assert write(daemon, device, "a", headers=both).status == 200
    refused(write(daemon, device, "a", headers=inner.fence), 423, "held")
    inner.release()
    refused(write(daemon, device, "a", headers=both), 412, "hold_lost")
    assert write(daemon, device, "a", headers=outer.fence).status == 200
    outer.close()


@pytest.mark.parametrize("fence", ["", " ", "a b", "a,,b", "x" * 201, ",".join("abcdefghi")])
def test_a_malformed_fence_is_refused(daemon: Daemon, device: str, fence: str) -> None:
    refused(write(daemon, device, None, headers={"Bucketd-Fence": fence}), 400, "invalid_request")


def test_a_fence_never_given_is_refused(daemon: Daemon, device: str) -> None:
    for fence in ("x", "x.5", "x.y", ".", "*"):
        refused(write(daemon, device, None, headers={"Bucketd-Fence": fence}), 412, "hold_lost")


def test_reads_take_no_notice_of_a_fence(daemon: Daemon, device: str) -> None:
    read = daemon.request("GET", pair(device), headers={"Bucketd-Fence": "old"})
    assert read.status == 200


def test_an_exclusive_hold_of_a_device_refuses_other_writes(daemon: Daemon, device: str) -> None:
    with hold(daemon, device, exclusive=True).taken() as holder:
        for job in (None, "a"):
            said = refused(write(daemon, device, job), 423, "held")
            assert [row["id"] for row in said["details"]] == [holder.id]
            assert write(daemon, device, job, headers=holder.fence).status == 200
            assert daemon.request("GET", pair(device, job)).status == 200
        refused(daemon.request("DELETE", pair(device, "a")), 423, "held")
        assert write(daemon, f"{device}-2", "a").status == 200
    wait_until(lambda: write(daemon, device, "a").status == 200)


def test_an_exclusive_hold_of_a_job_refuses_writes_of_that_job(daemon: Daemon, device: str) -> None:
    with hold(daemon, device, "a", exclusive=True).taken():
        refused(write(daemon, device, "a"), 423, "held")
        assert write(daemon, device, "b").status == 200
        assert write(daemon, device, None).status == 200


def test_a_waiter_for_an_exclusive_hold_refuses_nothing(daemon: Daemon, device: str) -> None:
    with (
        hold(daemon, device).taken() as first,
        hold(daemon, device, exclusive=True, wait_seconds=9),
    ):
        wait_until(lambda: len(listed(daemon, device)["waiting"]) == 1)
        assert write(daemon, device, None).status == 200
        assert write(daemon, device, None, headers=first.fence).status == 200


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_holds_nothing(daemon: Daemon, device: str, what: str) -> None:
    with Holder(daemon, hold_path(device), MALFORMED[what]) as holder:
        response = holder.response()
        assert response.status == 400, response
        assert response.json["code"] in ("invalid_json", "invalid_request")
    hold(daemon, device).taken().close()


def test_coming_back_needs_a_restart(daemon: Daemon, device: str) -> None:
    with hold(daemon, device).taken() as holder:
        for fence in (holder.hold["fence"], "never-given"):
            with hold(daemon, device, fence=fence) as again:
                refused(again.response(), 412, "hold_lost")
        assert write(daemon, device, None, headers=holder.fence).status == 200


def test_an_operator_lists_and_ends_holds(daemon: Daemon, device: str) -> None:
    holder = hold(daemon, device, "a", name="login").taken()
    waiter = hold(daemon, device, "a", name="login", wait_seconds=20)
    wait_until(lambda: len(listed(daemon, device)["waiting"]) == 1)
    rows = listed(daemon, device)
    assert [row["id"] for row in rows["holds"]] == [holder.id]
    (waiting,) = rows["waiting"]
    assert (waiting["state"], waiting["name"], waiting["job"]) == ("waiting", "login", "a")
    assert waiting["seconds"] >= 0
    ended = daemon.request("DELETE", f"/v1/holds/{waiting['id']}")
    about = {"device": device, "job": "a", "name": "login"}
    assert ended.json == {"success": True, "id": waiting["id"], "state": "waiting", **about}
    refused(waiter.response(), 423, "held")
    waiter.close()
    ended = daemon.request("DELETE", f"/v1/holds/{holder.id}")
    assert ended.json == {"success": True, "id": holder.id, "state": "held", **about}
    assert holder.lost() == "broken"
    refused(write(daemon, device, "a", headers=holder.fence), 412, "hold_lost")
    refused(daemon.request("DELETE", f"/v1/holds/{holder.id}"), 404, "not_found")
    assert listed(daemon, device) == {"success": True, "holds": [], "waiting": []}


def listed(daemon: Daemon, device: str) -> Any:
    response = daemon.request("GET", f"/v1/holds?device={device}")
    assert response.status == 200, response
    return response.json


def test_event_streams_tell_holds(daemon: Daemon, device: str) -> None:
    with hold(daemon, device, "a").taken() as first:
        target = pair(device, "a") + "/events?holds=true"
        with Stream(daemon, target) as stream, Stream(daemon, "/v1/events") as plain:
            assert told(stream) == ("taken", first.id)
            with hold(daemon, device, "b").taken():
                with hold(daemon, device, wait_seconds=20):
                    change, whole = told(stream)
                    assert change == "waiting"
                    write(daemon, device, "a")
                    assert stream.next().kind == "bucket"
                    first.close()
                    assert told(stream) == ("released", first.id)
                assert told(stream) == ("released", whole)
            assert plain.next().kind == "bucket"


def told(stream: Stream) -> tuple[str, str]:
    event = stream.next()
    assert event.kind == "hold"
    return event.data["change"], event.data["id"]
