"""Peers in this process: a value is durable under its key once the call returns."""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Setter = Callable[[str, bytes], object]
# The packages of peers, which the daemon cannot import.
PACKAGES = Path(__file__).parents[1] / ".venv" / "peers"


class Missing(Exception):
    """The peer is not installed; the message names its package."""


def module(name: str, package: str) -> Any:
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Missing(f"pip install {package}") from None


def sqlite(home: Path) -> Setter:
    """Return a setter on one connection to SQLite: WAL, a sync at every commit, a busy timeout."""
    connection = _connected(home / "peer.sqlite")
    return lambda key, value: connection.execute(_PUT, (key, value))


_PUT = "INSERT OR REPLACE INTO t VALUES (?, ?)"


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB)")
    return connection


def sqlite_writer(home: Path) -> Setter:
    """Return a setter on SQLite behind one thread, which commits all that waits at once."""
    waiting: queue.SimpleQueue[tuple[str, bytes, threading.Event]] = queue.SimpleQueue()

    def write() -> None:
        connection = _connected(home / "writer.sqlite")
        while True:
            batch = [waiting.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    batch.append(waiting.get_nowait())
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_PUT, [(key, value) for key, value, _ in batch])
            connection.execute("COMMIT")
            for *_, done in batch:
                done.set()

    threading.Thread(target=write, daemon=True).start()

    def put(key: str, value: bytes) -> None:
        done = threading.Event()
        waiting.put((key, value, done))
        done.wait()

    return put


def diskcache(home: Path) -> Setter:
    """Return a setter on diskcache with its defaults, but a sync at every commit."""
    cache = module("diskcache", "diskcache").Cache(str(home / "diskcache"))
    cache.reset("sqlite_synchronous", 2)
    put: Setter = cache.set
    return put


def safe_write(home: Path) -> Setter:
    """Return the setter of a careful script: temporary file, fsync, rename, directory fsync."""
    place = home / "plain"
    place.mkdir(exist_ok=True)
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)

    def put(key: str, value: bytes) -> None:
        name = str(place / key)
        temporary = f"{name}.{threading.get_ident()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(fd, value)
        os.fsync(fd)
        os.close(fd)
        os.rename(temporary, name)
        os.fsync(directory)

    return put


def bare_append(home: Path) -> Setter:
    """Return the fastest possible setter: one append to a preallocated file, one fdatasync."""
    fd = os.open(home / "append", os.O_RDWR | os.O_CREAT, 0o600)
    size, at = 16 * 1024 * 1024, 0
    os.write(fd, bytes(size))
    os.fsync(fd)

    def put(_key: str, value: bytes) -> None:
        nonlocal at
        os.pwrite(fd, value, at)
        at = (at + len(value)) % (size - 65536)
        os.fdatasync(fd)

    return put
