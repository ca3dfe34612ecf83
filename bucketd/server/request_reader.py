"""Requests out of the bytes that one connection receives: a head at a time, then its body."""

from __future__ import annotations

from time import perf_counter

from ..api import ResolvedRequest, body_too_large, resolve
from .head_cache import MAX_HEAD_BYTES, HeadCache
from .parser import END, ChunkedBody, RequestParser, SizedBody


class RequestReader:
    """Reads one request after the other from ``received``, which the connection appends to.

    All other fields are of the request that is read or was read last: ``resolved`` is what its
    head asks for, ``length`` that of its body (None: chunked, or not known yet), ``body`` is there
    while it is received, and ``began`` is when the head was looked at first.
    """

    def __init__(self, heads: HeadCache) -> None:
        self._heads = heads
        self.received = b""
        self.began = 0.0
        self.resolved: ResolvedRequest | None = None
        self.length: int | None = None
        self.body: SizedBody | ChunkedBody | None = None
        self.head_only = False
        self.keep_alive = True
        self.keep_alive_field = b""  # which only HTTP/1.0 needs
        self._parser: RequestParser | None = None
        self.raw_head = b""  # where it may be cached, and is not yet

    def read_head(self) -> ResolvedRequest | None:
        """Return what the head asks for, once it is complete. Raises BucketdError.

        One that was seen before is neither parsed nor routed again.
        """
        data, parser = self.received, self._parser
        if parser is None:
            self.began, self.resolved, self.raw_head = perf_counter(), None, b""
            end = data.find(END, 0, MAX_HEAD_BYTES) + len(END)
            if end >= len(END):
                raw_head = data[:end]
                cached = self._heads.find(raw_head)
                if cached is not None:
                    self.received = data[end:]
                    self.resolved, self.length = resolved, _ = cached
                    self.head_only = resolved.head_only
                    return resolved
                self.raw_head = raw_head
            self._parser, self.length, self.head_only = RequestParser(), None, False
        head, self.received = (parser or self._started()).feed_head(data)
        if head is None:
            return None
        if parser is not None or head.is_http_1_0:
            # It came in pieces, or its response depends on more than its fields.
            self.raw_head = b""
        self.length, self.head_only = head.length, head.method == "HEAD"
        self.keep_alive = head.keep_alive
        self.keep_alive_field = b"\r\nConnection: keep-alive" if head.is_http_1_0 else b""
        self.resolved = resolve(head.method, head.target, head.headers)
        return self.resolved

    def read_whole_body(self) -> bytes | None:
        """Return the body where all of it is there already."""
        length, received = self.length, self.received
        if length is None or len(received) < length:
            return None
        self.received, self._parser = received[length:], None
        return received[:length]

    def begin_body(self) -> None:
        """Receive the body piece by piece from here on."""
        if self.length is not None:
            self.body = SizedBody(self.length)
        else:
            self.body = self._started().body()

    def read_body(self, max_bytes: int) -> bytes | None:
        """Return the body, once it is complete; raise TooLarge as soon as it is over the limit."""
        body = self.body
        assert body is not None  # noqa: S101  (it was begun)
        self.received = body.feed(self.received)
        if body.size > max_bytes:
            raise body_too_large(f"over {max_bytes} bytes", max_bytes)
        if not body.complete:
            return None
        self._parser = self.body = None
        return body.content()

    def cache_head(self, body_length: int) -> None:
        """Have the head recognized by its bytes the next time."""
        if self.resolved is not None:
            self._heads.keep(self.raw_head, self.resolved, body_length)

    def skip_body(self) -> bool:
        """Drop a request that is refused; return False where its body is not all there."""
        is_whole = self.body is None and self.read_whole_body() is not None
        self._parser = self.body = None
        return is_whole

    def drop(self) -> None:
        """Drop what was received: no further request is read."""
        self.received = b""

    def _started(self) -> RequestParser:
        assert self._parser is not None  # noqa: S101  (with the request, unless its head is cached)
        return self._parser
