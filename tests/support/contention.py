"""Many processes that want one hold, some of them killed: whose writes are in the bucket, in order?

Each write appends its fence to a list in the bucket. So the bucket itself is the history of all
writes; if no two held at a time, and no late write was applied, each fence is there in one piece.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import REPO, Daemon, pair
from holders import hold_path

CONTENDER = str(REPO / "tests/support/contender.py")
DEVICE, JOB = "phone", "login"
HOLD, BUCKET = hold_path(DEVICE, JOB), pair(DEVICE, JOB)


@dataclass
class Contention:
    """Processes on ``daemons``, in turn; their logs are in ``logs``."""

    daemons: list[Daemon]
    logs: Path
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: dict[int, float] = field(default_factory=dict)
    # When a daemon was down, or a fault was under way: no hand-over counts then.
    disturbed: list[tuple[float, float]] = field(default_factory=list)

    def begin(self, count: int) -> None:
        assert self.daemons[0].request("PUT", BUCKET, {"log": []}).status == 200
        for number in range(count):
            self.spawn(number)

    def spawn(self, number: int) -> None:
        home = str(self.daemons[number % len(self.daemons)].home)
        log = str(self.logs / f"{number}-{time.monotonic_ns()}")
        command = [sys.executable, CONTENDER, home, HOLD, BUCKET, log]
        process = subprocess.Popen(command)
        self.processes[process.pid] = process
        process.number = number  # type: ignore[attr-defined]

    def kill_holder(self) -> None:
        """Kill whoever holds now, and start another process in its place."""
        with contextlib.suppress(OSError):
            rows = self.daemons[0].request("GET", "/v1/holds").json.get("holds", ())
            for process in [self.processes.get(row["by"]["pid"]) for row in rows]:
                if process is not None:
                    self.killed[process.pid] = time.monotonic()
                    process.kill()
                    process.wait(10)
                    del self.processes[process.pid]
                    self.spawn(process.number)  # type: ignore[attr-defined]

    def disturb(self, fault: Callable[[], None], seconds: float) -> None:
        """Let something fail; hand-overs count again so many seconds after that."""
        began = time.monotonic()
        fault()
        self.disturbed.append((began, time.monotonic() + seconds))

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(10)

    def records(self) -> list[dict[str, Any]]:
        found = []
        for path in self.logs.iterdir():
            for line in path.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return sorted(found, key=lambda record: record["at"])

    def takes(self) -> int:
        return sum(record["what"] == "take" for record in self.records())

    def run_until(
        self, rounds: int, dice: random.Random, fail: Callable[[int], None], least: int = 0
    ) -> None:
        """Run until the hold was had so often; call ``fail`` now and then with a number.

        The last number is over ``least``.
        """
        deadline = time.monotonic() + 60 + rounds
        for number in itertools.count():
            time.sleep(dice.uniform(0.1, 0.5))
            if self.takes() >= rounds and number > least:
                return
            fail(number)
            assert time.monotonic() < deadline, f"only {self.takes()} of {rounds} rounds"

    # --- what the logs and the bucket say

    def history(self) -> list[str]:
        """Return the fences of all writes in the bucket, in their order."""
        found: list[str] = self.daemons[0].request("GET", BUCKET).bucket["log"]
        return found

    def interleaved(self) -> list[str]:
        """Return the fences whose writes are not in one piece."""
        pieces = [fence for fence, _ in itertools.groupby(self.history())]
        return sorted({fence for fence in pieces if pieces.count(fence) > 1})

    def missing(self) -> int:
        """Return how many acknowledged writes are not in the bucket."""
        acknowledged = [record["fence"] for record in self.records() if record.get("status") == 200]
        history = self.history()
        return sum(
            max(0, acknowledged.count(fence) - history.count(fence)) for fence in set(acknowledged)
        )

    def late_writes(self) -> tuple[int, int]:
        """Return how many late writes there were, and how many of them were applied.

        One may be: in the grace after a restart, while nobody else holds.
        """
        late = [r["status"] for r in self.records() if r["what"] == "late"]
        return len(late), late.count(200)

    def waits(self) -> list[float]:
        """Return the seconds from each release, or kill, to the next take, the shortest first."""
        records = self.records()
        ended = {r["fence"]: r["at"] for r in records if r["what"] == "release"}
        takes = [r for r in records if r["what"] == "take"]
        found = []
        for one, next_one in itertools.pairwise(takes):
            since = ended.get(one["fence"]) or self.killed.get(one["pid"])
            if since is not None and not self._is_disturbed(since, next_one["at"]):
                found.append(next_one["at"] - since)
        return sorted(found)

    def _is_disturbed(self, begin: float, end: float) -> bool:
        return any(begin < until and since < end for since, until in self.disturbed)

    def figures(self) -> str:
        waits, (late, wrong) = self.waits(), self.late_writes()
        ms = [1000 * wait for wait in waits]
        p99 = ms[int(len(ms) * 0.99)] if ms else 0.0
        return (
            f"{self.takes()} takes by {len(self.processes)} processes, {len(self.killed)} holders "
            f"killed, {len(self.disturbed)} faults, {len(self.history())} writes, "
            f"{len(self.interleaved())} fences interleaved, {self.missing()} acknowledged writes "
            f"missing, {late} late writes ({wrong} applied); {len(ms)} hand-overs: median "
            f"{statistics.median(ms) if ms else 0:.1f} ms, p99 {p99:.1f} ms, "
            f"longest {ms[-1] if ms else 0:.1f} ms"
        )

    def check(self) -> None:
        """Check what must hold however busy the machine is."""
        assert self.interleaved() == []
        assert self.missing() == 0
