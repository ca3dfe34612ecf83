"""Blocking connections to the daemon, and a pool of idle ones for the next call of any thread."""

from __future__ import annotations

import _socket
import os
import sys

from ._clock import monotonic

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

MAX_IDLE = 8
_CHUNK = 65536
# A wait may last so many seconds longer, so that most calls need not set the timeout again.
_PRECISION = 0.01
# The longest wait, in seconds, whose milliseconds fit into a C int.
_MAX_WAIT = (2**31 - 1) // 1000
# Python 3.9 has two classes for timeouts; from 3.10 on they are the same class.
TIMED_OUT = (TimeoutError, _socket.timeout)


def _new_socket() -> Any:
    """Return a stream socket of the class that this program uses.

    gevent and eventlet put a cooperative class into the module ``socket``. Importing that module
    takes longer than a call, so a program that has not imported it gets the class in C.
    """
    module = sys.modules.get("socket")
    return getattr(module, "socket", _socket.socket)(_socket.AF_UNIX, _socket.SOCK_STREAM)


class Connection:
    """A stream socket of which each wait ends at a deadline.

    ``send`` and ``receive`` raise OSError; TIMED_OUT means that the deadline has passed.
    """

    __slots__ = ("_seconds", "_sock")

    def __init__(self, path: str, deadline: float) -> None:
        self._sock = self._open_socket()
        self._seconds = 0.0
        try:
            self._set_timeout(deadline)
            self._sock.connect(path)
        except BaseException:
            self._sock.close()
            raise

    def is_quiet(self) -> bool:
        """Report whether the peer has neither closed the connection nor sent anything."""
        return self._peek() is None

    def has_data(self) -> bool:
        """Report whether the peer has sent something."""
        return bool(self._peek())

    def send(self, data: bytes, deadline: float) -> None:
        self._set_timeout(deadline)
        self._sock.sendall(data)

    def receive(self, deadline: float) -> bytes:
        """Return the next bytes, none at the end of the stream."""
        self._set_timeout(deadline)
        received: bytes = self._sock.recv(_CHUNK)
        return received

    def close(self) -> None:
        self._sock.close()

    def _open_socket(self) -> Any:
        return _new_socket()

    def _set_timeout(self, deadline: float) -> None:
        seconds = min(left(deadline), _MAX_WAIT)
        if not seconds <= self._seconds <= seconds + _PRECISION:
            self._sock.settimeout(seconds)
            self._seconds = seconds

    def _peek(self) -> bytes | None:
        """Return the first unread byte, ``b""`` at the end of the stream, None if none came."""
        try:
            self._sock.settimeout(0)
            self._seconds = 0.0
            peeked: bytes = self._sock.recv(1, _socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        return peeked


class Pool:
    """Idle connections by path. A forked child uses none of its parent's connections.

    The pool needs no lock, since ``append`` and ``pop`` of a list are atomic. So a fork while
    another thread uses the pool leaves no lock held in the child.
    """

    def __init__(self) -> None:
        self._idle: dict[str, list[Connection]] = {}
        self._pid = os.getpid()

    def take(self, path: str) -> Connection | None:
        """Return an idle connection that the daemon has not closed, None if there is none."""
        if self._pid != os.getpid():
            # These are the child's copies of the parent's descriptors, which stay open there.
            self.close()
        idle = self._idle.get(path)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                # Another thread has taken the last connection.
                break
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def give(self, path: str, connection: Connection) -> None:
        """Keep a connection whose last response was read to its end."""
        idle = self._idle.setdefault(path, [])
        if self._pid == os.getpid() and len(idle) < MAX_IDLE:
            idle.append(connection)
        else:
            connection.close()

    def close(self, path: str | None = None) -> None:
        """Close all idle connections, or those of a path."""
        if path is not None and self._pid == os.getpid():
            closing = {path: self._idle.pop(path, [])}
        else:
            closing, self._idle, self._pid = self._idle, {}, os.getpid()
        for connections in closing.values():
            for connection in connections:
                connection.close()


def left(deadline: float) -> float:
    """Return the seconds until the deadline. Raise TimeoutError if it has passed."""
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise _socket.timeout
    return seconds
