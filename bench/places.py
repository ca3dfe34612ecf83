"""Which core a client and its servers run on."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from .peers import connected


@contextmanager
def apart(*paths: str) -> Iterator[None]:
    """This process on one core, and who serves these unix sockets on another, in the block.

    Left to itself, the kernel puts some of them on the core of their client and others not, which
    more than halves or doubles a round trip, and keeps them there for whole runs.
    """
    cores = sorted(os.sched_getaffinity(0))
    try:
        _place([0], {cores[0]})
        _place(_tasks(paths), {cores[-1]})
        yield
    finally:
        _place([0, *_tasks(paths)], set(cores))


def _tasks(paths: tuple[str, ...]) -> list[int]:
    """All threads of the processes that listen there."""
    return [task for path in paths for task in _threads(path)]


def _threads(path: str) -> list[int]:
    with connected(path) as sock:
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return [int(name) for name in os.listdir(f"/proc/{struct.unpack('3i', peer)[0]}/task")]


def _place(tasks: list[int], cores: set[int]) -> None:
    for task in tasks:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(task, cores)
