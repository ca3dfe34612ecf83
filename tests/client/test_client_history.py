"""``history``, ``undo`` and ``at`` of both clients' faces, against a real daemon."""

from __future__ import annotations

import asyncio
import getpass
from typing import Any

import pytest
from bucketd_client import (
    AsyncBucket,
    Bucket,
    BucketError,
    Held,
    HoldLost,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    agent,
    aio,
)
from bucketd_client.testing import Server
from harness import Daemon


@pytest.fixture
def bucket(shared_daemon: Daemon, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(device=request.node.name, job="j", socket=shared_daemon.socket)


def test_changes_newest_first_with_their_earlier_values_if_wanted(bucket: Bucket) -> None:
    assert bucket.history() == []
    bucket.set(a=1)
    bucket.set(a=2, b=[1])
    bucket.remove("a")
    last, second, first = bucket.history(values=True)
    assert (last["revision"], last["set"], last["removed"]) == (3, [], ["a"])
    assert last["before"] == {"a": 2}
    assert (second["revision"], sorted(second["set"])) == (2, ["a", "b"])
    assert second["before"] == {"a": 1}
    assert (first["revision"], first["before"]) == (1, {})
    assert last["by"]["user"] == getpass.getuser()
    assert [each.get("before") for each in bucket.history(limit=2)] == [None, None]


def test_the_label_of_the_run_is_told(shared_daemon: Daemon) -> None:
    body = {"device": "d", "job": "labelled", "label": "nightly"}
    minted = shared_daemon.request("POST", "/v1/contexts", body).json
    mine = Bucket(token=minted["token"], socket=shared_daemon.socket)
    mine.set(a=1)
    by = mine.history()[0]["by"]
    assert (by["run"], by["context"], by["job"]) == ("nightly", minted["id"], "labelled")


def test_pages_are_followed_until_there_are_as_many_as_wanted(bucket: Bucket) -> None:
    for n in range(60):
        bucket.set(n=n, returning=False)
    assert len(bucket.history()) == 50
    assert [each["revision"] for each in bucket.history(limit=None)] == [*range(60, 0, -1)]
    assert [each["revision"] for each in bucket.history(limit=3)] == [60, 59, 58]


def test_more_than_a_page_of_the_daemon(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bucketd_client._history.MAX_PAGE", 4)
    mine = Bucket(device="d", job="j", socket=daemon.socket)
    for n in range(10):
        mine.set(n=n)
    assert [each["revision"] for each in mine.history()] == [*range(10, 0, -1)]
    assert [each["revision"] for each in mine.history(limit=6)] == [*range(10, 4, -1)]


def test_an_earlier_state_and_taking_changes_back(bucket: Bucket) -> None:
    bucket.set(a=1)
    bucket.set(a=2)
    bucket.set(b=1)
    assert bucket.at(1) == {"a": 1}
    assert bucket.undo(2) == {"a": 1, "b": 1}
    assert bucket.undo(3, returning=False) is None
    assert bucket.get() == {"a": 1}
    assert bucket.history(limit=1)[0]["undoes"] == 3
    with pytest.raises(PreconditionFailed):
        bucket.undo(if_match='"other"')
    bucket.set(a=5)
    with pytest.raises(BucketError) as conflict:
        bucket.undo(1)
    assert conflict.value.code == "undo_conflict"
    assert conflict.value.details == [{"key": "a", "revision": 6}]
    with pytest.raises(NotFound):
        bucket.at(99)
    bucket.clear()
    assert bucket.undo() == {"a": 5}


@pytest.mark.parametrize("value", [0, -1, True, "1", 1.0])
def test_what_is_no_revision_is_refused(bucket: Bucket, value: Any) -> None:
    for call in (lambda: bucket.at(value), lambda: bucket.undo(value),
                 lambda: bucket.history(limit=value)):  # fmt: skip
        with pytest.raises(InvalidRequest):
            call()


def test_on_the_held_bucket_an_undo_passes_only_while_the_hold_lasts(bucket: Bucket) -> None:
    bucket.set(a=1)
    with bucket.hold(exclusive=True) as held:
        held.set(a=2)
        with pytest.raises(Held):
            bucket.undo()
        assert held.undo() == {"a": 1}
        assert (len(held.history()), held.at(2)) == (3, {"a": 2})
    with pytest.raises(HoldLost):
        held.undo()


async def test_the_same_awaited(shared_daemon: Daemon) -> None:
    mine = AsyncBucket(device="awaited", job="j", socket=shared_daemon.socket)
    await mine.set(a=1)
    await mine.set(a=2)
    entries = await mine.history(values=True, limit=1)
    assert [each["before"] for each in entries] == [{"a": 1}]
    assert await mine.at(1) == {"a": 1}
    assert await mine.undo() == {"a": 1}
    assert await mine.undo(1, returning=False) is None
    async with mine.hold() as held:
        await held.set(b=1)
        assert await held.undo() == {}
        assert (await held.history(limit=1))[0]["undoes"] == 5


@pytest.fixture
def environment(shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKETD_SOCKET", shared_daemon.socket)


@pytest.mark.parametrize("name", ["bucket", "deviceBucket"])
def test_as_results(environment: None, monkeypatch: pytest.MonkeyPatch, name: str,
                    shared_daemon: Daemon) -> None:  # fmt: skip
    monkeypatch.setenv("BUCKETD_TOKEN", shared_daemon.mint(f"results-{name}", "j"))
    mine = getattr(agent.utils, name)
    mine.set({"a": 1})
    mine.set({"a": 2})
    told = mine.history(values=True, limit=1)
    assert told.success
    assert told.history[0]["before"] == {"a": 1}
    assert mine.at(1)[name] == {"a": 1}
    undone = mine.undo()
    assert (undone.success, undone[name], undone.revision) == (True, {"a": 1}, 3)
    assert mine.at(9).code == "not_found"
    assert mine.undo(0).code == "invalid_request"
    assert mine.history(limit=0).code == "invalid_request"

    async def play() -> None:
        later = getattr(aio.agent.utils, name)
        assert (await later.undo(3))[name] == {"a": 2}
        assert (await later.at(1))[name] == {"a": 1}
        told = await later.history(limit=1)
        assert told.history[0]["undoes"] == 3
        assert (await later.history(limit=0)).code == "invalid_request"

    asyncio.run(play())


def test_without_a_context_it_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUCKETD_TOKEN", raising=False)
    monkeypatch.delenv("BUCKETD_DEVICE", raising=False)
    for result in (agent.utils.bucket.history(), agent.utils.bucket.undo(),
                   agent.utils.deviceBucket.at(1)):  # fmt: skip
        assert result.code == "no_job_context"


def test_an_undo_is_a_write_for_a_test_of_an_automation() -> None:
    with Server() as server:
        kept = server.bucket("d", "j")
        mine = Bucket(token=kept.token, socket=server.socket)
        kept.seed({"a": 1})
        mine.set(a=2)
        mine.undo()
        kept.assert_set(a=1)
        assert [(each.method, each.set) for each in kept.writes] == [
            ("PATCH", {"a": 2}),
            ("POST", {"a": 1}),
        ]
