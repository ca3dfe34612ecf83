"""Peers whose callers are processes: SQLite and diskcache, as automations would share them.

``python -m bench.processes sqlite|diskcache DIRECTORY KEY`` sets the key as often as each line of
its input says, and prints the seconds of each set as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import inprocess
from .load import Run
from .timing import Samples

SETTERS = {"sqlite": inprocess.sqlite, "diskcache": inprocess.diskcache}


@contextmanager
def over_processes(kind: str, home: Path, count: int, total: int) -> Iterator[Run]:
    """Yield a run in which ``count`` processes share ``total`` sets, each of a key of its own."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_worker([sys.executable, "-m", "bench.processes", kind, str(home),
                                         f"p{index}"]))
            for index in range(count)
        ]  # fmt: skip

        def run(samples: Samples) -> None:
            begun = time.perf_counter()
            for worker in workers:
                print(total // count, file=worker.stdin, flush=True)
            for worker in workers:
                samples.seconds += json.loads(worker.stdout.readline())  # type: ignore[union-attr]
            samples.rates.append(total // count * count / (time.perf_counter() - begun))

        yield run


@contextmanager
def _worker(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        yield worker
        # The worker ends with its input.
        worker.stdin.close()  # type: ignore[union-attr]


def _main(kind: str, home: str, key: str) -> None:
    put, number = SETTERS[kind](Path(home)), 0
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            number += 1
            value = json.dumps({"n": number, "pad": "x" * 994}).encode()
            begun = time.perf_counter()
            put(key, value)
            seconds.append(time.perf_counter() - begun)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
