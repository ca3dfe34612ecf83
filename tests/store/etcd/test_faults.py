"""Three etcd nodes, two hosts under load: what each fault costs, and what it may not."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet import Authority, Cluster, Node, cluster
from fleet_load import Figures, hosts_of, load
from harness import Daemon, pair

TIMEOUT = 2.5
# Above the time limit: what a request waits for a processor on a machine with other work.
SLACK = 2.0
pytestmark = pytest.mark.timeout(7200)


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with cluster(3) as found:
        yield found


@pytest.fixture(scope="module")
def hosts(three: Cluster) -> Iterator[list[Daemon]]:
    with hosts_of(three, TIMEOUT) as found:
        yield found


@pytest.fixture
def rounds(fault_scale: float) -> int:
    return max(1, int(20 * fault_scale))


def told(figures: Figures) -> None:
    """Nothing acknowledged is lost, nothing wrong was said, and in time."""
    print(figures)
    assert (figures.lost, figures.wrong) == (0, 0), figures.notes
    assert figures.acknowledged > 0
    assert figures.longest < TIMEOUT + SLACK


@contextmanager
def stopped(*nodes: Node) -> Iterator[None]:
    """As if the network to these led nowhere: who is connected gets no answer."""
    for node in nodes:
        node.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for node in nodes:
            node.signal(signal.SIGCONT)


def test_a_killed_leader(three: Cluster, hosts: list[Daemon], rounds: int) -> None:
    figures = Figures("leader killed")
    for _ in range(rounds):
        with load(hosts, figures) as writers:
            writers.acknowledged(5)
            leader = three.leader()
            leader.kill()
            writers.acknowledged(20)
            leader.start()
            three.wait()
            writers.acknowledged(5)
    told(figures)


def test_a_lost_majority(three: Cluster, hosts: list[Daemon], rounds: int) -> None:
    figures = Figures("majority killed")
    for number in range(rounds):
        with load(hosts, figures) as writers:
            writers.acknowledged(5)
            gone = [three.nodes[number % 3], three.nodes[(number + 1) % 3]]
            for node in gone:
                node.kill()
            refused_clearly(hosts[0])
            writers.refused(1)
            for node in gone:
                node.start()
            three.wait()
            writers.acknowledged(10)
    told(figures)
    assert figures.refused > 0


def refused_clearly(host: Daemon) -> None:
    with ThreadPoolExecutor() as both:
        path = pair("refused", "j")
        read = both.submit(host.request, "GET", path)
        written = both.submit(host.request, "PATCH", path, {"a": 1})
    for answer in (read.result(), written.result()):
        assert (answer.status, answer.json["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"]
        assert "etcd" in answer.json["error"]
    store = host.request("GET", "/v1/status").json["store"]
    assert not store["healthy"]
    assert "majority" in store["problem"]


def test_a_partition_that_cuts_the_leader_off(
    three: Cluster, hosts: list[Daemon], rounds: int
) -> None:
    """It still thinks that it leads when it comes back; nobody may hear old news from it."""
    figures = Figures("leader cut off")
    for _ in range(rounds):
        with load(hosts, figures) as writers:
            writers.acknowledged(5)
            with stopped(three.leader()):
                writers.acknowledged(20)
            writers.acknowledged(10)
        three.wait()
    told(figures)


def test_a_slow_node(three: Cluster, hosts: list[Daemon], rounds: int) -> None:
    """It runs a tenth of the time, and a host asks it first."""
    figures = Figures("one slow node")
    slow = next(node for node in three.nodes[:2] if node is not three.leader())
    for _ in range(rounds):
        with load(hosts, figures) as writers:
            for _ in range(8):
                with stopped(slow):
                    time.sleep(0.27)
                time.sleep(0.03)
            writers.acknowledged(5)
    told(figures)


def test_a_user_who_is_shut_out(rounds: int, tmp_path: Path) -> None:
    """Each read and write is refused, and says why; all goes on once the user may again."""
    figures = Figures("user shut out")
    (tmp_path / "password").write_text("farm secret")
    settings = {"PREFIX": "/farm/", "USER": "farm", "PASSWORD_FILE": str(tmp_path / "password")}
    given = {f"BUCKETD_STORE_ETCD_{name}": value for name, value in settings.items()}
    with cluster(3) as guarded:
        authority = Authority(guarded)
        with hosts_of(guarded, TIMEOUT, **given) as hosts:
            for _ in range(rounds):
                with load(hosts, figures) as writers:
                    writers.acknowledged(5)
                    authority.shut_out()
                    writers.refused(3)
                    authority.let_in()
                    writers.acknowledged(5)
    told(figures)
    assert figures.refused > 0


def test_a_cluster_at_its_space_limit(rounds: int) -> None:
    """507 and nothing changed, reads go on; and writes, once there is room again."""
    figures = Figures("space limit")
    with cluster(3, "--quota-backend-bytes", "2000000") as small, hosts_of(small, TIMEOUT) as hosts:
        for _ in range(rounds):
            with load(hosts, figures) as writers:
                writers.acknowledged(5)
                filled = fill(hosts[0])
                writers.refused(2)
                first = hosts[1].request("GET", pair("filler", "0"))
                assert first.bucket["text"] == "x" * 50_000
                make_room(small, hosts[0], filled)
                writers.acknowledged(5)
    told(figures)
    assert figures.refused > 0


def fill(host: Daemon) -> int:
    """The number of large buckets that found room."""
    for number in range(200):
        answer = host.request("PUT", pair("filler", f"{number}"), {"text": "x" * 50_000})
        if answer.status != 200:
            assert (answer.status, answer.json["code"]) == (507, "storage_full")
            return number
    raise AssertionError("etcd has no limit")


def make_room(etcd: Cluster, host: Daemon, filled: int) -> None:
    """What an administrator does: remove, compact, defragment each node, disarm."""
    for number in range(filled):
        assert host.request("DELETE", pair("filler", f"{number}")).status == 200
    first = etcd.nodes[0]
    revision = first.ask("/v3/kv/range", {"key": "YQ=="})["header"]["revision"]
    first.ask("/v3/kv/compaction", {"revision": revision, "physical": True})
    for node in etcd.nodes:
        node.ask("/v3/maintenance/defragment", {})
    for alarm in first.ask("/v3/maintenance/alarm", {"action": "GET"}).get("alarms", ()):
        first.ask("/v3/maintenance/alarm", {**alarm, "action": "DEACTIVATE"})
