"""System calls of a running daemon that fail because strace says so."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Daemon

# A machine has some of these and not the others, and the C library chooses.
_VARIANTS = {"rename": "?rename,?renameat,?renameat2", "mkdir": "?mkdir,?mkdirat"}


@dataclass(frozen=True)
class Fault:
    """``call`` fails with ``error``: "1" the first time, "2+" from the second on.

    strace counts for each thread. With ``path`` only calls on that file fail.
    """

    call: str
    error: str
    when: str = "1"
    path: Path | None = None

    @property
    def for_ever(self) -> bool:
        return self.when.endswith("+")

    def __str__(self) -> str:
        return f"{self.call}-{self.error}-{self.when}"

    def options(self) -> list[str]:
        calls = _VARIANTS.get(self.call, self.call)
        inject = f"inject={calls}:error={self.error}:when={self.when}"
        only = [] if self.path is None else ["-P", str(self.path)]
        return ["-f", "-e", f"trace={calls}", "-e", inject, *only]


def skip_unless_traceable() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = [*("strace", "-o", "/dev/null", "-e", "trace=none"), "true"]
    done = subprocess.run(probe, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()}")


@contextmanager
def failing(daemon: Daemon, fault: Fault) -> Iterator[Path]:
    """The running daemon with the fault; the log of what strace did."""
    log = daemon.home / "strace"
    command = ["strace", "-p", str(daemon.pid), "-o", str(log), *fault.options()]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_until_traced(daemon.pid)
        yield log
    finally:
        tracer.terminate()  # it lets go of the daemon, which lives on
        tracer.wait(10)


def _wait_until_traced(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not all(_is_traced(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, "strace did not attach"
        time.sleep(0.005)


def _is_traced(task: Path) -> bool:
    return "TracerPid:\t0\n" not in (task / "status").read_text()


def injected(log: Path) -> int:
    """How many calls have failed; strace writes them down one by one."""
    return log.read_text(errors="replace").count("(INJECTED)")
