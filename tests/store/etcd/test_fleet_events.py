"""Event streams on etcd: what changes on any host, once and in order, whatever breaks."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fleet import Cluster, cluster
from harness import Daemon, pair
from sse import Event, Stream


@pytest.fixture(scope="module")
def hosts(etcd: Cluster) -> Iterator[tuple[Daemon, Daemon]]:
    one, two = etcd.host(), etcd.host()
    try:
        yield one.start(), two.start()
    finally:
        one.remove()
        two.remove()


def essence(event: Event) -> Any:
    assert event.kind == "bucket", event
    return event.data["revision"], event.data["set"], event.data["removed"]


def test_changes_of_any_host_are_told_on_each(hosts: tuple[Daemon, Daemon]) -> None:
    one, two = hosts
    target = pair("shared", "job")
    with (
        Stream(two, f"{target}/events?snapshot=true") as of_one,
        Stream(two, "/v1/events?device=shared") as of_all,
        Stream(one, f"{target}/events?key=b") as of_a_key,
    ):
        assert essence(of_one.next()) == (0, {}, [])
        one.request("PATCH", target, {"a": 1})
        two.request("PATCH", target, {"b": 2})
        one.request("PUT", target, {"b": 3})
        two.request("DELETE", target)
        expected = [(1, {"a": 1}, []), (2, {"b": 2}, []), (3, {"b": 3}, ["a"]), (0, {}, ["b"])]
        assert [essence(of_one.next()) for _ in range(4)] == expected
        assert [essence(of_all.next()) for _ in range(4)] == expected
        assert [essence(of_a_key.next())[1] for _ in range(3)] == [{"b": 2}, {"b": 3}, {}]


def test_names_that_were_cut_are_told_whole(hosts: tuple[Daemon, Daemon]) -> None:
    device, job = "📱" * 128, "é" * 128
    with Stream(hosts[0], "/v1/events") as stream:
        hosts[1].request("PATCH", pair(device, job), {"a": 1})
        hosts[1].request("DELETE", pair(device, job))
        found = [stream.next() for _ in range(2)]
    assert [(e.data["device"], e.data["job"]) for e in found] == [(device, job)] * 2


def test_it_goes_on_across_a_restart_and_on_another_host(hosts: tuple[Daemon, Daemon]) -> None:
    one, two = hosts
    target = pair("resumed", "job")
    with Stream(one, f"{target}/events") as stream:
        one.request("PATCH", target, {"n": 1})
        first = stream.next()
    two.request("PATCH", target, {"n": 2})
    two.request("PATCH", pair("resumed", "other"), {"n": 2})
    one.kill()
    two.request("PATCH", target, {"n": 3})
    one.start()
    for host in hosts:
        with Stream(host, f"{target}/events", since=first.id) as stream:
            assert [essence(stream.next())[0] for _ in range(2)] == [2, 3]
            assert stream.next_within(0.2) is None


def test_a_stop_waits_for_what_etcd_has_still_to_tell(etcd: Cluster) -> None:
    host, target = etcd.host(), pair("last", "job")
    host.program = (str(Path(__file__).with_name("late_daemon.py")),)
    try:
        with Stream(host.start(), f"{target}/events") as stream:
            host.request("PATCH", target, {"n": 1})
            assert host.stop() == 0
            assert [essence(event) for event in stream.rest()] == [(1, {"n": 1}, [])]
    finally:
        host.remove()


def test_an_etcd_that_is_away_does_not_keep_a_stop() -> None:
    with cluster(1) as alone:
        host, target = alone.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="1"), pair("last", "job")
        try:
            with Stream(host.start(), f"{target}/events") as stream:
                alone.nodes[0].kill()
                assert host.request("PATCH", target, {"n": 1}).status == 503
                assert host.stop() == 0
                assert stream.rest() == []
        finally:
            host.remove()


def test_snapshots_and_changes_fit_together(hosts: tuple[Daemon, Daemon]) -> None:
    target, done = pair("busy", "job"), threading.Event()
    hosts[0].request("PUT", target, {"n": 0})

    def write(host: Daemon) -> None:
        number = 0
        with host.connect() as sock:
            while not done.is_set():
                number += 1
                host.request("PATCH", target, {"n": number}, sock=sock)

    writers = [threading.Thread(target=write, args=(host,)) for host in hosts]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            with Stream(hosts[1], f"{target}/events?snapshot=true") as stream:
                revisions = [stream.next().data["revision"] for _ in range(20)]
            assert revisions == list(range(revisions[0], revisions[0] + 20))
    finally:
        done.set()
        for writer in writers:
            writer.join()


@pytest.mark.parametrize("since", ["1.2.x", "999999999", "", "x", "9" * 5000])
def test_a_mark_that_is_none_is_a_gap(hosts: tuple[Daemon, Daemon], since: str) -> None:
    with Stream(hosts[0], f"{pair('gap', 'job')}/events?snapshot=true", since=since) as stream:
        assert [stream.next().kind for _ in range(2)] == ["gap", "bucket"]


def test_what_was_compacted_is_a_gap(hosts: tuple[Daemon, Daemon], etcd: Cluster) -> None:
    target = pair("compacted", "job")
    with Stream(hosts[0], f"{target}/events") as stream:
        hosts[0].request("PATCH", target, {"n": 1})
        first = stream.next()
    for number in range(5):
        hosts[0].request("PATCH", target, {"n": number})
    revision = etcd.nodes[0].ask("/v3/kv/range", {"key": "YQ=="})["header"]["revision"]
    etcd.nodes[0].ask("/v3/kv/compaction", {"revision": revision})
    with Stream(hosts[1], f"{target}/events", since=first.id) as stream:
        assert stream.next().kind == "gap"
        hosts[0].request("PATCH", target, {"n": 99})
        assert essence(stream.next())[1] == {"n": 99}


def test_a_leader_that_dies_costs_no_event() -> None:
    with cluster(3) as three:
        host = three.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="10").start()
        target, last = pair("leader", "job"), 60
        try:
            with Stream(host, f"{target}/events", timeout=60) as stream:
                for number in range(1, last + 1):
                    if number == last // 2:
                        three.leader().signal(signal.SIGKILL)
                    answer = host.request("PATCH", target, {"n": number})
                    assert answer.status == 200, json.loads(answer.body)
                revisions = [stream.next().data["revision"] for _ in range(last)]
            assert revisions == list(range(1, last + 1))
        finally:
            host.remove()


def test_first_watchers_that_come_together_are_told_once(etcd: Cluster) -> None:
    """As they do when a daemon was restarted: each found that nobody watched yet."""
    host, target = etcd.host().start(), pair("together", "job")
    try:
        host.request("PUT", target, {"n": 0})
        at_once = threading.Barrier(8)

        def come(_: int) -> Stream:
            at_once.wait()
            return Stream(host, f"{target}/events")

        with ThreadPoolExecutor(8) as pool:
            streams = list(pool.map(come, range(8)))
        for number in (1, 2):
            host.request("PATCH", target, {"n": number})
        for stream in streams:
            with stream:
                assert [stream.next().data["revision"] for _ in range(2)] == [2, 3]
                assert stream.next_within(0.05) is None
    finally:
        host.remove()


def test_who_resumes_ahead_of_a_watch_that_hangs_is_told_once() -> None:
    """By another node; then the watch goes on, and what it tells late was told."""
    with cluster(3) as three:
        asked = next(node for node in three.nodes if node is not three.leader())
        others = [node for node in three.nodes if node is not asked]
        urls = [node.url for node in (asked, *others)]
        host = three.host(
            BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="2", BUCKETD_STORE_ETCD_ENDPOINTS=",".join(urls)
        )
        other = three.host(BUCKETD_STORE_ETCD_ENDPOINTS=",".join(urls[1:]))
        try:
            host.start(), other.start()
            target = pair("again", "job")
            other.request("PUT", target, {"n": 0})
            with Stream(host, f"{target}/events") as first:
                since = first.last_id
                other.request("PUT", target, {"n": 1})
                first.next()
                asked.signal(signal.SIGSTOP)
                os.waitid(os.P_PID, asked.process.pid, os.WSTOPPED)
                for number in (2, 3):
                    other.request("PUT", target, {"n": number})
                found = []
                for seconds in (0.2, 8.0):
                    with Stream(host, f"{target}/events", since=since) as stream:
                        until = time.monotonic() + seconds
                        while time.monotonic() < until and 5 not in found:
                            event = stream.next_within(0.1)
                            found += [] if event is None else [event.data["revision"]]
                            if seconds > 1 and found[-1] == 4:
                                other.request("PUT", target, {"n": 4})
                        since = stream.last_id
            assert found == [2, 3, 4, 5]
        finally:
            asked.signal(signal.SIGCONT)
            host.remove()
            other.remove()


def test_resuming_over_too_much_is_a_gap(etcd: Cluster, hosts: tuple[Daemon, Daemon]) -> None:
    """Of other buckets, too: etcd keeps one history of all."""
    one, two = hosts
    target = pair("mine", "job")
    one.request("PUT", target, {"n": 0})
    with Stream(one, f"{target}/events") as stream:
        since = stream.last_id
    with two.connect() as sock:
        for number in range(24):
            body = {"n": number, "pad": "x" * 900_000}
            assert two.request("PUT", pair("large", "job"), body, sock=sock).status == 200
    with Stream(one, f"{target}/events", since=since) as stream:
        assert stream.next().kind == "gap"
        one.request("PATCH", target, {"n": 1})
        assert essence(stream.next()) == (2, {"n": 1}, [])
    two.request("DELETE", pair("large", "job"))
