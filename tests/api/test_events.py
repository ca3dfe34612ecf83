"""Event streams: every change, once, in order; and what happens when that cannot be had."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest
from fleet import wait_until
from harness import Daemon, pair
from sse import Event, Stream, apply_event

JSON_PATCH = {"Content-Type": "application/json-patch+json"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


def events(device: str, job: str | None = None, query: str = "") -> str:
    return f"{pair(device, job)}/events{query}"


def change(revision: int, set_: dict[str, Any], removed: list[str] | None = None) -> dict[str, Any]:
    return {"revision": revision, "set": set_, "removed": removed or []}


def essence(event: Event) -> dict[str, Any]:
    assert event.kind == "bucket", event
    assert event.id
    return {k: event.data[k] for k in ("revision", "set", "removed")}


def test_each_kind_of_change(shared_daemon: Daemon) -> None:
    daemon, target = shared_daemon, pair("kinds", "job")
    with Stream(daemon, events("kinds", "job")) as stream:
        daemon.request("PATCH", target, {"a": 1, "b": None})
        daemon.request("PATCH", target, {"a": 1})  # changes nothing
        daemon.request("PATCH", target, {"a": 1.0})  # another number, in JSON
        daemon.request("PATCH", target, {"b": None, "c": {"d": []}}, MERGE_PATCH)
        patch = [{"op": "replace", "path": "/c/d", "value": [1]}]
        daemon.request("PATCH", target, patch, JSON_PATCH)
        daemon.request("PUT", target, {"a": 1.0, "e": "x"})
        daemon.request("DELETE", f"{target}?key=a")
        daemon.request("DELETE", target)
        daemon.request("PATCH", target, {"again": True})
        found = [stream.next() for _ in range(8)]
    assert [essence(event) for event in found] == [
        change(1, {"a": 1, "b": None}),
        change(2, {"a": 1.0}),
        change(3, {"c": {"d": []}}, ["b"]),
        change(4, {"c": {"d": [1]}}),
        change(5, {"e": "x"}, ["c"]),
        change(6, {}, ["a"]),
        change(0, {}, ["e"]),
        change(1, {"again": True}),
    ]
    assert all((e.data["device"], e.data["job"]) == ("kinds", "job") for e in found)
    assert len({event.id for event in found}) == len(found)


def test_of_a_device_and_of_all(shared_daemon: Daemon) -> None:
    daemon = shared_daemon
    with (
        Stream(daemon, events("dev 1")) as device,
        Stream(daemon, "/v1/events?device=dev+1") as all_of_it,
        Stream(daemon, "/v1/events?job=nightly") as all_of_a_job,
    ):
        daemon.request("PATCH", pair("dev 1"), {"n": 1})
        daemon.request("PATCH", pair("dev 1", "nightly"), {"n": 2})
        daemon.request("PATCH", pair("dev 2", "nightly"), {"n": 3})
        daemon.request("PATCH", pair("dev 1"), {"n": 4})
        assert [device.next().data["set"]["n"] for _ in range(2)] == [1, 4]
        found = [all_of_it.next() for _ in range(3)]
        assert [event.data["set"]["n"] for event in found] == [1, 2, 4]
        assert [event.data["job"] for event in found] == [None, "nightly", None]
        assert [all_of_a_job.next().data["device"] for _ in range(2)] == ["dev 1", "dev 2"]


def test_of_an_automation(shared_daemon: Daemon) -> None:
    target = pair("bound", "job")
    with Stream(shared_daemon, "/v1/events?automation=mail") as stream:
        shared_daemon.request("PATCH", pair("bound", "other"), {"n": 1})
        shared_daemon.request("PATCH", f"{target}?automation=mail", {"n": 2})
        shared_daemon.request("DELETE", target)
        assert [stream.next().data["revision"] for _ in range(2)] == [1, 0]


def test_some_keys_only(shared_daemon: Daemon) -> None:
    target = pair("keys", "job")
    with Stream(shared_daemon, events("keys", "job", "?key=a&key=b%2F")) as stream:
        shared_daemon.request("PATCH", target, {"a": 1, "z": 1})
        shared_daemon.request("PATCH", target, {"z": 2})
        shared_daemon.request("PATCH", target, {"b/": 3})
        shared_daemon.request("DELETE", target)
        found = [essence(stream.next()) for _ in range(3)]
    assert found == [change(1, {"a": 1}), change(3, {"b/": 3}), change(0, {}, ["a", "b/"])]


def test_a_snapshot_first(shared_daemon: Daemon) -> None:
    target = pair("snapshot", "job")
    with Stream(shared_daemon, events("snapshot", "job", "?snapshot=true")) as stream:
        assert essence(stream.next()) == change(0, {})
    shared_daemon.request("PUT", target, {"a": 1, "b": 2})
    with Stream(shared_daemon, events("snapshot", "job", "?snapshot=true&key=b")) as stream:
        assert essence(stream.next()) == change(1, {"b": 2})
        shared_daemon.request("PATCH", target, {"b": 3})
        assert essence(stream.next()) == change(2, {"b": 3})


def test_nothing_is_missed_or_told_twice_under_load(shared_daemon: Daemon) -> None:
    """Streams that begin while others write: snapshot and changes fit together without a seam."""
    target, done = pair("busy", "job"), threading.Event()
    shared_daemon.request("PUT", target, {"n": 0})

    def write() -> None:
        with shared_daemon.connect() as sock:
            number = 0
            while not done.is_set():
                number += 1
                shared_daemon.request("PATCH", target, {"n": number}, sock=sock)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(15):
            with Stream(shared_daemon, events("busy", "job", "?snapshot=true")) as stream:
                revisions = [stream.next().data["revision"] for _ in range(40)]
            assert revisions == list(range(revisions[0], revisions[0] + 40))
    finally:
        done.set()
        for writer in writers:
            writer.join()


def test_what_was_missed_may_be_more_than_a_slow_reader_may_leave_unread(
    shared_daemon: Daemon,
) -> None:
    """A change that follows while that is still on its way ends no stream."""
    daemon, target, missed = shared_daemon, pair("missed", "job"), 60
    with Stream(daemon, events("missed", "job")) as stream:
        daemon.request("PUT", target, {"n": 0})
        first = stream.next()
    for number in range(1, missed):
        daemon.request("PATCH", target, {"n": number, "pad": chr(64 + number % 2) * 20_000})
    with Stream(daemon, events("missed", "job"), since=first.id) as stream:
        daemon.request("PATCH", target, {"n": missed})
        found = [stream.next().data["revision"] for _ in range(missed)]
    assert found == list(range(2, missed + 2))


def test_whoever_missed_too_much_is_told_of_a_gap(shared_daemon: Daemon) -> None:
    """Else many that ask for it and do not read it would take all memory."""
    daemon, target = shared_daemon, pair("much", "job")
    with Stream(daemon, events("much", "job")) as stream:
        daemon.request("PUT", target, {"n": 0})
        first = stream.next()
    for number in range(60):
        daemon.request("PATCH", target, {"n": number, "pad": chr(64 + number % 2) * 40_000})
    with Stream(daemon, events("much", "job", "?snapshot=true"), since=first.id) as stream:
        assert stream.next().kind == "gap"
        assert stream.next().data["set"]["n"] == 59
        daemon.request("PATCH", target, {"m": 1})
        assert essence(stream.next()) == change(62, {"m": 1})


def test_it_goes_on_where_it_was(shared_daemon: Daemon) -> None:
    daemon, target = shared_daemon, pair("resume", "job")
    with Stream(daemon, events("resume", "job")) as stream:
        daemon.request("PATCH", target, {"n": 1})
        first = stream.next()
    daemon.request("PATCH", pair("resume", "other"), {"n": 1})
    daemon.request("PATCH", target, {"n": 2, "m": 2})
    daemon.request("DELETE", f"{target}?key=m")
    with Stream(daemon, events("resume", "job"), since=first.id) as stream:
        assert stream.begun == first.id  # or who loses it now would miss what follows
        assert essence(stream.next()) == change(2, {"n": 2, "m": 2})
        assert essence(stream.next()) == change(3, {}, ["m"])
        daemon.request("PATCH", target, {"n": 4})
        assert essence(stream.next()) == change(4, {"n": 4})
    with Stream(daemon, "/v1/events?device=resume", since=first.id) as stream:
        found = [(stream.next().data["job"]) for _ in range(4)]
    assert found == ["other", "job", "job", "job"]


def test_it_goes_on_from_its_beginning_without_any_event(shared_daemon: Daemon) -> None:
    with Stream(shared_daemon, events("quiet", "job")) as stream:
        begun = stream.last_id
    shared_daemon.request("PATCH", pair("quiet", "job"), {"n": 1})
    with Stream(shared_daemon, events("quiet", "job"), since=begun) as stream:
        assert essence(stream.next()) == change(1, {"n": 1})


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_it_goes_on_across_a_restart(daemon: Daemon, how: str) -> None:
    target, other = pair("restart", "job"), pair("restart", "other")
    daemon.request("PATCH", other, {"n": 0})
    with Stream(daemon, events("restart", "job")) as stream:
        daemon.request("PATCH", target, {"n": 1})
        first = stream.next()
    daemon.request("PATCH", target, {"n": 2})
    getattr(daemon, how)()
    daemon.start()
    daemon.request("PATCH", other, {"n": 1})
    daemon.request("PATCH", target, {"n": 3})
    with Stream(daemon, events("restart", "job", "?snapshot=true"), since=first.id) as stream:
        found = [essence(stream.next()) for _ in range(2)]
        assert stream.next_within(0.1) is None
    assert found == [change(2, {"n": 2}), change(3, {"n": 3})]


def test_a_stop_tells_of_the_last_change_before_it_ends(daemon: Daemon) -> None:
    with Stream(daemon, events("last", "job")) as stream:
        daemon.request("PATCH", pair("last", "job"), {"n": 1})
        assert daemon.stop() == 0
        assert [essence(event) for event in stream.rest()] == [change(1, {"n": 1})]


@pytest.mark.parametrize("since", ["0.1.x", "9.4096.abc", "garbage", "1.4096.", "9" * 400])
def test_a_gap_is_told(shared_daemon: Daemon, since: str) -> None:
    shared_daemon.request("PUT", pair("gap", "job"), {"n": 7})
    target = events("gap", "job", "?snapshot=true")
    with Stream(shared_daemon, target, since=since) as stream:
        gap, whole = stream.next(), stream.next()
        assert (gap.kind, gap.data) == ("gap", {"device": "gap", "job": "job"})
        assert whole.data["set"] == {"n": 7}
    with Stream(shared_daemon, "/v1/events", since=since) as stream:
        assert stream.next()[0] == "gap"


def test_a_gap_is_told_when_the_journal_has_moved_on(stopped_daemon: Daemon) -> None:
    stopped_daemon.env["BUCKETD_STORE_JOURNAL_BYTES"] = str(4 * 1024 * 1024)
    daemon, target = stopped_daemon.start(), pair("moved", "on")
    with Stream(daemon, events("moved", "on")) as stream:
        daemon.request("PATCH", target, {"n": 1})
        first = stream.next()
    for number in range(20):
        daemon.request("PATCH", target, {"text": str(number % 10) * 600_000})
    with Stream(daemon, events("moved", "on"), since=first.id) as stream:
        assert stream.next().kind == "gap"


@pytest.mark.files
def test_an_edit_by_hand_is_told_of(shared_daemon: Daemon) -> None:
    daemon, target = shared_daemon, pair("hand", "job")
    path = daemon.bucket_path("hand", "job")

    def write(bucket: dict[str, Any]) -> None:
        envelope = json.loads(path.read_text())
        fresh = path.with_name("edited")
        fresh.write_text(json.dumps({**envelope, "bucket": bucket}))
        os.rename(fresh, path)

    daemon.request("PUT", target, {"kept": 1, "gone": 2})
    with (
        Stream(daemon, events("hand", "job", "?snapshot=true")) as stream,
        Stream(daemon, "/v1/events?device=hand") as all_of_it,
    ):
        stream.next()
        daemon.request("GET", "/v1/status")  # so that all files are current
        write({"kept": 1, "new": 3})
        assert essence(stream.next()) == change(2, {"new": 3}, ["gone"])
        assert essence(all_of_it.next()) == change(2, {"new": 3}, ["gone"])
        daemon.request("GET", "/v1/status")
        path.unlink()
        assert essence(stream.next()) == change(0, {}, ["kept", "new"])
        assert all_of_it.next().data["revision"] == 0
        daemon.request("PATCH", target, {"again": 1})
        assert essence(stream.next()) == change(1, {"again": 1})


@pytest.mark.files
def test_a_healed_file_is_no_change(daemon: Daemon) -> None:
    target = pair("healed", "job")
    daemon.request("PUT", target, {"n": 1})
    daemon.request("GET", "/v1/status")
    with Stream(daemon, events("healed", "job", "?snapshot=true")) as stream:
        stream.next()
        daemon.bucket_path("healed", "job").write_text("{")
        assert daemon.request("GET", target).json["bucket"] == {"n": 1}
        daemon.request("PATCH", target, {"n": 2})
        assert essence(stream.next()) == change(2, {"n": 2})


def test_a_token_opens_its_stream_and_ends_it(shared_daemon: Daemon) -> None:
    daemon = shared_daemon
    made = daemon.request("POST", "/v1/contexts", {"device": "own", "job": "job"}).json
    short = daemon.mint("own", "job", ttl_seconds=1)
    with (
        Stream(daemon, "/v1/bucket/events", made["token"]) as stream,
        Stream(daemon, "/v1/device/bucket/events", made["token"]) as device,
        Stream(daemon, "/v1/bucket/events", short) as expiring,
    ):
        daemon.request("PATCH", "/v1/bucket", {"n": 1}, token=made["token"])
        daemon.request("PATCH", pair("own", "another"), {"n": 2})
        daemon.request("PATCH", pair("own"), {"n": 3})
        assert stream.next().data["set"] == {"n": 1}
        assert device.next().data["set"] == {"n": 3}
        assert expiring.next().data["set"] == {"n": 1}
        assert expiring.rest() == []
        daemon.request("DELETE", f"/v1/contexts/{made['id']}")
        assert stream.rest() == []
        assert device.rest() == []
    with Stream(daemon, "/v1/bucket/events", made["token"]) as stream:
        assert stream.status == 401


def test_operators_hear_of_contexts(shared_daemon: Daemon) -> None:
    with Stream(shared_daemon, "/v1/events?device=d") as stream:
        shared_daemon.mint("other")
        body = {"device": "d", "job": "j", "label": "a run"}
        made = shared_daemon.request("POST", "/v1/contexts", body).json
        shared_daemon.request("DELETE", f"/v1/contexts/{made['id']}")
        shared_daemon.mint("d", ttl_seconds=0.01)
        found = [stream.next() for _ in range(4)]
    assert [e.data["state"] for e in found] == ["created", "revoked", "created", "expired"]
    assert [e.data["label"] for e in found] == ["a run", "a run", None, None]
    assert [(e.kind, e.id) for e in found] == [("context", None)] * 4
    assert made["token"] not in json.dumps([e.data for e in found])


def test_who_is_an_operator_no_more_hears_no_more(stopped_daemon: Daemon) -> None:
    stopped_daemon.config.write_text("[access]\noperator_users = []\n")
    daemon = stopped_daemon.start()
    token = daemon.mint("ends", "job")
    with (
        Stream(daemon, "/v1/events") as stream,
        Stream(daemon, "/v1/bucket/events", token) as own,
    ):
        daemon.config.write_text("[access]\noperator_users = ['65534']\n")
        os.kill(daemon.pid, signal.SIGHUP)
        assert stream.rest() == []
        daemon.request("PATCH", pair("ends", "job"), {"n": 1})
        assert own.next().data["set"] == {"n": 1}


def test_a_stream_shows_that_it_lives(stopped_daemon: Daemon) -> None:
    stopped_daemon.env["BUCKETD_LIMITS_HEARTBEAT_SECONDS"] = "0.1"
    daemon = stopped_daemon.start()
    with Stream(daemon, events("beat", "job")) as stream:
        daemon.request("PATCH", pair("beat", "other"), {"n": 1})
        daemon.request("PATCH", pair("beat", "other"), {"n": 2})
        deadline = time.monotonic() + 10
        begun = stream.last_id
        while stream.last_id == begun and time.monotonic() < deadline:
            assert stream.block().kind == ""
        assert stream.last_id != begun  # so it can go on from there, though nothing was for it


def test_too_many_streams_are_refused(stopped_daemon: Daemon) -> None:
    stopped_daemon.env["BUCKETD_LIMITS_MAX_WATCHERS"] = "3"
    daemon = stopped_daemon.start()
    streams = [Stream(daemon, events("many", "job")) for _ in range(4)]
    assert [stream.status for stream in streams] == [200, 200, 200, 503]
    assert "Retry-After: " in streams[3].head
    assert daemon.request("GET", "/v1/status").json["counts"]["watchers"] == 3
    for stream in streams:
        stream.close()
    deadline = time.monotonic() + 10
    while daemon.request("GET", "/v1/status").json["counts"]["watchers"]:
        assert time.monotonic() < deadline
    with Stream(daemon, events("many", "job")) as stream:
        assert stream.status == 200


def test_who_does_not_read_is_dropped_and_others_hear_all(daemon: Daemon) -> None:
    target, most = pair("slow", "job"), 40
    found: list[Event] = []

    def hear() -> None:
        for _ in range(most):
            found.append(reader.next())

    with (
        Stream(daemon, events("slow", "job")) as reader,
        Stream(daemon, events("slow", "job")) as sleeper,
    ):
        hearing = threading.Thread(target=hear)
        hearing.start()
        for number in range(most):
            # On a busy machine this reader, too, would lag until it is dropped.
            wait_until(lambda: len(found) >= number - 3)  # noqa: B023
            daemon.request("PATCH", target, {"n": number, "pad": str(number % 10) * 100_000})
        hearing.join(20)
        assert [event.data["set"]["n"] for event in found] == list(range(most))
        told = sleeper.rest()
        assert len(told) < most
    known: dict[str, Any] = {}
    for event in told:  # what it did hear is whole and in order
        known = apply_event(known, event)
        assert known["n"] == event.data["revision"] - 1


def test_large_buckets_are_told_in_order(daemon: Daemon) -> None:
    """Comparing them takes another thread; small changes meanwhile come after them."""
    with Stream(daemon, "/v1/events?device=large") as stream:
        for number in range(6):
            daemon.request("PATCH", pair("large", "big"), {"n": number, f"k{number}": "x" * 90_000})
            daemon.request("PATCH", pair("large", "small"), {"n": number})
        found = [stream.next() for _ in range(12)]
    assert [(e.data["job"], e.data["set"]["n"]) for e in found] == [
        (job, number) for number in range(6) for job in ("big", "small")
    ]
    assert len(found[-2].data["set"]) == 2


def test_head_has_no_stream(shared_daemon: Daemon) -> None:
    answer = shared_daemon.request("HEAD", events("head", "job"))
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")


@pytest.mark.parametrize("query", ["?snapshot=yes", "?limit=1", "?snapshot=true&snapshot=true"])
def test_a_wrong_parameter_is_refused(shared_daemon: Daemon, query: str) -> None:
    answer = shared_daemon.request("GET", events("wrong", "job", query))
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.files
def test_a_corrupt_bucket_has_no_snapshot(daemon: Daemon) -> None:
    path = daemon.bucket_path("corrupt", "job")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    answer = daemon.request("GET", events("corrupt", "job", "?snapshot=true"))
    assert (answer.status, answer.json["code"]) == (500, "bucket_corrupt")
    assert daemon.request("GET", "/v1/status").json["counts"]["watchers"] == 0
