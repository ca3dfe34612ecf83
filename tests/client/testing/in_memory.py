"""A server for tests, in the place of a daemon of the harness.

It is the one in Python, or of any language: TESTING_SERVER is a command that prints the path of
its socket, and does each line that it is then given, ``start`` or ``stop``, and prints it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bucketd_client.testing import Server
from harness import Daemon


@dataclass
class InMemory(Daemon):
    """It has no files, and no process: to kill it is to stop it."""

    server: Any = None

    @property
    def socket(self) -> str:
        return str(self.server.socket)

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


class Elsewhere:
    """A server that another program runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.socket = self._line()

    def start(self) -> None:
        self._do("start")

    def stop(self) -> None:
        self._do("stop")

    def _do(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert self._line() == what

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


@contextlib.contextmanager
def serving() -> Iterator[Any]:
    command = os.environ.get("TESTING_SERVER")
    if command is None:
        with Server(in_memory=True) as server:
            yield server
        return
    with subprocess.Popen(
        shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Elsewhere(process)


@contextlib.contextmanager
def in_memory() -> Iterator[InMemory]:
    with tempfile.TemporaryDirectory() as home, serving() as server:
        yield InMemory(Path(home), server=server)
