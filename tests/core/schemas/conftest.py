"""A daemon with a directory of settings of its own, so that schema files can be put beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Daemon, new_daemon


@pytest.fixture
def schema_files(configured: Daemon) -> Path:
    """Where the operator's schema files go."""
    place = configured.home / "schemas"
    place.mkdir()
    return place


@pytest.fixture
def configured() -> Iterator[Daemon]:
    """A daemon, not started yet, whose settings file is its own."""
    daemon = new_daemon()
    daemon.config.write_text("")
    try:
        yield daemon
    finally:
        daemon.remove()
