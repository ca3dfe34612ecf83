"""Bodies of requests that aiohttp receives: bounded in size and time."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ..api import headers as reading
from ..api.request import Body
from ..errors import InvalidRequest, RequestTimeout

AT_ONCE = 4 * 1024


def body_of(request: web.BaseRequest) -> Body:
    """Reads the body of a request that aiohttp receives."""

    async def body(limit: int, seconds: float) -> bytes:
        declared = request.content_length
        if declared is not None and declared > limit:
            raise reading.body_too_large(f"{declared} bytes", limit)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunks, size = [], 0
        try:
            async with asyncio.timeout(seconds):
                while chunk := await request.content.read(AT_ONCE):
                    if declared is None:
                        await asyncio.sleep(0)  # each of its bytes may be a chunk
                    size += len(chunk)
                    if size > limit:
                        raise reading.body_too_large(f"over {limit} bytes", limit)
                    chunks.append(chunk)
        except TimeoutError:
            raise RequestTimeout(
                f"cannot read the request body: it was not complete after {seconds:g} s"
            ) from None
        except web.RequestPayloadError as error:
            raise InvalidRequest(f"cannot read the request body: {error}") from None
        return b"".join(chunks)

    return body
