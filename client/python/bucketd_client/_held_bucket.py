"""``HeldBucket``: a bucket or a device that this process holds, on a connection of its own."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
import time
from _weakrefset import WeakSet

from ._bucket import Bucket
from ._connections import TIMED_OUT, Connection
from ._errors import BucketError
from ._held import HeldState, HoldOptions, Keeper
from ._hold_session import FAILURES
from ._operations import B, D, P
from ._unshared import open_unshared

# See _bucket.
__tracebackhide__ = True

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any, Callable

    from ._context import Scope
    from ._hold_session import HoldSession

# The daemon ends its side of a released hold at once, unless it hangs.
RELEASE_SECONDS = 1.0


class HoldConnection(Connection):
    """A connection that no forked child keeps."""

    __slots__ = ("__weakref__",)

    def _open_socket(self) -> Any:
        return open_unshared(self, super()._open_socket)

    def end(self, how: int) -> None:
        """Shut down a direction, which wakes the thread that waits for bytes."""
        try:
            self._sock.shutdown(how)
        except OSError:
            # The connection has ended already.
            return


class ThreadKeeper(Keeper):
    """Keep a hold in a thread, which waits for its end."""

    def __init__(self, session: HoldSession, on_lost: Callable[[], object] | None) -> None:
        super().__init__(session, on_lost)
        self._connection: HoldConnection | None = None
        self._thread = threading.Thread(target=self._keep, name="bucketd hold", daemon=True)

    def acquire(self) -> None:
        """Wait until the hold is had. Raise BucketError, Held after the wait."""
        try:
            self._open()
            _start_without_signals(self._thread)
        except BaseException:
            self.is_released = True
            self._close()
            raise
        _keepers.add(self)

    def release(self) -> None:
        """Release the hold, and wait until the daemon has seen it."""
        if self.pid != os.getpid():
            return
        self.abandon()
        if self._thread.ident is None or self._thread is threading.current_thread():
            # It was never had, or a callback about its loss releases it.
            return
        self._thread.join(RELEASE_SECONDS)
        if self._thread.is_alive() and self._connection is not None:
            self._connection.end(socket.SHUT_RDWR)

    def abandon(self) -> None:
        # The thread sets the connection, then looks at the flag: one of both sees the other.
        self.is_released = True
        if self._connection is not None:
            self._connection.end(socket.SHUT_WR)

    def _open(self) -> None:
        """Connect, and wait until the daemon gives the hold; return early once it is released."""
        session = self.session
        while not self.is_released:
            try:
                self._connection = HoldConnection(session.path, session.deadline)
                self._connection.send(session.request(), session.deadline)
                while not self.is_released:
                    if session.take(self._connection.receive(session.deadline)):
                        return
            except FAILURES as failure:
                seconds = session.pause(failure)
            self._close()
            if not self.is_released:
                time.sleep(seconds)

    def _keep(self) -> None:
        try:
            while not self.is_released:
                self._wait_for_end()
                self._close()
                if not self.is_released:
                    self.session.begin_return()
                    self._open()
        except BucketError as cause:
            self._close()
            self.lose(cause)
        finally:
            self._close()

    def _wait_for_end(self) -> None:
        assert self._connection is not None  # noqa: S101  (for type checkers)
        while True:
            try:
                self.session.take(self._connection.receive(self.session.deadline))
            except TIMED_OUT:
                continue
            except FAILURES:
                return

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class HeldBucket(HeldState, Bucket[B, P, D]):
    """A bucket that this process holds, or with ``acquire`` or ``with`` is about to.

    Every write is applied only while the hold lives, else it raises HoldLost. A thread keeps the
    hold while the daemon restarts, and notices its loss: then ``lost`` is true, and ``on_lost`` is
    called in that thread. A forked child has no part in the hold.
    """

    def __init__(self, of: Bucket[B, P, D], options: HoldOptions) -> None:
        self.__dict__.update(vars(of))
        self._of, self._options, self._keeper, self._fenced = of, options, None, None
        self._is_entered = False

    def acquire(self) -> HeldBucket[B, P, D]:
        """Take the hold, and return this bucket. Raise Held if it was not had in time."""
        keeper = ThreadKeeper(self._new_session(self._timeout), self._options.on_lost)
        # An interruption right after the wait leaves no hold that nobody knows.
        self._keeper, self._fenced = keeper, None
        keeper.acquire()
        self._fenced = keeper.fenced
        return self

    def release(self) -> None:
        """Release the hold; do nothing if it was lost, or released before."""
        self._is_entered = False
        if self._keeper is not None:
            self._keeper.release()

    def close(self) -> None:
        """Release the hold, as ``release``."""
        self.release()

    def __enter__(self) -> HeldBucket[B, P, D]:
        return self if self._enters_held() else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _scope(self) -> Scope:
        return self._checked_scope()


_keepers: WeakSet[ThreadKeeper] = WeakSet()
_SYNCHRONOUS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


def _start_without_signals(thread: threading.Thread) -> None:
    """Start a thread that takes no signals, which a program may wait for in its own thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _SYNCHRONOUS)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _release_all() -> None:
    for keeper in list(_keepers):
        keeper.release()


# A socket that is open at the interpreter's shutdown causes a warning, or an abort (Python 3.9).
atexit.register(_release_all)
