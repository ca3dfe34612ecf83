"""A start that has files to complete, while system calls fail: it ends with one clear line.

The start after that finds everything that was acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Daemon, new_daemon, pair
from ledger import Ledger, compare
from mounts import exec_through
from tracer import Fault, injected, skip_unless_traceable

# In spite of these it serves; the second lock is that of the directory, which NFS cannot have.
SERVES = [Fault("flock", "EINTR"), Fault("flock", "ENOLCK", "2")]
AT_START = [
    Fault("rename", "ENOSPC"),
    Fault("syncfs", "EIO"),
    Fault("rename", "EIO"),
    Fault("fsync", "EIO"),
    Fault("fsync", "ENOSPC", "2"),
    Fault("mkdir", "ENOSPC"),
    *SERVES,
    Fault("flock", "ENOLCK"),
    Fault("flock", "ENOLCK", "3"),
    Fault("pwrite64", "ENOSPC"),
    Fault("pread64", "EIO", path=Path("journal/0.log")),
    Fault("openat", "EMFILE", "1+", path=Path("devices")),
]


@pytest.fixture
def victim() -> Iterator[Daemon]:
    skip_unless_traceable()
    daemon = new_daemon()
    try:
        yield daemon
    finally:
        daemon.remove()


def leave_work(daemon: Daemon, ledger: Ledger, number: int) -> None:
    """Kill it with an acknowledged bucket that is in the journal alone."""
    for attempt in range(20):
        device = f"new{number}-{attempt}"
        daemon.start()
        ledger.put(daemon, pair(device, "job"), number + 1)
        daemon.kill()
        if not daemon.bucket_path(device, "job").exists():
            return
    raise AssertionError("the files were always quicker than the kill")


def start_with(daemon: Daemon, fault: Fault, log: Path) -> int | None:
    """The exit status; None where it serves."""
    # -D: the daemon stays the child of this process, and the tracer is beside it.
    traced = exec_through(["strace", "-D", "-o", str(log), *fault.options()])
    kept, daemon.program = daemon.program, traced
    try:
        daemon.start()
    except AssertionError:
        assert daemon.process is not None
        return daemon.process.wait(15)
    finally:
        daemon.program = kept
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", AT_START, ids=str)
def test_start(victim: Daemon, fault: Fault, crash_scale: float) -> None:
    if crash_scale < 1 and AT_START.index(fault) >= 2:
        pytest.skip("all of them with CRASH_SCALE=1")
    ledger, log, serves = Ledger(), victim.home / "strace", fault in SERVES
    if fault.path is not None:
        fault = replace(fault, path=victim.state_dir / fault.path)
    leave_work(victim, ledger, 0)
    before = len(victim.log)
    status = start_with(victim, fault, log)
    said = victim.log[before:].strip().splitlines()
    assert injected(log) >= 1
    assert (status is None) == serves, said
    if serves:
        victim.kill()
    else:
        assert status == 1, said
        assert len(said) == 1, said
        assert said[0].startswith("bucketd: cannot "), said
    victim.start()
    compare(victim, ledger)
    assert ledger.wrong == (0, 0, 0)
