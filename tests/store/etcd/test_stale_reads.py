"""No majority: reads are refused or, where that is wished, told from memory, with their age."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from bucketd_client import Bucket
from ctl_shell import Shell
from fleet import Cluster, Host, cluster
from harness import Response, new_daemon, pair
from sse import Stream

from bucketd.model.bucket import BucketKey, Snapshot
from bucketd.model.document import Document
from bucketd.store.etcd import stale_cache
from bucketd.store.etcd.stale_cache import StaleCache

BOUND = 20.0
TIMEOUT = 0.8


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with cluster(3) as found:
        yield found


@pytest.fixture(scope="module")
def host(three: Cluster) -> Iterator[Host]:
    """One that serves what is at most so old."""
    found = started(three, BUCKETD_STORE_ETCD_STALE_READS=f"{BOUND:g}s")
    try:
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="module")
def strict(three: Cluster) -> Iterator[Host]:
    """One as it is without that setting."""
    found = started(three)
    try:
        yield found
    finally:
        found.remove()


def started(three: Cluster, **settings: str) -> Host:
    found = three.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS=f"{TIMEOUT:g}", **settings)
    found.start()
    return found


@contextlib.contextmanager
def no_majority(three: Cluster) -> Iterator[None]:
    for node in three.nodes[:2]:
        node.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, node.process.pid, os.WSTOPPED)
    try:
        yield
    finally:
        for node in three.nodes[:2]:
            node.signal(signal.SIGCONT)
        three.wait()


def refused(answer: Response) -> None:
    assert answer.status in (500, 503), answer
    assert "stale_seconds" not in answer.json
    assert "age" not in answer.headers


def fresh(answer: Response) -> None:
    assert answer.status == 200, answer
    assert "stale_seconds" not in answer.json
    assert "age" not in answer.headers


def age_of(answer: Response) -> float:
    assert answer.status == 200, answer
    seconds = answer.json["stale_seconds"]
    assert int(answer.headers["age"]) == math.ceil(seconds)
    return float(seconds)


def test_what_is_known_is_told_with_its_age_and_nothing_else_is_done(
    three: Cluster, host: Host, strict: Host
) -> None:
    read, written, gone = (pair("stale", job) for job in ("read", "written", "gone"))
    strict.request("PUT", read, {"of": "the other host"})
    strict.request("GET", read)
    fresh(host.request("GET", read))
    asked = time.monotonic()
    made = host.request("PATCH", written, {"n": 1})
    host.request("PUT", gone, {"n": 1})
    host.request("DELETE", gone)
    with no_majority(three):
        first = host.request("GET", written)
        assert first.bucket == {"n": 1}
        assert (first.etag, first.json["revision"]) == (made.etag, 1)
        assert 0 < age_of(first) < time.monotonic() - asked
        assert host.request("GET", read).bucket == {"of": "the other host"}
        nothing = host.request("GET", gone)
        assert (nothing.bucket, nothing.json["revision"]) == ({}, 0)
        assert age_of(nothing) > 0
        began = time.monotonic()
        age_of(host.request("GET", f"{written}?key=n"))
        assert time.monotonic() - began < TIMEOUT * 0.8  # known to be away, it is not waited for
        never(host, written, str(made.etag))
        refused(strict.request("GET", read))
        said = host.request("GET", "/v1/status").json["store"]
        assert said["stale_reads"] >= 4
        assert not said["healthy"]
    fresh(host.request("GET", written))
    assert host.request("GET", written).bucket == {"n": 1}


def never(host: Host, path: str, etag: str) -> None:
    """Of what must not depend on what is stale, all is refused."""
    asked: list[tuple[Any, ...]] = [
        ("GET", path, None, {"If-None-Match": etag}),
        ("GET", path, None, {"Cache-Control": "no-cache"}),
        ("PATCH", path, {"n": 1}, {"If-Match": etag}),
        ("GET", pair("stale", "never asked for")),
        ("GET", "/v1/buckets"),
        ("GET", "/v1/export"),
    ]
    with ThreadPoolExecutor(len(asked)) as at_once:
        for answer in at_once.map(lambda words: host.request(*words), asked):
            refused(answer)


@pytest.fixture
def brief(three: Cluster) -> Iterator[Host]:
    found = started(three, BUCKETD_STORE_ETCD_STALE_READS="2s")
    try:
        yield found
    finally:
        found.remove()


def test_nothing_older_than_the_bound(three: Cluster, brief: Host) -> None:
    path, bound = pair("stale", "old"), 2.0
    brief.request("PUT", path, {"n": 1})
    written = time.monotonic()
    with no_majority(three):
        last = 0.0
        while (answer := brief.request("GET", path)).status == 200:
            assert last < age_of(answer) <= bound
            last = age_of(answer)
        refused(answer)
        assert time.monotonic() - written >= bound - TIMEOUT
        assert last > bound / 2


def test_after_a_write_with_unknown_outcome_nothing_is_known(three: Cluster, host: Host) -> None:
    path = pair("stale", "unknown")
    host.request("PUT", path, {"n": 1})
    with no_majority(three):
        answer = host.request("PATCH", path, {"n": 2})
        assert "the outcome is unknown" in answer.json["error"]
        refused(host.request("GET", path))


def test_what_a_watch_has_told_is_known(three: Cluster, host: Host, strict: Host) -> None:
    path = pair("stale", "watched")
    host.request("PUT", path, {"n": 1})
    with Stream(host, f"{path}/events") as stream:
        strict.request("PATCH", path, {"n": 2})
        stream.next()
        with no_majority(three):
            answer = host.request("GET", path)
            assert answer.bucket == {"n": 2}
            assert age_of(answer) > 0


def test_clients_tell_it(three: Cluster, host: Host) -> None:
    bucket = Bucket(device="stale", job="client", socket=host.socket)
    bucket.set({"n": 1})
    assert bucket.snapshot().stale_seconds is None
    shell = Shell(host)
    with no_majority(three):
        found = bucket.snapshot()
        assert found.bucket == {"n": 1}
        assert found.stale_seconds is not None
        assert 0 < found.stale_seconds < BOUND
        done = shell("get", "--device", "stale", "--job", "client")
        assert "no majority of etcd answers" in done.stderr
        assert done.returncode == 0


def test_migrate_carries_nothing_that_is_stale(three: Cluster, host: Host) -> None:
    path = pair("stale", "carried")
    host.request("PUT", path, {"n": 1})
    target = new_daemon()
    try:
        target.start()
        words = ["--from", "etcd", "--to", "file", "--to-socket", target.socket]
        with no_majority(three):
            age_of(host.request("GET", path))
            done = Shell(host)("migrate", *words, "--device", "stale")
            assert done.returncode != 0
            assert "once a majority of its nodes is up" in done.stderr
        assert target.request("GET", "/v1/buckets").json["buckets"] == []
        assert Shell(host)("migrate", *words, "--device", "stale").returncode == 0
        assert target.request("GET", path).bucket == {"n": 1}
    finally:
        target.remove()


# --- what is kept in memory for it

KEY = BucketKey("d", "j")


def state(number: int, size: int = 0) -> Snapshot:
    return Snapshot(Document(b'{"x":"%b"}' % (b"x" * size)), number, f"{number}")


def noted(memory: StaleCache, key: BucketKey = KEY) -> int | None:
    found = memory._get(key)
    return None if found is None else found.snapshot.revision


def test_memory_is_bounded() -> None:
    memory = StaleCache(60, 100_000)
    for number in range(1000):
        memory.remember(BucketKey(f"d{number}"), state(1, 1000), number, stale_cache.now())
        assert memory._bytes <= 100_000
    assert 20 < len(memory._entries) < 100
    assert noted(memory, BucketKey("d999")) == 1
    memory.remember(KEY, state(1, 200_000), 1, stale_cache.now())
    assert (noted(memory), memory._bytes, len(memory._entries)) == (None, 0, 0)


def test_answers_that_overtake_each_other_do_not_turn_back_time() -> None:
    memory, at = StaleCache(60, 100_000), stale_cache.now()
    memory.remember(KEY, state(2), 20, at)
    memory.remember(KEY, state(1), 10, at + 1)
    memory.update(KEY, state(1), 10)
    assert noted(memory) == 2
    memory.update(KEY, state(3), 30)
    assert noted(memory) == 3
    assert memory._entries[KEY].asked_at == at
    memory.update(BucketKey("nobody asked"), state(1), 40)
    assert len(memory._entries) == 1


def test_off_nothing_is_kept() -> None:
    memory = StaleCache()
    memory.remember(KEY, state(1), 1, stale_cache.now())
    assert noted(memory) is None
    assert not memory._entries
