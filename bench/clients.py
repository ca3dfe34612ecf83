"""The clients where automations are: TypeScript and asyncio, beside those of Redis.

Each contestant is a process that measures itself, so that no peer shares another's event loop.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import peers
from .inprocess import Missing, module
from .peers import Bucketd
from .places import apart
from .report import Report, micro, per_second
from .works import Scale

NODE = Path(__file__).parent / "node"
ROUNDS = 5


class Goals(NamedTuple):
    """For each peer: the most of its p50 that a get and a set may take, and the least of its rate
    that gets and sets, 32 at a time, have to reach."""

    get: float | None
    set: float | None
    gets: float | None
    sets: float | None


def typescript(daemon: Bucketd, home: Path, report: Report, scale: Scale) -> None:
    """Measure the TypeScript client beside ioredis and node-redis."""
    goals = {"ioredis": Goals(2.5, 1.2, 0.5, 0.4), "node-redis": Goals(1.0, None, None, None)}
    if shutil.which("node") is None or not (NODE / "node_modules").is_dir():
        report.note("ioredis and node-redis are not installed (npm ci in bench/node)")
        return
    words = ["node", str(NODE / "contestant.mjs")]
    _beside(daemon, home, report, scale, "TypeScript", words, goals)


def asyncio(daemon: Bucketd, home: Path, report: Report, scale: Scale) -> None:
    """Measure AsyncBucket beside redis.asyncio."""
    try:
        module("redis.asyncio", "redis")
    except Missing as cause:
        report.note(f"redis.asyncio is not installed ({cause})")
        return
    words = [sys.executable, "-m", "bench.contestant"]
    _beside(daemon, home, report, scale, "asyncio", words, {"redis": Goals(1.0, 1.0, 0.8, 0.8)})


def _beside(
    daemon: Bucketd,
    home: Path,
    report: Report,
    scale: Scale,
    language: str,
    words: list[str],
    goals: dict[str, Goals],
) -> None:
    with peers.available(peers.redis(home), report.note, "redis") as redis:
        if redis is None:
            return
        sockets = {"bucketd": daemon.socket} | dict.fromkeys(goals, str(home / "redis.sock"))
        for operation in ("get", "set"):
            for is_pinned in (True, False):
                with _placed(is_pinned, list(sockets.values())):
                    found = _rounds(words, sockets, operation, 1, scale(2000))
                where = "a core each" if is_pinned else "as placed"
                work = f"{language} {operation} 1 KiB, {where}, p50"
                for peer, goal in goals.items():
                    ours, theirs = found["bucketd"].p50, found[peer].p50
                    shown = (micro(ours), f"{peer} in {language}", micro(theirs))
                    report.add(work, *shown, ours / theirs, "<=", getattr(goal, operation))
            found = _rounds(words, sockets, operation, 32, scale(20000))
            work = f"{language} {operation}s 1 KiB, 32 at a time"
            for peer, goal in goals.items():
                ours, theirs = found["bucketd"].rate, found[peer].rate
                shown = (per_second(ours), f"{peer} in {language}", per_second(theirs))
                report.add(work, *shown, ours / theirs, ">=", getattr(goal, f"{operation}s"))


class _Figures(NamedTuple):
    p50: float
    rate: float


@contextlib.contextmanager
def _placed(is_pinned: bool, sockets: list[str]) -> Iterator[None]:
    with apart(*sockets) if is_pinned else contextlib.nullcontext():
        yield


def _rounds(
    words: list[str], sockets: dict[str, str], operation: str, concurrency: int, count: int
) -> dict[str, _Figures]:
    """Run each contestant in turn, and return the median of its rounds."""
    told: dict[str, list[_Figures]] = {name: [] for name in sockets}
    for _ in range(ROUNDS):
        for name, socket in sockets.items():
            more = [name, socket, operation, str(concurrency), str(count)]
            text = subprocess.run([*words, *more], stdout=subprocess.PIPE, text=True, check=True)
            figures = json.loads(text.stdout)
            told[name].append(_Figures(figures["p50"] / 1e6, figures["per_second"]))
    return {
        name: _Figures(*map(statistics.median, zip(*rounds, strict=True)))
        for name, rounds in told.items()
    }
