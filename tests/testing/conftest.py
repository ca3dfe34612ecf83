"""The daemon's own tests, run against the server for tests: both are one contract."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))
sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))
sys.path.insert(0, str(Path(__file__).parent))

from in_memory import InMemory, in_memory


@pytest.fixture
def daemon() -> Iterator[InMemory]:
    with in_memory() as server:
        yield server


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[InMemory]:
    with in_memory() as server:
        yield server
