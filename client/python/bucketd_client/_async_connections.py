"""Connections of asyncio to the daemon, with one pool for each loop and path."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import types
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Callable, TypeVar

from ._clock import monotonic

MAX_CONNECTIONS = 32
_MAX_BUFFERED = 256 * 1024
# A loop's clock that differs by more seconds from the system's is frozen or replaced.
_MAX_DRIFT = 10.0
C = TypeVar("C", bound="Connection")


class Connection(asyncio.Protocol):
    """A stream connection whose waits end at a deadline, like the blocking ``Connection``.

    ``receive`` raises OSError; a TimeoutError means that the deadline has passed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._sock = loop, self._open_socket()
        self._transport: Any = None
        self._is_paused = False
        self._received: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._has_ended = False
        self._failure: Exception | None = None
        self._deadline = 0.0
        self._timer = DeadlineTimer(loop, self._on_time)

    @classmethod
    async def open(cls: type[C], path: str) -> C:
        """Connect without waiting, since a unix socket connects at once or not at all.

        asyncio would treat a full queue of connections (EAGAIN) as a connection in progress.
        """
        loop = asyncio.get_running_loop()
        made = cls(loop)
        try:
            made._sock.setblocking(False)
            made._sock.connect(path)
            await loop.create_unix_connection(lambda: made, sock=made._sock)
        except BaseException:
            made._sock.close()
            raise
        return made

    def _open_socket(self) -> socket.socket:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def is_quiet(self) -> bool:
        """Report whether the peer has neither closed the connection nor sent anything."""
        if self._has_ended or self._received:
            return False
        try:
            # The loop may not have read the socket yet.
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def send(self, data: bytes) -> None:
        """Send without waiting; a failure to send is raised by ``receive``."""
        self._transport.write(data)

    def is_sent(self, failure: OSError) -> bool:
        """Report whether the kernel had taken all sent bytes when ``receive`` failed."""
        if isinstance(failure, BrokenPipeError):
            return False
        return not self._transport.get_write_buffer_size()

    async def receive(self, deadline: float) -> bytes:
        """Return the next bytes, none at the end of the stream."""
        if not self._received and not self._has_ended:
            self._deadline = deadline
            self._waiter = self._loop.create_future()
            self._timer.fire_by(deadline)
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._received:
            data = self._received[0] if len(self._received) == 1 else b"".join(self._received)
            self._received.clear()
            if self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()
            return data
        if self._failure is not None:
            raise self._failure
        return b""

    def close(self) -> None:
        self._timer.cancel()
        if not self._loop.is_closed():
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        if self._waiter is None and sum(map(len, self._received)) > _MAX_BUFFERED:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended, self._failure = True, exc
        self._timer.cancel()
        self._wake()

    def _wake(self, failure: Exception | None = None) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if failure is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(failure)

    def _on_time(self) -> float | None:
        if self._waiter is None:
            return None
        if monotonic() >= self._deadline:
            self._wake(TimeoutError())
            return None
        return self._deadline


class DeadlineTimer:
    """Call back at a deadline; moving the deadline to a later time costs nothing.

    ``callback`` returns the next deadline, or None.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, callback: Callable[[], float | None]
    ) -> None:
        self._loop, self._callback = loop, callback
        self._handle: asyncio.TimerHandle | threading.Timer | None = None
        self._at = 0.0

    def fire_by(self, deadline: float) -> None:
        """Call back at the deadline at the latest."""
        if self._handle is not None:
            if self._at <= deadline:
                return
            self._handle.cancel()
        self._at = deadline
        self._handle = call_later(self._loop, deadline - monotonic(), self._fire)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        deadline = self._callback()
        if deadline is not None:
            self.fire_by(deadline)


def call_later(
    loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], object]
) -> asyncio.TimerHandle | threading.Timer:
    """Call back on the loop after some seconds, also while a test tool has frozen its clock."""
    is_replaced = not isinstance(time.monotonic, types.BuiltinFunctionType)
    if not is_replaced and abs(loop.time() - monotonic()) < _MAX_DRIFT:
        return loop.call_later(seconds, callback)
    timer = threading.Timer(seconds, _call_soon, (loop, callback))
    timer.daemon = True
    timer.start()
    return timer


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


async def sleep(seconds: float) -> None:
    """Wait for some seconds, also while a test tool has frozen the loop's clock."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    timer = call_later(loop, seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()


class Pool:
    """The connections of one loop to one path, at most MAX_CONNECTIONS; further calls queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self._loop, self._path = loop, path
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._slots = MAX_CONNECTIONS
        self._queue: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer = DeadlineTimer(loop, self._on_time)

    async def take(self, deadline: float) -> Connection:
        """Return a connection for one request, in order. Raise TimeoutError after the deadline."""
        if monotonic() >= deadline:
            raise TimeoutError
        if self._slots:
            self._slots -= 1
        else:
            await self._queue_up(deadline)
        try:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_quiet():
                    return connection
                self._close(connection)
            connection = await Connection.open(self._path)
            self._open.add(connection)
            return connection
        except BaseException:
            self._free_slot()
            raise

    def give(self, connection: Connection, keep: bool) -> None:
        """Take a connection back; ``keep`` says that its last response was read to its end."""
        if keep:
            self._idle.append(connection)
        else:
            self._close(connection)
        self._free_slot()

    def close(self) -> None:
        self._timer.cancel()
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._idle.clear()

    def close_idle(self) -> None:
        """Close the connections that no call uses."""
        while self._idle:
            self._close(self._idle.pop())

    def _close(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    async def _queue_up(self, deadline: float) -> None:
        turn = self._loop.create_future()
        self._queue.append((deadline, turn))
        self._timer.fire_by(deadline)
        try:
            await turn
        except BaseException:
            # The slot may have been assigned in the same moment as the cancellation.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._free_slot()
            raise

    def _free_slot(self) -> None:
        while self._queue:
            _, turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._slots += 1

    def _on_time(self) -> float | None:
        now = monotonic()
        for deadline, turn in self._queue:
            if deadline <= now and not turn.done():
                turn.set_exception(TimeoutError())
        self._queue = deque(each for each in self._queue if not each[1].done())
        return min((deadline for deadline, _ in self._queue), default=None)


class LoopPools:
    """All pools of one loop, closed when the loop shuts down."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._pools = loop, dict[str, Pool]()
        self.pid = os.getpid()
        self._closing = self._close_at_shutdown()

    async def start(self) -> None:
        """Register a generator whose ``aclose`` the loop calls when it shuts down."""
        await self._closing.__anext__()

    def pool(self, path: str) -> Pool:
        found = self._pools.get(path)
        if found is None:
            found = self._pools[path] = Pool(self._loop, path)
        return found

    async def _close_at_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            _loops.pop(self._loop, None)
            for pool in self._pools.values():
                pool.close()
            # The loop closes the sockets in its next iteration.
            await asyncio.sleep(0)


_loops: dict[asyncio.AbstractEventLoop, LoopPools] = {}


async def pool_of_loop(path: str) -> Pool:
    """Return the running loop's pool of connections to this path."""
    loop = asyncio.get_running_loop()
    pools = _loops.get(loop)
    if pools is None or pools.pid != os.getpid():
        # Loops that were closed without a shutdown have left their pools here.
        for other in [each for each in _loops if each.is_closed()]:
            _loops.pop(other, None)
        pools = _loops[loop] = LoopPools(loop)
        await pools.start()
    return pools.pool(path)
