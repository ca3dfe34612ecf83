"""Clients of two hosts, and a cluster whose leader fails: is there an order that explains it?

The checker, the clients and the operations are those of ``test_linearizable`` of the file store.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fleet import Cluster, cluster
from fleet_load import hosts_of
from harness import Daemon
from history_worker import note
from linearizability import Operation, linearizable
from test_linearizable import Logs, Worker, paths_of, working

WORKERS = 4
OPERATIONS = 40  # of each worker in each history


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with cluster(3) as found:
        yield found


@pytest.fixture(scope="module")
def hosts(three: Cluster) -> Iterator[list[Daemon]]:
    # So short that some answers come too late, and the outcome is open.
    with hosts_of(three, timeout=1) as found:
        yield found


def fail(three: Cluster, number: int, dice: random.Random) -> None:
    """The leader is killed and started, or hangs, while the clients are at work."""
    time.sleep(dice.random() * 0.3)
    leader = three.leader()
    if number % 2:
        leader.signal(signal.SIGSTOP)
        time.sleep(dice.uniform(0.5, 2.0))
        leader.signal(signal.SIGCONT)
    else:
        leader.kill()
        time.sleep(dice.uniform(0.0, 1.0))
        leader.start()
    three.wait()


def one_history(
    three: Cluster,
    hosts: list[Daemon],
    workers: list[Worker],
    number: int,
    dice: random.Random,
    holds: float,
) -> Logs:
    paths = paths_of(number + (10_000 if holds else 0))
    for worker in workers:
        seed = dice.randrange(1 << 30)
        worker.begin(paths=paths, count=OPERATIONS, seed=seed, holds=holds)
    fail(three, number, dice)
    logs: Logs = {path: [] for path in paths}
    for worker in workers:
        for path, records in worker.finish().items():
            logs[path] += records
    for path in paths:
        last: dict[str, Any] = {"kind": "get", "invoked": time.monotonic_ns()}
        note(last, hosts[number % 2].request("GET", path))
        assert last["status"] == 200
        logs[path].append(last)
    return logs


def operations_of(records: list[dict[str, Any]], figures: Counter[str]) -> list[Operation]:
    """503 says that nothing was changed, so it is none; after 500 the outcome is open."""
    found = []
    for record in records:
        status = record.get("status", 500 if record.get("answered") is None else 200)
        figures[f"with {status}" if status >= 500 else "answered"] += 1
        figures["takes"] += record["kind"] == "take"
        figures["refused fences"] += record.get("code") == "hold_lost"
        if status == 500 and record["kind"] != "get":
            found.append(Operation.of({**record, "answered": None}))
        elif status != 503:
            found.append(Operation.of(record))
    return found


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("holds", [0.0, 0.25])
def test_histories_of_two_hosts_are_linearizable(
    three: Cluster, hosts: list[Daemon], fault_scale: float, holds: float
) -> None:
    dice, figures, wrong = random.Random(7), Counter[str](), 0
    with ExitStack() as stack:
        workers = [stack.enter_context(working(hosts[i % 2])) for i in range(WORKERS)]
        for number in range(max(2, int(100 * fault_scale))):
            for path, records in one_history(three, hosts, workers, number, dice, holds).items():
                history = operations_of(records, figures)
                figures["histories"] += 1
                if not linearizable(history):
                    wrong += 1
                    print(path, *sorted(history, key=lambda op: op.invoked), sep="\n  ")
    told = ", ".join(f"{count} {name}" for name, count in sorted(figures.items()))
    print(f"linearizability of two hosts: {told}, {wrong} violations")
    assert wrong == 0
    # A proof about nothing would pass as well.
    assert figures["with 500"] + figures["with 503"] > 0
    assert bool(figures["takes"]) == bool(holds)
