"""Peers in this process: a value is durable under its key once the call returns."""

from __future__ import annotations

import importlib
import os
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
    """Return a setter with one SQLite connection per thread: WAL, and a sync at every commit."""
    path, local = home / "peer.sqlite", threading.local()

    def connection() -> sqlite3.Connection:
        if not hasattr(local, "it"):
            local.it = sqlite3.connect(path, isolation_level=None, timeout=60)
            local.it.execute("PRAGMA journal_mode=WAL")
            local.it.execute("PRAGMA synchronous=FULL")
            local.it.execute("CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB)")
        return local.it

    def put(key: str, value: bytes) -> None:
        connection().execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (key, value))

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
