"""The daemon's own tests, run against the server for tests: both are one contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from in_memory import InMemory, in_memory


@pytest.fixture
def daemon() -> Iterator[InMemory]:
    with in_memory() as server:
        yield server


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[InMemory]:
    with in_memory() as server:
        yield server
