"""Daemons that live behind mounts of their own, or under another user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import REPO, Daemon, new_daemon
from mounts import Mounts, exec_through, hold_mounts

NOBODY = 65534


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    """A mount namespace of this test; skips where this machine does not allow one."""
    with hold_mounts() as held:
        if held is None:
            pytest.skip("mount namespaces need root and util-linux")
        yield held


@pytest.fixture
def confined_daemon(mounts: Mounts) -> Iterator[Daemon]:
    """A daemon, not started yet, that sees the mounts of ``mounts``."""
    daemon = new_daemon(program=mounts.program)
    daemon.state_dir.mkdir(mode=0o700)
    try:
        yield daemon
    finally:
        daemon.remove()


@pytest.fixture
def nobodys_daemon() -> Iterator[Daemon]:
    """A daemon, not started yet, that will run as an ordinary user."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if os.geteuid() != 0:
        pytest.skip("only root can start a daemon as another user")
    version = [*become, sys.executable, "-m", "bucketd", "--version"]
    if subprocess.run(version, cwd=REPO, capture_output=True).returncode != 0:
        pytest.skip("an ordinary user cannot run this Python or this checkout")
    daemon = new_daemon(program=exec_through(become))
    daemon.env["HOME"] = str(daemon.home)
    os.chown(daemon.home, NOBODY, NOBODY)
    try:
        yield daemon
    finally:
        daemon.remove()
