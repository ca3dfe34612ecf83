"""What a write costs the disk, by the counters of ``/v1/status``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from harness import Daemon, pair

TARGET = pair("phone", "job")
COUNTERS = ("commits", "journal_bytes", "journal_syncs", "file_writes")


def store(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.request("GET", "/v1/status").json["store"]
    return found


def cost(daemon: Daemon, work: Callable[[], None]) -> dict[str, int]:
    """How much each counter went up."""
    before = store(daemon)
    work()
    after = store(daemon)
    return {name: after[name] - before[name] for name in COUNTERS}


def sets(daemon: Daemon, path: str, count: int) -> None:
    with daemon.connect() as sock:
        for number in range(count):
            answer = daemon.request("PATCH", path, {"n": number}, sock=sock)
            assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", TARGET, {"a": 1}),
        ("PATCH", TARGET, {}),
        ("PUT", TARGET, {"a": 1, "b": 2}),
        ("DELETE", f"{TARGET}?key=c", None),
        ("DELETE", pair("phone", "none"), None),
    ],
)
def test_a_change_that_changes_nothing_costs_nothing(
    daemon: Daemon, method: str, path: str, body: object
) -> None:
    first = daemon.request("PUT", TARGET, {"a": 1, "b": 2})

    def work() -> None:
        for _ in range(20):
            assert daemon.request(method, path, body).status == 200

    assert cost(daemon, work) == dict.fromkeys(COUNTERS, 0)
    assert daemon.request("GET", TARGET).etag == first.etag


def test_many_sets_of_a_hot_bucket_are_few_file_writes(daemon: Daemon) -> None:
    found = cost(daemon, lambda: sets(daemon, TARGET, 500))
    assert found["commits"] == 500
    assert 500 * 40 < found["journal_bytes"] < 500 * 400
    assert found["journal_syncs"] <= 520
    assert 1 <= found["file_writes"] <= 100


def test_those_who_write_together_share_a_sync(daemon: Daemon) -> None:
    writers = [
        threading.Thread(target=sets, args=(daemon, pair("phone", f"{n}"), 50)) for n in range(16)
    ]

    def work() -> None:
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()

    found = cost(daemon, work)
    assert found["commits"] == 800
    assert found["journal_syncs"] < 700


@pytest.mark.parametrize("mode", ["strict", "relaxed"])
def test_status_says_how_durable_it_is(stopped_daemon: Daemon, mode: str) -> None:
    env = {"BUCKETD_STORE_DURABILITY": mode, "BUCKETD_STORE_RELAXED_SECONDS": "3"}
    daemon = stopped_daemon.start(env=env)
    found = cost(daemon, lambda: sets(daemon, TARGET, 50))
    shown = store(daemon)
    assert shown["durability"] == mode
    assert shown["relaxed_seconds"] == (3.0 if mode == "relaxed" else None)
    assert (found["journal_syncs"] < 25) == (mode == "relaxed")


def test_the_cache_keeps_to_its_budget(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start(env={"BUCKETD_STORE_CACHE_BYTES": "100000"})
    with daemon.connect() as sock:
        for number in range(300):
            daemon.request("PUT", pair("phone", f"{number}"), {"pad": "x" * 1000}, sock=sock)
        for number in range(300):
            assert daemon.request("GET", pair("phone", f"{number}"), sock=sock).status == 200
    assert 50_000 < store(daemon)["cache_bytes"] <= 100_000
