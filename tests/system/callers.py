"""Callers in the machine, who go on while something is done to the service."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness import REPO
from machine import Machine


@contextlib.contextmanager
def calls(machine: Machine, python: str, callers: int = 4) -> Iterator[list[int]]:
    """Callers that write all the time, and shell commands; at the end, that none has failed.

    Gives the acknowledged writes of each caller, once the block has ended.
    """
    machine.run("rm -f /tmp/stop")
    running = [caller(machine, python, n, 30) for n in range(callers)]
    shell = "while [ ! -e /tmp/stop ]; do bucketctl set --device load --job sh a=b || echo failed; "
    running.append(machine.start(f"{shell} done | grep -v '\"a\"'; true"))
    acknowledged: list[int] = []
    try:
        time.sleep(1)
        yield acknowledged
        time.sleep(1)
    finally:
        machine.run("touch /tmp/stop")
        said = [process.communicate(timeout=60)[0].split("\n", 1) for process in running]
    assert [rest.strip() for _, rest in said[:-1]] == [""] * callers
    assert said[-1] == [""]
    acknowledged += [int(first) for first, _ in said[:-1]]
    assert min(acknowledged) > 0


def caller(machine: Machine, python: str, job: int, seconds: int) -> subprocess.Popen[str]:
    program = Path("/src", Path(__file__).with_name("caller.py").relative_to(REPO))
    return machine.start(f"{python} {program} {job} /tmp/stop {seconds}")


def assert_all_there(machine: Machine, acknowledged: list[int]) -> None:
    for n, count in enumerate(acknowledged):
        got = machine.run(f"bucketctl get --device load --job {n} n").stdout
        assert int(got) == count
