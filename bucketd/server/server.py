"""The socket: bound safely, one ``Connection`` per peer, drained on the way out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from typing import Any

from aiohttp import web

from ..api.request import Services
from ..settings.sections import Limits
from .answering import Shared
from .connection import Connection
from .head_cache import HeadCache

MAX_PATH_BYTES = 107  # sockaddr_un, less the final NUL
BACKLOG = 1024


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
        raise _unusable(path, error) from error
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
        raise _unusable(path, error) from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                os.unlink(path)
                return
    raise SocketError(
        f"cannot listen on {path}: another process serves it; stop that one, or give another "
        "path with --socket"
    )


def _unusable(path: str, error: OSError) -> SocketError:
    return SocketError(
        f"cannot listen on {path}: {error.strerror}; make its directory writable for this user, "
        "or give another path with --socket"
    )


class Server(web.Server):
    """aiohttp's low-level server with our Connection, in front of one set of services."""

    def __init__(self, services: Services, limits: Limits) -> None:
        super().__init__(self._respond)
        self._shared = Shared(services, limits, HeadCache())

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self._shared, loop=self._loop)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101  (made by __call__)
        return await connection.respond(request)

    def take_limits(self, limits: Limits) -> None:
        """For connections that come from now on."""
        self._shared.limits = limits

    async def serve(self, sock: socket.socket) -> asyncio.Server:
        """Begin to accept on a listening socket. Its path is the caller's to remove."""
        # From Python 3.13 on the loop would unlink it by itself, also one that was handed over.
        ours: dict[str, Any] = {"cleanup_socket": False}
        return await self._loop.create_unix_server(self, sock=sock, backlog=BACKLOG, **ours)

    async def drain(self, timeout: float) -> None:
        """Answer what is in progress, at most ``timeout`` seconds long; then close everything."""
        self._shared.services.draining = True
        for connection in self._ours():
            connection.begin_drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while any(connection.busy for connection in self._ours()):
                    await asyncio.sleep(0.01)
        await self._shared.services.events.close()
        await self.shutdown(1.0)

    def _ours(self) -> list[Connection]:
        return [c for c in self.connections if isinstance(c, Connection)]
