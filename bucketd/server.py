"""The socket: bound safely, one ``Connection`` per peer, drained on the way out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from typing import Any

from aiohttp import web

from .api import access, wire
from .api.app import handle
from .api.call import Services
from .errors import InvalidRequest, Overloaded, RequestTimeout
from .settings import Limits

log = logging.getLogger(__name__)
MAX_PATH_BYTES = 107  # sockaddr_un, less the final NUL
MAX_LINE = 32 * 1024  # two names of 128 emoji and a few keys, percent-encoded
BACKLOG = 1024
LINGER_SECONDS = 2.0  # how long an upload that was refused is read on, so that its sender hears why


class SocketError(Exception):
    """The socket cannot be had; the message says why, and what to do."""


def bind(path: str, mode: int) -> socket.socket:
    """A listening unix socket at ``path`` with just that mode from its first moment.

    A socket that nobody serves is replaced; one in use, or anything else that
    stands there, is left alone and SocketError raised.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SocketError(
            f"cannot listen on {path}: the path has over {MAX_PATH_BYTES} bytes, which no "
            "unix socket can have; give a shorter one with --socket"
        )
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SocketError(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(umask)
    sock.setblocking(False)
    return sock


def unbind(path: str, ours: os.stat_result) -> None:
    """Unlink it unless another daemon has put its own there meanwhile."""
    try:
        if os.stat(path).st_ino == ours.st_ino:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _clear_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SocketError(
                f"cannot listen on {path}: something that is not a socket stands there; "
                "move it away, or give another path with --socket"
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"cannot listen on {path}: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                os.unlink(path)
                return
    raise SocketError(f"cannot listen on {path}: another process serves it")


class Connection(web.RequestHandler):
    """One peer: its identity from the kernel, and a limit on how long a header may take."""

    __slots__ = ("_header_timer", "_limits", "_services", "peer")

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._services, self._limits = server.services, server.limits
        self._header_timer: asyncio.TimerHandle | None = None
        self.peer = access.Peer(0, -1, frozenset())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._manager is not None and len(self._manager.connections) > (
            self._limits.max_connections
        ):
            self._refuse(Overloaded("cannot serve one more connection; try again in a moment"))
            return
        self.peer = access.Peer.of(transport.get_extra_info("socket"))
        if self._services.draining:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._request_in_progress:
            self._stop_header_timer()
        elif self._header_timer is None:
            # Bytes came, but no whole header: from here on the clock runs.
            seconds = self._limits.header_timeout_seconds
            self._header_timer = self._loop.call_later(seconds, self._header_too_slow, seconds)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  (the name is aiohttp's)
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp's parser refuses, in our envelope; the connection is closed after it."""
        if status >= 500:
            log.error("a request failed in a way that was not foreseen", exc_info=exc)
        # What follows a colon there repeats what was sent, and that may be a token.
        cause = (message or "it is malformed").partition(":")[0]
        response = wire.refused(InvalidRequest(f"cannot read the request as HTTP/1.1: {cause}"))
        response.force_close()
        return response

    @property
    def busy(self) -> bool:
        """Whether a request was read and is not answered yet."""
        # aiohttp's loop waits on this future when, and only when, it has nothing to answer.
        return self._waiter is None or self._waiter.done()

    def begin_drain(self) -> None:
        """Read no further request; end the connection now if none is in progress.

        What a client sends from here on stays unread in the kernel, which tells
        it by ECONNRESET that nobody acted upon it.
        """
        request = self._current_request
        if self.transport is None or (request is not None and not request.content.is_eof()):
            return  # a body is on its way; its answer closes the connection
        self.transport.pause_reading()
        if not self.busy:
            self.force_close()

    def _header_too_slow(self, seconds: float) -> None:
        self._refuse(
            RequestTimeout(
                f"cannot read the request: its header was not complete after {seconds:g} s"
            )
        )

    def _refuse(self, error: Overloaded | RequestTimeout) -> None:
        if self.transport is not None:
            self.transport.write(wire.refused_raw(error))
        self.force_close()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class Server(web.Server):
    """aiohttp's low-level server with our Connection, in front of one set of services."""

    def __init__(self, services: Services, limits: Limits) -> None:
        super().__init__(self._handle)
        self.services, self.limits = services, limits

    def __call__(self) -> web.RequestHandler:
        return Connection(
            self,
            loop=self._loop,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=self.limits.idle_timeout_seconds,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_LINE,
            tcp_keepalive=False,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101  (made by __call__)
        return await handle(self.services, connection.peer, request)

    async def serve(self, sock: socket.socket) -> asyncio.Server:
        """Begin to accept on a listening socket. Its path is the caller's to remove."""
        # From Python 3.13 on the loop would unlink it by itself, also one that was handed over.
        ours: dict[str, Any] = {"cleanup_socket": False}
        return await self._loop.create_unix_server(self, sock=sock, backlog=BACKLOG, **ours)

    async def drain(self, timeout: float) -> None:
        """Answer what is in progress, at most ``timeout`` seconds long; then close everything."""
        self.services.draining = True
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.begin_drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while any(c.busy for c in self.connections if isinstance(c, Connection)):
                    await asyncio.sleep(0.01)
        await self.shutdown(1.0)
