"""Measure the cost of histories: this daemon beside itself with the history turned off."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .load import Run, over_connections
from .peers import Bucketd, answers, process
from .places import apart
from .report import Report, micro, per_second
from .timing import Samples, alternate
from .works import ROUNDS, SIZES, Scale, text_of

CONNECTIONS = 64
P50_GOAL, RATE_GOAL = 1.05, 1 / 1.1


class WithoutHistory(Bucketd):
    """The daemon of this checkout, with the history turned off."""

    @contextlib.contextmanager
    def running(self, *more: str) -> Iterator[object]:
        words = ["env", "BUCKETD_HISTORY_REVISIONS=0", sys.executable, "-m", "bucketd"]
        words += ["--state-dir", str(self.state), "--runtime-dir", str(self.home / "run")]
        words += ["--log-level", "warning", *more]
        with process(words, answers(self.socket), self.home / "bucketd.log") as server:
            yield server


def history(home: Path, report: Report, scale: Scale) -> None:
    """Measure set with and without a history, by one client and by many."""
    ours, without = Bucketd(home / "kept"), WithoutHistory(home / "off")
    for daemon in (ours, without):
        os.mkdir(daemon.home)
    with ours.running() as one, without.running() as other:
        both = {"bucketd": ours, "off": without}
        pids = {"bucketd": one.pid, "off": other.pid}
        for size in SIZES:
            found, _ = _sets(both, pids, size, 1, scale(150))
            kept, off = found["bucketd"], found["off"]
            work = f"set {size} B, one client, p50"
            ratio = kept.p50 / off.p50
            report.add(work, micro(kept.p50), "no history", micro(off.p50), ratio, "<=", P50_GOAL)
        for size in SIZES[:2]:
            found, written = _sets(both, pids, size, CONNECTIONS, scale(12_000))
            kept, off = found["bucketd"], found["off"]
            work = f"set {size} B, {CONNECTIONS} connections"
            ours_shown, off_shown = per_second(kept.rate), per_second(off.rate)
            ratio = kept.rate / off.rate
            report.add(work, ours_shown, "no history", off_shown, ratio, ">=", RATE_GOAL)
            sets = (ROUNDS + 1) * scale(12_000)
            kept_bytes, off_bytes = (written[name] / sets for name in ("bucketd", "off"))
            work = f"bytes written to the disk for a set of {size} B, {CONNECTIONS} connections"
            ratio = kept_bytes / off_bytes
            report.add(
                work, f"{kept_bytes:.0f} B", "no history", f"{off_bytes:.0f} B", ratio, "<=", None
            )


def _sets(
    both: dict[str, Bucketd], pids: dict[str, int], size: int, connections: int, total: int
) -> tuple[dict[str, Samples], dict[str, int]]:
    """Return the samples of sets by each daemon, and the bytes that each wrote to the disk."""

    def request(index: int, number: int) -> bytes:
        return Bucketd.patch(f"set-{size}-{index}", text_of(size, number))

    runs: dict[str, Run] = {
        name: over_connections(daemon.connect, request, connections, total)
        for name, daemon in both.items()
    }
    begun = {name: _written(pid) for name, pid in pids.items()}
    place = (
        apart(*(d.socket for d in both.values())) if connections == 1 else contextlib.nullcontext()
    )
    with place:
        found = alternate(runs, (2 if connections == 1 else 1) * ROUNDS)
    os.sync()
    return found, {name: _written(pid) - begun[name] for name, pid in pids.items()}


def _written(pid: int) -> int:
    """Return the bytes that a process has made the kernel write to storage."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])
