"""The server of the page: it listens on 127.0.0.1, and ends when nobody uses it any more."""

from __future__ import annotations

import asyncio
import contextlib
import time

from ..session import Session as DaemonSession
from . import http, relay
from .guard import TICKET_PATH, Guard
from .http import Refusal, Request
from .keys import Keys
from .local_routes import LocalRoutes, not_found

ADDRESS = "127.0.0.1"
# Ends so long after the last request, while no page that somebody sees is connected.
IDLE_SECONDS = 1800.0
MAX_CONNECTIONS = 64
FORWARDED = ("/v1/", "/metrics", "/healthz", "/readyz")


class Server:
    """Serve the page and forward its requests to the daemon of ``daemon``.

    ``files`` has media type and bytes by path.
    """

    def __init__(
        self, daemon: DaemonSession, keys: Keys, files: dict[str, tuple[str, bytes]]
    ) -> None:
        self._daemon, self.keys, self._files = daemon, keys, files
        self.page_opened = asyncio.Event()
        self._local = LocalRoutes(daemon, keys, self.page_opened.set)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_use = 0
        self._last_used = time.monotonic()
        self.port = 0

    async def listen(self, port: int) -> None:
        """Listen on ``port``, 0 for any that is free. Raise OSError."""
        self._server = await asyncio.start_server(self._accept, ADDRESS, port, limit=http.MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]
        self._guard = Guard(f"{ADDRESS}:{self.port}", self.keys)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}/"

    def link(self) -> str:
        """Return a link that opens one page. Browsers do not send the fragment with its ticket."""
        return f"{self.url}#ticket={self.keys.new_ticket()}"

    async def wait_until_idle(self, seconds: float = IDLE_SECONDS) -> None:
        """Return once no page has used the console for so long."""
        while (rest := self._last_used + seconds - time.monotonic()) > 0 or self._in_use:
            await asyncio.sleep(max(rest, min(1.0, seconds)))

    async def close(self) -> None:
        """Stop listening and end all connections."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the one request of a connection, and close it."""
        try:
            with contextlib.suppress(ConnectionError):
                try:
                    request = await http.read_request(reader)
                    if request is not None:
                        await self._serve(request, reader, writer)
                except Refusal as refusal:
                    writer.write(refusal.response())
                await writer.drain()
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await relay.close(writer)

    async def _serve(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._guard.check_sender(request)
        if request.path in self._files:
            writer.write(self._file(request))
            return
        if request.path == TICKET_PATH:
            await http.read_body(reader, request)
            writer.write(self._local.open_page(request))
            return
        session = self._guard.check_token(request)
        self._in_use += 1
        try:
            if request.path.startswith("/console/"):
                await http.read_body(reader, request)
                writer.write(await self._local.respond(request, session))
            elif request.path.startswith(FORWARDED):
                self._guard.check_lock(request, session)
                await http.read_body(reader, request)
                await relay.forward(request, self._daemon.path, reader, writer)
            else:
                raise not_found(request)
        finally:
            self._in_use -= 1
            self._last_used = time.monotonic()

    def _file(self, request: Request) -> bytes:
        if request.method not in ("GET", "HEAD"):
            cause = "cannot serve the request: a file can only be read"
            raise Refusal(405, "route", cause, "method_not_allowed")
        media_type, content = self._files[request.path]
        data = http.response(200, content, media_type)
        return data if request.method == "GET" else data[: len(data) - len(content)]
