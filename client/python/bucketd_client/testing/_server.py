"""The server: a socket in a directory of its own, and a thread for each connection."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from typing import Any

from .._errors import BucketError, error
from .._retry import MAX_SOCKET_PATH
from ._call import Response
from ._http import STATUS, Connection
from ._requests import Request
from ._routes import respond
from ._state import State
from ._stored_bucket import StoredBucket

Socket = socket.socket
DRAIN_SECONDS = 1.0
# With "/bucketd.sock" the path of the socket has at most 107 bytes.
_MAX_DIRECTORY = MAX_SOCKET_PATH - len("/bucketd.sock")


class Server:
    """bucketd's protocol on a unix socket, with everything in memory.

    The server has buckets, their events, contexts, holds and lists, with the daemon's rules and
    limits. It has no schemas, files, export or metrics, and no events of contexts. Whoever can
    connect is an operator, and only this user can. ``max_bytes`` bounds each bucket.
    """

    def __init__(self, max_bytes: int = 1024 * 1024) -> None:
        self._state = State(max_bytes)
        self._home = ""
        self._listening: Socket | None = None
        self._connections: set[Socket] = set()
        self._refusals: list[BucketError] = []

    @property
    def socket(self) -> str:
        """Return the path of the socket, for BUCKETD_SOCKET."""
        return f"{self._home}/bucketd.sock"

    def __enter__(self) -> Server:
        self._home = _short_directory()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Serve again after ``stop``, with what was stored before."""
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(self.socket)
        self._listening.listen(128)
        self._state.holds.begin_grace()
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def stop(self) -> None:
        """Serve nobody until ``start``, as while the daemon restarts, and keep what is stored."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.socket)
        _end(listening)
        with self._state.changed:
            self._state.epoch += 1
            self._state.holds.detach_all()
            self._state.changed.notify_all()
            # Streams end by themselves, once they have sent the last change.
            self._state.changed.wait_for(lambda: not self._state.streams, DRAIN_SECONDS)
        with self._state.lock:
            for connection in self._connections:
                _end(connection)

    def bucket(
        self, device: str, job: str | None = None, *, label: str | None = None
    ) -> StoredBucket:
        """Return the bucket of this pair, or without a job of the device, with a new token.

        ``label`` is that of the token's context.
        """
        return StoredBucket(self._state, self.socket, device, job, label)

    def refuse(
        self, code: str, times: int = 1, message: str = "", details: list[Any] | None = None
    ) -> None:
        """Refuse the next calls on buckets with this code, as ``storage_full`` or ``read_only``."""
        if code not in STATUS:
            raise ValueError(f"cannot refuse with {code!r}: it must be one of {', '.join(STATUS)}")
        message = message or f"cannot use the bucket: {code}, as the test wants it"
        self._refusals += [error(code, message, details=details)] * times

    def _accept(self, listening: Socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with self._state.lock:
                    self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            Connection(connection, self._respond, self._state.max_bytes)
        with self._state.lock:
            self._connections.discard(connection)

    def _respond(self, request: Request) -> Response:
        if request.path.endswith("/bucket") and self._refusals:
            raise self._refusals.pop(0)
        return respond(self._state, request)


def _end(sock: Socket) -> None:
    """Close a socket; the shutdown before wakes the thread that waits on it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _short_directory() -> str:
    """Make a directory whose path leaves room for the name of a socket, also with a long TMPDIR."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108  (made by mkdtemp)
        with contextlib.suppress(OSError):
            home = tempfile.mkdtemp(prefix="bucketd-", dir=parent)
            if len(os.fsencode(home)) <= _MAX_DIRECTORY:
                return home
            os.rmdir(home)
    raise OSError(
        f"cannot make a socket below {tempfile.gettempdir()}: its path would have over "
        f"{MAX_SOCKET_PATH} bytes, or the directory is not writable; set TMPDIR to a short one"
    )
