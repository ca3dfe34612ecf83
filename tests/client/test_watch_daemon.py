"""Watching real daemons: every change once and in order, across restarts; and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from bucketd_client import AsyncBucket, Bucket, ConnectionLost, NoJobContext
from harness import Daemon, pair

ROUNDS, EACH = 3, 25


class Watcher:
    """A thread that watches to the end of the token; ``found`` grows."""

    def __init__(self, watch: Callable[[Callable[[Any], None]], None]) -> None:
        self.found: list[Any] = []
        self._more = threading.Condition()
        self._thread = threading.Thread(target=watch, args=(self._note,))
        self._thread.start()

    def _note(self, change: Any) -> None:
        with self._more:
            self.found.append(change)
            self._more.notify()

    def wait_for(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: len(self.found) >= count, 30), self.found

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def sync(daemon: Daemon, token: str, note: Callable[[Any], None]) -> None:
    bucket = Bucket(token=token, socket=daemon.socket)
    try:
        for change in bucket.watch(snapshot=True):
            note(change)
    except NoJobContext:
        return


def awaited(daemon: Daemon, token: str, note: Callable[[Any], None]) -> None:
    async def watch() -> None:
        async for change in AsyncBucket(token=token, socket=daemon.socket).watch(snapshot=True):
            note(change)

    try:
        asyncio.run(watch())
    except NoJobContext:
        return


def count_up(bucket: Bucket, numbers: range) -> None:
    """One change for each number, also where the daemon ends in the middle of it."""
    for number in numbers:
        while bucket.get().get("n") != number:
            with contextlib.suppress(ConnectionLost):
                bucket.set(n=number)


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("watch", [sync, awaited])
def test_each_change_once_across_restarts(daemon: Daemon, watch: Any, end: str) -> None:
    context = daemon.request("POST", "/v1/contexts", {"device": "d", "job": "j"}).json
    watcher = Watcher(lambda note: watch(daemon, context["token"], note))
    watcher.wait_for(1)
    bucket = Bucket(device="d", job="j", socket=daemon.socket, timeout=20)
    for number in range(0, ROUNDS * EACH, EACH):
        writer = threading.Thread(
            target=count_up, args=(bucket, range(number + 1, number + EACH + 1))
        )
        writer.start()
        getattr(daemon, end)()
        daemon.start()
        writer.join()
        watcher.wait_for(1 + number + EACH)
    daemon.request("DELETE", f"/v1/contexts/{context['id']}")
    watcher.join()
    changes = watcher.found[1:]
    assert [change.set for change in changes] == [{"n": n} for n in range(1, ROUNDS * EACH + 1)]
    assert [change.revision for change in changes] == list(range(1, ROUNDS * EACH + 1))
    assert not any(change.gap for change in changes)


def test_since_goes_on_in_another_process(daemon: Daemon) -> None:
    bucket = Bucket(device="d", socket=daemon.socket)
    changes = bucket.watch()
    bucket.set(n=1)
    first = next(changes)
    changes.close()
    bucket.set(n=2)
    daemon.restart()
    bucket.remove("n")
    behind = Bucket(device="d", socket=daemon.socket).watch(since=first.id)
    one, other = next(behind), next(behind)
    assert (one.set, one.job, one.revision) == ({"n": 2}, None, 2)
    assert (other.set, other.removed, other.revision) == ({}, ["n"], 3)


def test_what_is_forgotten_is_a_gap_with_the_whole_bucket(daemon: Daemon) -> None:
    bucket = Bucket(device="d", job="j", socket=daemon.socket)
    bucket.replace({"a": 1, "b": 2})
    changes = bucket.watch("a", since="nobody-knows-this")
    change = next(changes)
    assert (change.gap, change.set, change.revision) == (True, {"a": 1}, 1)
    bucket.set(a=3, b=4)
    change = next(changes)
    assert (change.gap, change.set) == (False, {"a": 3})


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_it_ends_with_its_token(daemon: Daemon, how: str) -> None:
    body = {"device": "d", "job": "j", **({"ttl_seconds": 1} if how == "expired" else {})}
    context = daemon.request("POST", "/v1/contexts", body).json
    changes = Bucket(token=context["token"], socket=daemon.socket).watch(snapshot=True)
    assert next(changes).revision == 0
    if how == "revoked":
        daemon.request("DELETE", f"/v1/contexts/{context['id']}")
    with pytest.raises(NoJobContext, match="revoked or expired"):
        next(changes)


def test_by_anybody_and_by_hand(daemon: Daemon) -> None:
    token = daemon.mint("d", "j")
    changes = Bucket(token=token, socket=daemon.socket).watch()
    daemon.request("PUT", pair("d", "j"), {"a": {"b": [None]}})
    assert next(changes).set == {"a": {"b": [None]}}
    daemon.request("DELETE", pair("d", "j"))
    change = next(changes)
    assert (change.revision, change.removed) == (0, ["a"])
