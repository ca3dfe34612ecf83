"""Fixtures: daemons that are really started, each in a directory of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from harness import Daemon, new_daemon
from hypothesis import HealthCheck, settings
from mounts import Mounts, hold_mounts
from other_user import daemon_as

NOBODY = 65534
for number in (signal.SIGINT, signal.SIGHUP):
    # Ignored by nohup, or a shell's "&": whoever is started inherits that, but no handler.
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)  # set in many containers, and hides what others would meet
# The time of an example depends on the other work of the machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon of this test alone, started."""
    daemon = new_daemon()
    try:
        yield daemon.start()
    finally:
        daemon.remove()


@pytest.fixture
def stopped_daemon() -> Iterator[Daemon]:
    """A daemon of this test alone, to be started by it."""
    daemon = new_daemon()
    try:
        yield daemon
    finally:
        daemon.remove()


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """One daemon for the tests of a module, which use names of their own."""
    daemon = new_daemon()
    try:
        yield daemon.start()
    finally:
        daemon.remove()


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
    if os.geteuid() != 0:
        pytest.skip("only root can start a daemon as another user")
    program = daemon_as(NOBODY, NOBODY)
    if program is None:
        pytest.skip("an ordinary user can run no Python of this version here")
    daemon = new_daemon(program=program)
    daemon.env["HOME"] = str(daemon.home)
    os.chown(daemon.home, NOBODY, NOBODY)
    try:
        yield daemon
    finally:
        daemon.remove()
