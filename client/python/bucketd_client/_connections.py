"""Connections that are idle, kept for the next call of any thread."""

from __future__ import annotations

import _socket as socket  # the part in C; the other takes longer to import than to call once
import os
import sys
import time
from _thread import allocate_lock  # threading has much more, and takes longer to import

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    import select

KEPT = 8  # for each socket path; whoever comes with more closes them
_CHUNK = 65536
_PRECISION = 0.01  # seconds that a wait may last longer, so that most calls need not set it anew
_AT_ONCE = 32768  # bytes that an idle connection's buffer takes without anybody reading
_C_LONG = sys.maxsize.bit_length() // 8 + 1  # bytes; struct knows too, and takes longer to import
TIMED_OUT = (TimeoutError, socket.timeout)  # one and the same from Python 3.10 on


class Connection:
    """A stream socket in blocking mode, whose waits the kernel ends.

    A Python socket with a timeout asks the kernel before each transfer whether
    it would block, which doubles the system calls of a call.
    """

    __slots__ = ("_poll", "_seconds", "_sock")

    def __init__(self, path: str, deadline: float) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._seconds = -1.0
        self._poll: select.poll | None = None
        try:
            self._sock.settimeout(left(deadline))
            self._sock.connect(path)
            self._sock.settimeout(None)
        except BaseException:
            self._sock.close()
            raise

    @property
    def quiet(self) -> bool:
        """Whether the other end neither closed an idle connection nor sent anything unasked."""
        try:
            if self._poll is None:
                self._poll = _poll(self._sock)
            return not self._poll.poll(0)
        except (OSError, ValueError):
            return False

    def send(self, text: bytes, deadline: float) -> None:
        """All of it. Raises OSError, of which TimeoutError says that ``deadline`` has passed."""
        if len(text) <= _AT_ONCE:
            self._sock.sendall(text)
            return
        self._sock.settimeout(left(deadline))
        self._sock.sendall(text)
        self._sock.settimeout(None)

    def receive(self, deadline: float) -> bytes:
        """The next bytes, none at an orderly end. Raises OSError in the same way."""
        seconds = left(deadline)
        if not seconds <= self._seconds <= seconds + _PRECISION:
            self._wait_at_most(seconds)
        try:
            return self._sock.recv(_CHUNK)
        except BlockingIOError:
            raise socket.timeout from None

    def said_something(self) -> bool:
        """Whether there is an answer, though not all was sent."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def close(self) -> None:
        self._sock.close()

    def _wait_at_most(self, seconds: float) -> None:
        micros = max(1, int(seconds * 1e6))  # to the kernel, 0 would mean for ever
        timeval = [n.to_bytes(_C_LONG, sys.byteorder) for n in divmod(micros, 1_000_000)]
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"".join(timeval))
        self._seconds = seconds


def _poll(sock: socket.socket) -> select.poll:
    import select  # which a process that makes one call has no need of

    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return poll


class Pool:
    """Idle connections by path. A fork leaves the child none of its parent's."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._idle: dict[str, list[Connection]] = {}
        self._pid = os.getpid()

    def take(self, path: str) -> Connection | None:
        """A connection that the daemon has not closed; None where there is none."""
        if self._pid != os.getpid():
            self.forget()
        with self._lock:
            idle = self._idle.get(path)
            while idle:
                connection = idle.pop()
                if connection.quiet:
                    return connection
                connection.close()
        return None

    def give(self, path: str, connection: Connection) -> None:
        """Keep a connection whose last answer was read to its end."""
        with self._lock:
            idle = self._idle.setdefault(path, [])
            if self._pid == os.getpid() and len(idle) < KEPT:
                idle.append(connection)
                return
        connection.close()

    def forget(self) -> None:
        """In a forked child: the connections are the parent's, and so may be the lock."""
        theirs, self._idle = self._idle, {}
        self._lock, self._pid = allocate_lock(), os.getpid()
        for connections in theirs.values():
            for connection in connections:
                connection.close()  # our copy of the descriptor; the parent's stays open


def left(deadline: float) -> float:
    """Seconds until then; TimeoutError where it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise socket.timeout
    return seconds
