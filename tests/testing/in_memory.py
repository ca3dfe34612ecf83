"""The server for tests, in the place of a daemon of the harness."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bucketd_client.testing import Server
from harness import Daemon


@dataclass
class InMemory(Daemon):
    """It has no files, and no process: to kill it is to stop it."""

    server: Server = field(default_factory=Server)

    @property
    def socket(self) -> str:
        return self.server.socket

    def files(self) -> dict[str, bytes]:
        return {}

    def start(self, *_: str, env: dict[str, str] | None = None) -> Daemon:
        self.server.start()
        return self

    def stop(self, timeout: float = 15.0) -> int:
        self.server.stop()
        return 0

    def kill(self) -> None:
        self.server.stop()


@contextlib.contextmanager
def in_memory() -> Iterator[InMemory]:
    with tempfile.TemporaryDirectory() as home, Server() as server:
        yield InMemory(Path(home), server=server)
