"""Concurrent clients, a daemon that is killed under them: is there an order that explains it?"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from harness import REPO, Daemon, pair
from history_worker import note
from linearizability import Operation, linearizable

WORKERS = 4
OPERATIONS = 30  # of each worker in each history
KILLS = 2  # in each history
SCRIPT = str(REPO / "tests/support/history_worker.py")
Logs = dict[str, list[dict[str, Any]]]


@dataclass
class Figures:
    histories: int = 0
    operations: int = 0
    unknown: int = 0
    refused: int = 0
    takes: int = 0
    lost: int = 0
    kills: int = 0
    violations: int = 0


class Worker:
    """A client process; ``begin`` and ``finish`` one history at a time."""

    def __init__(self, daemon: Daemon) -> None:
        command = [sys.executable, SCRIPT, str(daemon.home)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def finish(self) -> Logs:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@contextmanager
def working(daemon: Daemon) -> Iterator[Worker]:
    worker = Worker(daemon)
    with worker.process:
        try:
            yield worker
        finally:
            worker.process.kill()


def paths_of(number: int) -> list[str]:
    """One to three buckets that no other history has; device buckets are among them."""
    device = f"phone {number}"
    return [pair(device, "login"), pair(device), pair(device, "a/b")][: 1 + number % 3]


def one_history(
    daemon: Daemon, workers: list[Worker], number: int, dice: random.Random, holds: float = 0.0
) -> Logs:
    """All workers at once, the daemon killed and started under them; then what is left is read."""
    paths = paths_of(number)
    for worker in workers:
        seed = dice.randrange(1 << 30)
        worker.begin(paths=paths, count=OPERATIONS, seed=seed, holds=holds)
    for _ in range(KILLS):
        time.sleep(dice.random() * 0.06)
        daemon.kill()
        daemon.start()
    logs: Logs = {path: [] for path in paths}
    for worker in workers:
        for path, records in worker.finish().items():
            logs[path] += records
    for path in paths:
        last: dict[str, Any] = {"kind": "get", "invoked": time.monotonic_ns()}
        note(last, daemon.request("GET", path))
        logs[path].append(last)
    return logs


def judge(logs: Logs, figures: Figures) -> None:
    figures.histories += len(logs)
    for path, records in logs.items():
        history = [Operation.of(record) for record in records]
        figures.operations += len(history)
        figures.unknown += sum(operation.answered is None for operation in history)
        figures.refused += sum(operation.status == 412 for operation in history)
        figures.lost += sum(operation.code == "hold_lost" for operation in history)
        figures.takes += sum(operation.kind == "take" for operation in history)
        if not linearizable(history):
            figures.violations += 1
            print(path, *sorted(history, key=lambda operation: operation.invoked), sep="\n  ")


@pytest.mark.timeout(7200)
def test_histories_with_kills_are_linearizable(stopped_daemon: Daemon, crash_scale: float) -> None:
    daemon, dice, figures = stopped_daemon.start(), random.Random(5), Figures()
    began = time.monotonic()
    with ExitStack() as stack:
        workers = [stack.enter_context(working(daemon)) for _ in range(WORKERS)]
        for number in range(max(4, int(250 * crash_scale))):
            judge(one_history(daemon, workers, number, dice), figures)
            figures.kills += KILLS
    print(
        f"linearizability: {figures.histories} histories, {figures.operations} operations "
        f"({figures.unknown} without an answer, {figures.refused} refused swaps), "
        f"{figures.kills} kills, {figures.violations} violations, "
        f"{time.monotonic() - began:.1f} s"
    )
    assert figures.violations == 0
    # A proof about nothing would pass as well.
    assert figures.unknown > 0
    assert figures.refused > 0


@pytest.mark.timeout(7200)
def test_histories_with_holds_are_linearizable(stopped_daemon: Daemon, crash_scale: float) -> None:
    daemon, dice, figures = stopped_daemon.start(), random.Random(11), Figures()
    began = time.monotonic()
    with ExitStack() as stack:
        workers = [stack.enter_context(working(daemon)) for _ in range(WORKERS)]
        for number in range(max(4, int(250 * crash_scale))):
            judge(one_history(daemon, workers, number, dice, holds=0.25), figures)
            figures.kills += KILLS
    print(
        f"linearizability with fences: {figures.histories} histories, {figures.operations} "
        f"operations ({figures.takes} takes, {figures.lost} refused fences, {figures.unknown} "
        f"without an answer), {figures.kills} kills, {figures.violations} violations, "
        f"{time.monotonic() - began:.1f} s"
    )
    assert figures.violations == 0
    assert figures.takes > 0
    assert figures.lost > 0


# --- the checker itself, by histories made by hand


def told(
    at: tuple[int, int], kind: str, value: int | None, revision: int, **more: Any
) -> Operation:
    """An operation that was answered; ``value`` is that of the bucket's one key."""
    shown = {} if value is None else {"n": value}
    etag = f"tag {revision}" if revision else None
    data = shown if kind in ("set", "replace", "swap") else {}
    answer = {"data": data, "bucket": shown, "revision": revision, "etag": etag, **more}
    return Operation(kind, *at, **answer)


def untold(at: int, kind: str, value: int) -> Operation:
    """A write whose connection broke."""
    return Operation(kind, at, data={"n": value})


def hold(at: tuple[int, int | None], kind: str, fence: str) -> Operation:
    """A take or a release; without an answer a holder that went away."""
    return Operation(kind, *at, fence=fence)


def lost(at: tuple[int, int], fence: str) -> Operation:
    """A write that was refused, since its hold has ended."""
    return Operation("set", *at, data={"n": 9}, fence=fence, status=412, code="hold_lost")


FIRST = told((0, 1), "set", 1, 1)
SECOND = told((2, 3), "set", 2, 2)
# Answered only at 9, so that all others below are under way at the same time.
SLOW = told((2, 9), "set", 2, 2)
OPEN = untold(2, "set", 2)
READ_1, READ_2 = told((4, 5), "get", 1, 1), told((4, 5), "get", 2, 2)
READ_1_LATER, READ_2_LATER = told((6, 7), "get", 1, 1), told((6, 7), "get", 2, 2)
SWAP = told((2, 5), "swap", 2, 2, guard="tag 1")
SWAP_TOO = told((2, 5), "swap", 3, 2, guard="tag 1", etag="other")
REFUSED = told((2, 3), "swap", None, 1, guard="tag 1", data={"n": 2}, status=412)
REFUSED_BY_2 = told((4, 5), "swap", None, 2, guard="tag 1", data={"n": 3}, status=412)
CLEARED = told((4, 5), "clear", None, 0)

TAKE_A, TAKE_B = hold((0, 1), "take", "a"), hold((4, 5), "take", "b")
ENDED_A, GONE_A = hold((2, 3), "release", "a"), hold((2, None), "release", "a")

POSSIBLE = {
    "a write with the fence of the holder": [TAKE_A, told((2, 3), "set", 1, 1, fence="a")],
    "a write without a fence beside it": [TAKE_A, told((2, 3), "set", 1, 1)],
    "an old fence refused": [TAKE_A, ENDED_A, TAKE_B, lost((6, 7), "a")],
    "a holder gone, and its last write before the next take": [
        *(TAKE_A, GONE_A, told((2, 9), "set", 1, 1, fence="a"), TAKE_B),
        told((6, 7), "set", 2, 2, fence="b"),
    ],
    "a holder gone, and its last write never applied": [
        *(TAKE_A, GONE_A, TAKE_B, replace(untold(2, "set", 1), fence="a")),
        told((6, 7), "set", 2, 1, fence="b"),
    ],
    "one after another": [FIRST, SECOND, READ_2],
    "a read beside a slow write, before and after it": [FIRST, SLOW, READ_1, READ_2_LATER],
    "a write without an answer happens late": [FIRST, OPEN, READ_1, READ_2_LATER],
    "a write without an answer never happens": [FIRST, OPEN, READ_1_LATER],
    "a swap by an ETag that was only read": [
        *(FIRST, OPEN, READ_2, told((6, 7), "swap", 3, 3, guard="tag 2")),
    ],
    "a write without an answer makes a guard fail": [FIRST, OPEN, REFUSED_BY_2],
}
IMPOSSIBLE = {
    "two holders at a time": [TAKE_A, TAKE_B],
    "an old fence accepted": [
        *(TAKE_A, ENDED_A, TAKE_B, told((6, 7), "set", 1, 1, fence="a")),
    ],
    "a fence accepted after its release": [
        *(TAKE_A, ENDED_A, told((6, 7), "set", 1, 1, fence="a")),
    ],
    "the fence of the holder refused": [TAKE_A, lost((2, 3), "a")],
    "a late write between those of the next holder": [
        *(TAKE_A, GONE_A, TAKE_B, told((6, 7), "set", 2, 1, fence="b")),
        *(replace(untold(2, "set", 1), fence="a"), told((8, 9), "get", 1, 2)),
    ],
    "lost update, both were the first": [FIRST, told((0, 1), "set", 2, 1, etag="other")],
    "lost update, two swaps by one ETag": [FIRST, SWAP, SWAP_TOO],
    "stale read": [FIRST, SECOND, READ_1],
    "a read going back beside a slow write": [FIRST, SLOW, READ_2, READ_1_LATER],
    "an acknowledged write lost after a kill": [FIRST, SECOND, untold(4, "set", 3), READ_1_LATER],
    "a write without an answer seen, then gone": [FIRST, OPEN, READ_2, READ_1_LATER],
    "a write seen before it was asked for": [
        *(FIRST, told((2, 3), "get", 2, 2), untold(4, "set", 2)),
    ],
    "a good guard refused": [FIRST, REFUSED],
    "a stale guard accepted": [FIRST, SECOND, told((4, 5), "swap", 3, 3, guard="tag 1")],
    "a refusal tells an older revision": [FIRST, SECOND, replace(REFUSED_BY_2, revision=1)],
    "a revision left out": [FIRST, told((2, 3), "set", 2, 3)],
    "a revision for no change": [FIRST, told((2, 3), "set", 1, 2)],
    "an ETag comes back": [FIRST, CLEARED, told((6, 7), "set", 1, 1)],
    "a key survives a replace": [
        FIRST,
        told((2, 3), "replace", 1, 2, data={"m": 1}, bucket={"n": 1, "m": 1}),
    ],
}


@pytest.mark.parametrize("name", [*POSSIBLE, *IMPOSSIBLE])
def test_the_checker_tells_possible_from_impossible(name: str) -> None:
    assert linearizable({**POSSIBLE, **IMPOSSIBLE}[name]) is (name in POSSIBLE)
