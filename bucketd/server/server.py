"""The server: connections accepted, counted, and drained on the way out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..api import Peer, Services
from .connection import Connection
from .head_cache import HeadCache
from .limits import CLOSE_SECONDS, MAX_USER_FRACTION, ServerLimits
from .listener import BACKLOG
from .slow_readers import SlowReaders


class Server:
    """Serves one set of services on a listening socket; what its connections have in common."""

    def __init__(self, services: Services, limits: ServerLimits) -> None:
        self.services, self.limits = services, limits
        self.heads, self.slow_readers = HeadCache(), SlowReaders()
        self.connections: set[Connection] = set()
        self.requests_count = 0
        self._by_user: Counter[int] = Counter()

    async def serve(self, sock: socket.socket) -> asyncio.Server:
        """Accept on a listening socket from now on. Its path is the caller's to remove."""
        # From Python 3.13 on the loop would unlink it by itself, also one that was inherited.
        options: dict[str, Any] = {"cleanup_socket": False}
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(
            lambda: Connection(self), sock=sock, backlog=BACKLOG, **options
        )

    def take_limits(self, limits: ServerLimits) -> None:
        """Apply other limits to connections that come from now on."""
        self.limits = limits

    def add(self, connection: Connection) -> None:
        self.connections.add(connection)
        self._by_user[connection.peer.uid] += 1

    def remove(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._by_user[connection.peer.uid] -= 1
        if not self._by_user[connection.peer.uid]:
            del self._by_user[connection.peer.uid]

    def has_too_many_of(self, peer: Peer) -> bool:
        """Report whether there are more connections than allowed, in total or of this user.

        A user who is no operator may have a share of them: else any could keep all others out.
        """
        most = self.limits.max_connections
        share = max(1, most // MAX_USER_FRACTION)
        over = self._by_user[peer.uid] > share and not self.services.operators.include(peer)
        return over or len(self.connections) > most

    async def drain(self, timeout: float) -> None:
        """Respond to what is in progress, for at most ``timeout`` seconds; close everything."""
        self.services.draining = True
        self.services.holds.refuse_waiters()
        for connection in tuple(self.connections):
            connection.begin_drain()
        await self._wait_while(lambda: any(c.busy for c in self.connections), timeout)
        await self.services.events.close()
        self.services.holds.close()
        for connection in tuple(self.connections):
            connection.close()
        await self._wait_while(lambda: bool(self.connections), CLOSE_SECONDS)
        for connection in tuple(self.connections):
            connection.abort()

    async def _wait_while(self, going_on: Callable[[], bool], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while going_on():
                    await asyncio.sleep(0.01)
