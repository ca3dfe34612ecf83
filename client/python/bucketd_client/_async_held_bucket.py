"""``AsyncHeldBucket``: a bucket or a device that this process holds, on the loop of asyncio."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Callable

from ._async_bucket import AsyncBucket
from ._async_connections import Connection, sleep
from ._connections import TIMED_OUT
from ._context import Scope
from ._errors import BucketError
from ._held import HeldState, HoldOptions, Keeper
from ._hold_session import FAILURES, HoldSession
from ._operations import B, D, P
from ._unshared import open_unshared

# See _bucket.
__tracebackhide__ = True

# The daemon ends its side of a released hold at once, unless it hangs.
RELEASE_SECONDS = 1.0


class HoldConnection(Connection):
    """A connection that no forked child keeps."""

    def _open_socket(self) -> socket.socket:
        sock: socket.socket = open_unshared(self, super()._open_socket)
        return sock

    def end(self) -> None:
        """Shut down the sending half, which the daemon takes for the release."""
        if not self._transport.is_closing():
            self._transport.write_eof()


class TaskKeeper(Keeper):
    """Keep a hold in a task, which waits for its end."""

    def __init__(self, session: HoldSession, on_lost: Callable[[], object] | None) -> None:
        super().__init__(session, on_lost)
        self._loop = asyncio.get_running_loop()
        self._connection: HoldConnection | None = None
        self._task: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Wait until the hold is had. Raise BucketError, Held after the wait."""
        try:
            await self._open()
        except BaseException:
            self.is_released = True
            self._close()
            raise
        self._task = self._loop.create_task(self._keep())

    async def release(self) -> None:
        """Release the hold, and wait until the daemon has seen it."""
        if self.pid != os.getpid() or self._task is None:
            return
        self.is_released = True
        task = self._task
        try:
            if not task.done() and task is not asyncio.current_task() and self._connection:
                self._connection.end()
                await asyncio.wait([task], timeout=RELEASE_SECONDS)
        finally:
            # Also after a cancellation of the wait.
            self._close()
            task.cancel()

    def abandon(self) -> None:
        self.is_released = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close)

    async def _open(self) -> None:
        """Connect, and wait until the daemon gives the hold."""
        session = self.session
        while True:
            try:
                self._connection = connection = await HoldConnection.open(session.path)
                connection.send(session.request())
                while not session.take(await connection.receive(session.deadline)):
                    pass
                return
            except FAILURES as failure:
                seconds = session.pause(failure)
            self._close()
            await sleep(seconds)

    async def _keep(self) -> None:
        try:
            while True:
                await self._wait_for_end()
                self._close()
                if self.is_released:
                    return
                self.session.begin_return()
                await self._open()
        except BucketError as cause:
            self._close()
            self.lose(cause)
        finally:
            self._close()

    async def _wait_for_end(self) -> None:
        assert self._connection is not None  # noqa: S101  (for type checkers)
        while True:
            try:
                self.session.take(await self._connection.receive(self.session.deadline))
            except TIMED_OUT:
                continue
            except FAILURES:
                return

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class AsyncHeldBucket(HeldState, AsyncBucket[B, P, D]):
    """An AsyncBucket that this process holds, or with ``acquire`` or ``async with`` is about to.

    Every write is applied only while the hold lives, else it raises HoldLost. A task keeps the hold
    while the daemon restarts, and notices its loss: then ``lost`` is true, and ``on_lost`` is
    called on the loop. The hold ends with its loop. A forked child has no part in it.
    """

    def __init__(self, of: AsyncBucket[B, P, D], options: HoldOptions) -> None:
        self.__dict__.update(vars(of))
        self._of, self._options, self._keeper, self._fenced = of, options, None, None
        self._is_entered = False

    async def acquire(self) -> AsyncHeldBucket[B, P, D]:
        """Take the hold, and return this bucket. Raise Held if it was not had in time."""
        keeper = TaskKeeper(self._new_session(self._timeout), self._options.on_lost)
        self._keeper, self._fenced = keeper, None
        await keeper.acquire()
        self._fenced = keeper.fenced
        return self

    async def release(self) -> None:
        """Release the hold; do nothing if it was lost, or released before."""
        self._is_entered = False
        if self._keeper is not None:
            await self._keeper.release()

    async def close(self) -> None:
        """Release the hold, as ``release``."""
        await self.release()

    async def __aenter__(self) -> AsyncHeldBucket[B, P, D]:
        return self if self._enters_held() else await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    def _scope(self) -> Scope:
        return self._checked_scope()
