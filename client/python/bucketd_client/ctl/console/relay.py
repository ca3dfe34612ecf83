"""Forward a request to the daemon's socket, and its response, piece by piece, to the page."""

from __future__ import annotations

import asyncio
import contextlib

from ..._retry import Lost, final_error
from . import http
from .http import Refusal, Request

_LIMIT = 64 * 1024
# The daemon gets these fields and no other: not the page's token, which is no context of its own,
# and no Origin, which it would refuse.
_TO_DAEMON = ("accept", "content-type", "if-match", "if-none-match", "last-event-id", "prefer")
# The connection to the page has fields of its own in their place.
_DROPPED = ("connection", "keep-alive", "cache-control", "server")


async def forward(
    request: Request, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Forward one request to the socket at ``path``, until the daemon or the page ends it.

    Raise Refusal while the daemon cannot be reached.
    """
    try:
        daemon = await asyncio.open_unix_connection(path, limit=_LIMIT)
    except OSError as cause:
        raise _unreachable(path, cause) from None
    try:
        copying = asyncio.ensure_future(_exchange(request, path, daemon, writer))
        # The page has sent its whole request, so whatever comes is its end.
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({copying, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if copying.done():
                copying.result()
        finally:
            for task in (copying, leaving):
                task.cancel()
            await asyncio.gather(copying, leaving, return_exceptions=True)
    finally:
        await close(daemon[1])


async def _exchange(
    request: Request,
    path: str,
    daemon: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    writer: asyncio.StreamWriter,
) -> None:
    source, sink = daemon
    try:
        sink.write(_request_bytes(request))
        await sink.drain()
        head = await source.readuntil(b"\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError) as cause:
        raise _lost(request, path, cause) from None
    writer.write(_response_head(head))
    while data := await source.read(_LIMIT):
        writer.write(data)
        await writer.drain()


def _request_bytes(request: Request) -> bytes:
    lines = [f"{request.method} {request.target} HTTP/1.1", "Host: bucketd", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in request.fields if name in _TO_DAEMON]
    if request.method not in ("GET", "HEAD"):
        lines.append(f"Content-Length: {len(request.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body


def _response_head(head: bytes) -> bytes:
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    _, status, reason = f"{first} ".split(" ", 2)
    pairs = [line.partition(":")[::2] for line in lines]
    fields = [(name, value.strip()) for name, value in pairs if name.lower() not in _DROPPED]
    return http.head(int(status), fields, reason.strip())


def _unreachable(path: str, cause: BaseException) -> Refusal:
    why = (getattr(cause, "strerror", None) or "it closed the connection").lower()
    return Refusal(
        502,
        "daemon",
        f"cannot reach bucketd on {path}: {why}; is bucketd running?",
        "daemon_unreachable",
    )


def _lost(request: Request, path: str, cause: BaseException) -> Refusal:
    if request.method in ("GET", "HEAD"):
        return _unreachable(path, cause)
    message = final_error(Lost(), request.method, path, 0).message
    return Refusal(502, "daemon", message, "connection_lost")


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until that is done."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
