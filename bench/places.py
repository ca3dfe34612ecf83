"""Pin a client and its servers to cores."""

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
    """Pin this process to one core and the servers of these unix sockets to another.

    Otherwise the kernel keeps some servers on the core of their client for whole runs and others
    not, which more than halves or doubles a round trip.
    """
    cores = sorted(os.sched_getaffinity(0))
    try:
        _place([0], {cores[0]})
        _place(_tasks(paths), {cores[-1]})
        yield
    finally:
        _place([0, *_tasks(paths)], set(cores))


def _tasks(paths: tuple[str, ...]) -> list[int]:
    """Return all threads of the processes that listen on the sockets."""
    return [task for path in paths for task in _threads(path)]


def _threads(path: str) -> list[int]:
    with connected(path) as sock:
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return [int(name) for name in os.listdir(f"/proc/{struct.unpack('3i', peer)[0]}/task")]


def _place(tasks: list[int], cores: set[int]) -> None:
    for task in tasks:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(task, cores)
