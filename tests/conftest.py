"""Fixtures: daemons that are really started, each in a directory of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Daemon, new_daemon

for number in (signal.SIGINT, signal.SIGHUP):
    # Ignored by nohup, or a shell's "&": whoever is started inherits that, but no handler.
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)  # set in many containers, and hides what others would meet


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
