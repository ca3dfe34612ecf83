"""Measure the cost of histories: this daemon beside itself with the history turned off."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .load import Run, over_connections
from .peers import Bucketd, answers, process
from .places import apart
from .probes import written
from .report import Report, micro, per_second
from .timing import Samples, alternate
from .works import ROUNDS, SIZES, Scale, text_of

CONNECTIONS = 64
# After so long without a set the daemon has written its files.
SETTLE_SECONDS = 0.5
P50_GOAL, RATE_GOAL = 1.05, 1 / 1.1

Both = dict[str, Bucketd]


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
    with ours.running(), without.running():
        both: Both = {"bucketd": ours, "off": without}
        for size in SIZES:
            with apart(*(d.socket for d in both.values())):
                found = alternate(_sets(both, size, 1, scale(150)), 2 * ROUNDS)
            kept, off = found["bucketd"], found["off"]
            work, ratio = f"set {size} B, one client, p50", kept.p50 / off.p50
            report.add(work, micro(kept.p50), "no history", micro(off.p50), ratio, "<=", P50_GOAL)
        for size in SIZES[:2]:
            total = scale(12_000)
            runs = _sets(both, size, CONNECTIONS, total)
            found = alternate(runs, ROUNDS)
            work = f"set {size} B, {CONNECTIONS} connections"
            ratio = found["bucketd"].rate / found["off"].rate
            kept_shown, off_shown = (per_second(found[name].rate) for name in both)
            report.add(work, kept_shown, "no history", off_shown, ratio, ">=", RATE_GOAL)
            kept_bytes, off_bytes = (_device_bytes(home, runs[name]) / total for name in both)
            if off_bytes:
                work = f"bytes on the disk for a set of {size} B, {CONNECTIONS} connections"
                kept_shown, off_shown = f"{kept_bytes:.0f} B", f"{off_bytes:.0f} B"
                ratio = kept_bytes / off_bytes
                report.add(work, kept_shown, "no history", off_shown, ratio, "<=", None)


def _sets(both: Both, size: int, connections: int, total: int) -> dict[str, Run]:
    """Return a run of sets for each daemon."""

    def request(index: int, number: int) -> bytes:
        return Bucketd.patch(f"set-{size}-{index}", text_of(size, number))

    return {
        name: over_connections(daemon.connect, request, connections, total)
        for name, daemon in both.items()
    }


def _device_bytes(home: Path, run: Run) -> int:
    """Return the bytes that reach the disk for a run, until all files are on it."""
    os.sync()
    before = written(home)
    run(Samples())
    time.sleep(SETTLE_SECONDS)
    os.sync()
    return written(home) - before
