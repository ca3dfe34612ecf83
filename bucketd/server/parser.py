"""HTTP/1.1 requests out of bytes, one at a time; aiohttp's parser does the work.

A parser gets the bytes of one request only: heads and chunked bodies end with an empty line, so it
is fed up to the next one at a time, and what follows the request stays with the connection.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import (
    HttpProcessingError,
    HttpRequestParser,
    HttpVersion10,
    HttpVersion11,
    RawRequestMessage,
)
from aiohttp.http_exceptions import BadStatusLine, InvalidHeader, InvalidURLError, LineTooLong
from multidict import CIMultiDictProxy

from ..errors import InvalidRequest
from .limits import MAX_CHUNKED_BYTES, MAX_HEADER_BYTES, MAX_LINE_BYTES

END = b"\r\n\r\n"
_UNLIMITED = 2**29  # the connection bounds what it reads


class Head(NamedTuple):
    """The request line and the header fields. ``length`` of the body; None where it is chunked."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    length: int | None
    is_http_1_0: bool
    keep_alive: bool


class RequestParser:
    """Parses one request, and is done then."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(
            BaseProtocol(loop),
            loop,
            _UNLIMITED,
            max_line_size=MAX_LINE_BYTES,
            auto_decompress=False,
        )
        self._last = b""  # the last three bytes of what was fed, in which an end may begin
        self._fed = 0
        self._payload: StreamReader | None = None

    def feed_head(self, data: bytes) -> tuple[Head | None, bytes]:
        """Return the head, once it is complete, and what follows it. Raises InvalidRequest."""
        while data:
            piece, data = self._cut(data)
            self._fed += len(piece)
            try:
                messages, _, _ = self._parser.feed_data(piece)
                if messages:
                    message, self._payload = messages[0]
                    return _head_of(message), data
            except HttpProcessingError as error:
                raise InvalidRequest(
                    f"cannot read the request as HTTP/1.1: {_cause(error)}"
                ) from None
            if self._fed > MAX_LINE_BYTES + MAX_HEADER_BYTES:
                raise _headers_too_large()
        return None, data

    def body(self) -> ChunkedBody:
        """Return the body, where it is chunked, to be fed from here on."""
        assert self._payload is not None  # noqa: S101  (after the head)
        return ChunkedBody(self, self._payload)

    def feed_chunks(self, data: bytes) -> bytes:
        """Feed the next part of a chunked body; return the rest of the data."""
        piece, rest = self._cut(data)
        try:
            messages, _, _ = self._parser.feed_data(piece)
        except HttpProcessingError:
            raise InvalidRequest("cannot read the request body: a chunk is malformed") from None
        if messages:
            raise InvalidRequest("cannot read the request body: it has no clear end")
        return rest

    def _cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Split data after the next end, also one that began in what was fed before."""
        joined = self._last + data
        end = joined.find(END)
        at = len(data) if end < 0 else end + len(END) - len(self._last)
        piece = data[:at]
        self._last = (self._last + piece)[-3:]
        return piece, data[at:]


class SizedBody:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._length, self.size = length, 0
        self._pieces: list[bytes] = []

    @property
    def complete(self) -> bool:
        return self.size == self._length

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body; return the rest."""
        missing = self._length - self.size
        self._pieces.append(data[:missing])
        self.size += len(self._pieces[-1])
        return data[missing:]

    def content(self) -> bytes:
        return b"".join(self._pieces)


class ChunkedBody:
    """A body in chunks, of which each byte may be one; so it is fed little at a time."""

    def __init__(self, parser: RequestParser, payload: StreamReader) -> None:
        self._parser, self._payload, self.size = parser, payload, 0
        self._pieces: list[bytes] = []

    @property
    def complete(self) -> bool:
        return self._payload.is_eof()

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body, at most MAX_CHUNKED_BYTES; return the rest."""
        data, later = data[:MAX_CHUNKED_BYTES], data[MAX_CHUNKED_BYTES:]
        while data and not self.complete:
            data = self._parser.feed_chunks(data)
        self._pieces.append(self._payload.read_nowait(-1))
        self.size += len(self._pieces[-1])
        return data + later

    def content(self) -> bytes:
        return b"".join(self._pieces)


def _head_of(message: RawRequestMessage) -> Head:
    old = message.version == HttpVersion10
    if not old and message.version != HttpVersion11:
        raise InvalidRequest("cannot answer: this server speaks HTTP/1.1; ask in that")
    if sum(len(name) + len(value) for name, value in message.raw_headers) > MAX_HEADER_BYTES:
        raise _headers_too_large()
    length = None if message.chunked else int(message.headers.get("Content-Length", 0))
    # What follows a CONNECT is no HTTP, and HTTP/1.0 knows no chunks.
    ends = message.should_close or message.method == "CONNECT" or (old and message.chunked)
    return Head(message.method, message.path, message.headers, length, old, not ends)


def _headers_too_large() -> InvalidRequest:
    return InvalidRequest(f"cannot read the headers: they have over {MAX_HEADER_BYTES} bytes")


def _cause(error: HttpProcessingError) -> str:
    """Return what is wrong in words that repeat nothing of what was sent: it may hold a token."""
    for kind, cause in _CAUSES.items():
        if isinstance(error, kind):
            return cause
    return error.message.partition(":")[0]


_CAUSES: dict[type[HttpProcessingError], str] = {
    InvalidURLError: "its target is malformed",
    BadStatusLine: "its first line is malformed",
    InvalidHeader: "a header is malformed",
    LineTooLong: "a line of it is too long",
}
