"""Two clusters, and devices spread over them: seen from outside it is one."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ctl_shell import Shell
from fleet import Cluster, Host, cluster, wait_until
from harness import pair
from sse import Event, Stream

from bucketd.store.etcd import EtcdOptions
from bucketd.store.etcd.client import EtcdClient
from bucketd.store.etcd.session import Session
from bucketd.store.etcd.sharded_store import shard_of

NAMES = ("east", "west")


def devices(stem: str) -> list[str]:
    return [f"{stem}-{number}" for number in range(24)]


DEVICES = devices("phone")  # which all tests read, and none writes: those have devices of their own


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Cluster, Cluster]]:
    with cluster(1) as east, cluster(1) as west:
        yield east, west


def on(both: tuple[Cluster, Cluster], names: tuple[str, ...] = NAMES, **settings: str) -> Host:
    """A host on these, not started."""
    host = both[0].host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="2", **settings)
    del host.env["BUCKETD_STORE_ETCD_ENDPOINTS"]
    of = (
        f"{name}={one.endpoints.replace(',', ' ')}" for name, one in zip(names, both, strict=True)
    )
    host.env["BUCKETD_STORE_ETCD_SHARDS"] = ",".join(of)
    return host


@pytest.fixture(scope="module")
def hosts(both: tuple[Cluster, Cluster]) -> Iterator[tuple[Host, Host]]:
    with contextlib.ExitStack() as stack:
        # The order in which the settings name them does not matter.
        found = on(both), on((both[1], both[0]), NAMES[::-1])
        for host in found:
            stack.callback(host.remove)
            host.start()
        for number, device in enumerate(DEVICES):
            host = found[number % 2]
            assert host.request("PUT", pair(device, "job"), {"n": number}).status == 200
            assert host.request("PUT", pair(device), {"shared": number}).status == 200
        yield found


def devices_in(one: Cluster) -> set[str]:
    return {json.loads(value)["device"] for value in one.stored_values("/bucketd/").values()}


def of_shard(number: int, stem: str) -> list[str]:
    return [device for device in devices(stem) if shard_of(NAMES, device) == number]


def test_a_device_is_in_one_of_them_and_each_host_finds_it(
    hosts: tuple[Host, Host], both: tuple[Cluster, Cluster]
) -> None:
    for number in (0, 1):
        found = devices_in(both[number]) & set(DEVICES)
        assert found == set(of_shard(number, "phone")) != set()
    for number, device in enumerate(DEVICES):
        for host in hosts:
            assert host.request("GET", pair(device, "job")).bucket == {"n": number}
            assert host.request("GET", pair(device)).bucket == {"shared": number}


def listed(host: Host, query: str) -> list[tuple[str, str | None]]:
    found, cursor = [], ""
    while True:
        page = host.request("GET", f"/v1/buckets?{query}{cursor}").json
        found += [(row["device"], row["job"]) for row in page["buckets"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.parametrize("limit", [1, 7, 12, 1000])
def test_pages_go_through_all_of_them(hosts: tuple[Host, Host], limit: int) -> None:
    wanted = Counter((device, job) for device in DEVICES for job in (None, "job"))
    first, second = (listed(host, f"limit={limit}") for host in hosts)
    assert first == second
    assert Counter(row for row in first if row[0] in DEVICES) == wanted
    one = DEVICES[3]
    assert listed(hosts[0], f"device={one}&limit={limit}") == [(one, None), (one, "job")]
    assert len(listed(hosts[0], f"job=job&limit={limit}")) >= len(DEVICES)


@pytest.mark.parametrize("cursor", ["x", "9x.", "1", "-1.", ".", "0.%25"])
def test_a_cursor_that_is_none_is_refused(hosts: tuple[Host, Host], cursor: str) -> None:
    assert hosts[0].request("GET", f"/v1/buckets?cursor={cursor}").status == 400


def essence(event: Event) -> Any:
    assert event.kind == "bucket", event
    return event.data["device"], event.data["revision"], event.data["set"]


def test_one_stream_tells_of_all_and_goes_on_where_it_broke_off(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    of_both = zip(of_shard(0, "streamed"), of_shard(1, "streamed"), strict=False)
    mixed = [device for both in of_both for device in both][:8]
    job = "streamed"
    with Stream(one, f"/v1/events?job={job}") as stream:
        for device in mixed:
            two.request("PUT", pair(device, job), {"n": 1})
        first = [stream.next() for _ in mixed]
        assert sorted(map(essence, first)) == sorted((d, 1, {"n": 1}) for d in mixed)
    for device in mixed:
        two.request("PUT", pair(device, job), {"n": 2})
    for at, event in enumerate(first):
        # Whatever was told up to there is not told again, and all else is, in each shard's order.
        told = {essence(earlier)[0] for earlier in first[: at + 1]}
        wanted = Counter([(d, 1) for d in mixed if d not in told] + [(d, 2) for d in mixed])
        with Stream(two, f"/v1/events?job={job}", since=event.id) as stream:
            found = [stream.next() for _ in range(wanted.total())]
            assert Counter(essence(event)[:2] for event in found) == wanted
            assert stream.next_within(0.05) is None
        middle = len(found) // 2  # what was told on resuming can be gone on from as well
        with Stream(one, f"/v1/events?job={job}", since=found[middle].id) as stream:
            rest = [essence(stream.next()) for _ in found[middle + 1 :]]
            assert rest == [essence(event) for event in found[middle + 1 :]]


def test_a_bucket_of_any_shard_can_be_watched(hosts: tuple[Host, Host]) -> None:
    for number in (0, 1):
        path = pair(of_shard(number, "watched")[0], "job")
        with Stream(hosts[0], f"{path}/events?snapshot=true") as stream:
            stream.next()
            hosts[1].request("PUT", path, {"n": 1})
            last = stream.next()
        hosts[1].request("PUT", path, {"n": 2})
        with Stream(hosts[1], f"{path}/events", since=last.id) as stream:
            assert essence(stream.next())[2] == {"n": 2}
        with Stream(hosts[0], "/v1/events", since="1") as stream:
            assert stream.next().kind == "gap"


def test_resuming_while_all_is_written_tells_each_change_once(
    hosts: tuple[Host, Host], fault_scale: float
) -> None:
    """What a stream is told anew and what happens meanwhile come from two clusters at a time."""
    paths = {device: pair(device, "busy") for device in (of_shard(n, "busy")[0] for n in (0, 1))}
    with Stream(hosts[0], "/v1/events?job=busy") as stream:
        for path in paths.values():
            hosts[0].request("PUT", path, {"n": 0})
        since = [stream.next() for _ in paths][-1].id
    begins = dict.fromkeys(paths, 2)
    done = threading.Event()

    def write(host: Host, path: str) -> None:
        number = 0
        with host.connect() as sock:
            while not done.is_set():
                number += 1
                host.request("PATCH", path, {"n": number}, sock=sock)

    writers = [
        threading.Thread(target=write, args=one) for one in zip(hosts, paths.values(), strict=True)
    ]
    for writer in writers:
        writer.start()
    try:
        for _ in range(max(6, int(40 * fault_scale))):
            with Stream(hosts[0], "/v1/events?job=busy", since=since) as stream:
                told = told_until(stream, {device: revision_of(hosts[1], paths[device]) + 10
                                           for device in paths})  # fmt: skip
            since = stream.last_id
            for device, revisions in told.items():
                begin = begins[device]
                begins[device] += len(revisions)
                assert revisions == list(range(begin, begins[device]))
    finally:
        done.set()
        for writer in writers:
            writer.join()


def revision_of(host: Host, path: str) -> int:
    return int(host.request("GET", path).json["revision"])


def told_until(stream: Stream, last: dict[str, int]) -> dict[str, list[int]]:
    """The revisions that are told of each device, until both have come so far."""
    told: dict[str, list[int]] = {device: [] for device in last}
    while any(not told[d] or told[d][-1] < last[d] for d in last):
        device, revision, _ = essence(stream.next())
        told[device].append(revision)
    return told


def test_a_host_says_the_same_of_itself_in_each_shard() -> None:
    """Else the status counts it once for each: it did when a millisecond lay between the two."""
    one, other = (EtcdClient(EtcdOptions((), prefix, 1.0)) for prefix in ("/one/", "/two/"))
    first = Session(one)
    time.sleep(0.005)
    assert Session(other)._description == first._description


def test_schemas_status_export_and_import_are_of_all(
    hosts: tuple[Host, Host], both: tuple[Cluster, Cluster]
) -> None:
    one, two = hosts
    schema = {"fields": [{"name": "n", "type": "number"}]}
    assert one.request("PUT", "/v1/schemas/sharded", schema).status == 200
    said = two.request("GET", "/v1/status").json
    assert said["store"]["healthy"]
    assert set(said["store"]["shards"]) == set(NAMES)
    # Those of earlier tests that were killed count until their leases end, after 10 s.
    wait_until(lambda: len(two.request("GET", "/v1/status").json["store"]["hosts"]) == 2, 20)
    counted = sum(len(cluster.stored_values("/bucketd/")) for cluster in both)
    assert said["counts"]["buckets"] + said["counts"]["device_buckets"] == counted
    exported = Shell(one)("export").stdout
    assert len(exported.splitlines()) == counted
    other = on(both, BUCKETD_STORE_ETCD_PREFIX="/other/")
    try:
        done = Shell(other.start())("import", stdin=exported)
        assert done.returncode == 0, done.stderr
        assert Counter(listed(other, "")) == Counter(listed(one, ""))
    finally:
        other.remove()


def test_one_cluster_that_is_away_costs_its_own_devices_alone(
    hosts: tuple[Host, Host], both: tuple[Cluster, Cluster]
) -> None:
    here, away = (pair(of_shard(number, "away")[0], "job") for number in (0, 1))
    both[1].nodes[0].signal(signal.SIGSTOP)
    try:
        assert hosts[0].request("PATCH", here, {"more": 1}).status == 200
        with Stream(hosts[0], f"{here}/events") as stream:
            hosts[1].request("PATCH", here, {"more": 2})
            assert essence(stream.next())[2] == {"more": 2}
        with ThreadPoolExecutor() as at_once:
            asked = (away, "/v1/buckets", "/v1/status")
            *refused, status = at_once.map(lambda path: hosts[0].request("GET", path), asked)
        for answer in refused:
            assert (answer.status, answer.json["code"]) == (503, "overloaded")
        said = status.json
        assert said["store"]["problem"].startswith("shard west: ")
        assert [said["store"]["shards"][name]["healthy"] for name in NAMES] == [True, False]
        assert "buckets" not in said["counts"]
    finally:
        both[1].nodes[0].signal(signal.SIGCONT)
    assert hosts[0].request("GET", away).status == 200


def test_a_host_that_is_set_up_otherwise_is_refused(
    hosts: tuple[Host, Host], both: tuple[Cluster, Cluster]
) -> None:
    """It would find empty buckets, and write what nobody else sees."""
    alone = both[0].host()
    wrong = [on(both, NAMES[::-1]), on(both, ("east", "south")), alone]
    for host in wrong:
        try:
            host.start()
            for method, body in (("GET", None), ("PATCH", {"a": 1})):
                answer = host.request(method, pair(DEVICES[0], "job"), body)
                assert (answer.status, answer.json["code"]) == (500, "internal"), answer
                assert "[store.etcd] shards as on the other hosts" in answer.json["error"]
            assert not host.request("GET", "/v1/status").json["store"]["healthy"]
        finally:
            host.remove()


def test_buckets_of_a_single_cluster_are_not_taken_for_shards(
    both: tuple[Cluster, Cluster],
) -> None:
    alone = both[0].host(BUCKETD_STORE_ETCD_PREFIX="/single/").start()
    host = on(both, BUCKETD_STORE_ETCD_PREFIX="/single/")
    try:
        alone.request("PUT", pair(of_shard(0, "phone")[0], "job"), {"n": 1})
        answer = host.start().request("GET", pair(of_shard(0, "phone")[0], "job"))
        assert (answer.status, answer.json["code"]) == (500, "internal"), answer
        assert "belong to a store without shards" in answer.json["error"]
    finally:
        alone.remove()
        host.remove()


def test_a_shard_more_draws_only_what_will_be_its_own() -> None:
    names = ("a", "b", "c")
    before = {f"device {n}": shard_of(names, f"device {n}") for n in range(3000)}
    after = {device: shard_of((*names, "d"), device) for device in before}
    moved = [device for device in before if after[device] != before[device]]
    assert all(after[device] == 3 for device in moved)
    assert all(600 < count < 900 for count in Counter(after.values()).values())
