"""On aiohttp's connections to etcd: one request and its answer, and the lines of a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import orjson
from aiohttp.connector import Connection


async def exchange(connection: Connection, request: bytes) -> tuple[int, dict[str, Any]]:
    """Send a request that is ready, and read its answer, on aiohttp's connection by its parser.

    Its session would do much more for each: a quarter of the daemon's work for a get.
    """
    protocol, transport = connection.protocol, connection.transport
    assert protocol is not None  # noqa: S101  (it is open)
    assert transport is not None  # noqa: S101
    try:
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        transport.write(request)
        message, content = await protocol.read()
        answer = orjson.loads(await content.read())
    except BaseException:
        connection.close()  # what is still to come would be the answer to another request
        raise
    connection.release()
    return message.code, answer if isinstance(answer, dict) else {}


async def lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """The whole ones that are not empty, however long."""
    pieces: list[bytes] = []
    async for piece in content.iter_any():
        pieces.append(piece)
        if b"\n" in piece:
            *lines, rest = b"".join(pieces).split(b"\n")
            pieces = [rest]
            for line in filter(None, lines):
                yield line
    if last := b"".join(pieces):  # a refusal has no newline
        yield last
