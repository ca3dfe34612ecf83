"""The daemon of this checkout beside that of another one, such as the state before a change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .load import Request, over_connections
from .peers import Bucketd, answers, process
from .places import apart
from .report import Report, micro, per_second
from .timing import Samples, alternate
from .works import ROUNDS, SIZES, Scale, text_of

CONNECTIONS = (16, 64)
GOAL = 0.98  # of the speed before


class OtherBucketd(Bucketd):
    """The daemon of another checkout, in the environment that is prepared there."""

    def __init__(self, home: Path, checkout: Path) -> None:
        super().__init__(home)
        self.checkout = checkout

    @contextlib.contextmanager
    def running(self, *more: str) -> Iterator[object]:
        words = [str(self.checkout / ".venv/bin/python"), "-m", "bucketd"]
        words += ["--state-dir", str(self.state), "--runtime-dir", str(self.home / "run")]
        words += ["--log-level", "warning", *more]
        # The directory makes that daemon import the package of its own checkout.
        words = ["env", "-C", str(self.checkout), *words]
        with process(words, answers(self.socket), self.home / "bucketd.log") as server:
            yield server


def compare(checkout: Path, home: Path, report: Report, scale: Scale) -> None:
    """Add the rows of both: single gets and sets, and many connections at once."""
    ours, before = Bucketd(home / "now"), OtherBucketd(home / "before", checkout)
    for daemon in (ours, before):
        os.mkdir(daemon.home)
    with ours.running(), before.running():
        both = {"bucketd": ours, "before": before}
        for size in SIZES:
            for daemon in both.values():
                daemon.client("one").replace({"pad": "x" * (size - 10)})
            _add(report, f"get {size} B, one client", both, _get, 1, scale(400))
        for size in SIZES:
            _add(report, f"set {size} B, one client", both, _set(size), 1, scale(150))
        for count in CONNECTIONS:
            _add(report, f"get 16 KiB, {count} connections", both, _get, count, scale(4000))
            _add(report, f"set 1 KiB, {count} connections", both, _set(1024), count, scale(2000))


def _add(
    report: Report, work: str, both: dict[str, Bucketd], request: Request, count: int, total: int
) -> None:
    runs = {n: over_connections(d.connect, request, count, total) for n, d in both.items()}
    if count == 1:
        with apart(*(daemon.socket for daemon in both.values())):
            found = alternate(runs, 2 * ROUNDS)
    else:
        found = alternate(runs, ROUNDS)
    now, before = found["bucketd"], found["before"]
    ratio = before.p50 / now.p50 if count == 1 else now.rate / before.rate
    report.add(work, _shown(now), "before", _shown(before), ratio, ">=", GOAL)


def _shown(samples: Samples) -> str:
    return f"{per_second(samples.rate)} (p50 {micro(samples.p50)})"


def _get(_connection: int, _number: int) -> bytes:
    return Bucketd.get("one")


def _set(size: int) -> Request:
    return lambda index, number: Bucketd.patch(f"set-{index}", text_of(size, number))
