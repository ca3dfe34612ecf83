"""One peer's connection: who it is, how long it may take, and heads that it repeats.

aiohttp parses and paces; a request whose head was seen before, and which came
as one piece while nothing else was going on, is answered without its help.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time

from ..api import access, dispatch, responses
from ..errors import BucketdError, InvalidRequest, Overloaded, RequestTimeout
from .answering import NOWHERE
from .bodies import body_of
from .head_cache import END, LONGEST
from .repeating import Repeating

log = logging.getLogger(__name__)
MOST_UNREAD = 512 * 1024  # bytes of a stream that wait for its reader
MOST_HEADERS = 32 * 1024  # bytes of names and values; lists in them take a while to read
_VERSIONS = (HttpVersion11, HttpVersion10)


class Connection(Repeating):
    """A peer on the socket. What it sends is read in order, one request at a time."""

    __slots__ = ()

    # --- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = access.Peer.of(transport.get_extra_info("socket"))
        self._shared.held[self.peer.uid] += 1
        connections = 0 if self._manager is None else len(self._manager.connections)
        if self._shared.too_many(self.peer, connections):
            self._refuse(Overloaded("cannot serve one more connection; try again in a moment"))
            return
        if self._shared.services.draining:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_header_timer()
        self._shared.stuck.remove(self)
        self._shared.held[self.peer.uid] -= 1
        if self._streaming is not None:
            self._streaming.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._streaming is not None:
            return  # nothing is answered after a stream
        if self._repeating is not None:
            self._early += data
            if self.transport is not None:
                self.transport.pause_reading()
            return
        if self._fed == 0:
            idle, self._fresh = self._fresh or self._waits, False
            if idle and self._answer_repeat(data):
                return
            end = data.find(END, 0, LONGEST)
            self._head = data[: end + len(END)] if end >= 0 else b""
        self._fed += len(data)
        super().data_received(data)
        if self._messages or self._request_in_progress:
            self._stop_header_timer()
        elif self._header_timer is None:
            # Bytes came, but no whole header: from here on the clock runs.
            seconds = self._limits.header_timeout_seconds
            self._header_timer = self._loop.call_later(seconds, self._header_too_slow, seconds)

    def pause_writing(self) -> None:
        """Its peer reads no answers, so it is heard no more until it does."""
        super().pause_writing()
        if self.transport is not None:
            self.transport.pause_reading()
            self._shared.stuck.add(self, self.transport, self._loop)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._shared.stuck.remove(self)
        if self._early and self._repeating is None and not self._shared.services.draining:
            self._go_on()
            return
        wanted = not (self._reading_paused or self._early or self._shared.services.draining)
        if self.transport is not None and wanted:
            self.transport.resume_reading()

    # --- requests that aiohttp has parsed

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request, as aiohttp wants it."""
        self._began, self._about = perf_counter(), NOWHERE
        answer = await self._answer(request)
        self._count(answer.status)
        if answer.stream is not None and request.method != "HEAD":
            return await self._stream(answer, answer.stream)
        response = web.Response(body=answer.body, status=answer.status, headers=answer.headers)
        if answer.status == 304:
            response = web.Response(status=304, headers=answer.headers)
        if answer.stream is not None:
            answer.stream.close()
            response.force_close()
        if self._shared.services.draining or not request.content.is_eof():
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> responses.Response:
        try:
            if request._version not in _VERSIONS:
                request._version = HttpVersion11  # which the answer will be in
                raise InvalidRequest("cannot answer: this server speaks HTTP/1.1; ask in that")
            if sum(len(name) + len(value) for name, value in request.raw_headers) > MOST_HEADERS:
                raise InvalidRequest(
                    f"cannot read the headers: they have over {MOST_HEADERS} bytes"
                )
            meaning = dispatch.resolve(request.method, request.raw_path, request.headers)
        except BucketdError as error:
            return responses.refused(error)
        self._about = (meaning.route.path, meaning.route.method)
        answer = await dispatch.answer(self._shared.services, self.peer, meaning, body_of(request))
        answer = self._affordable(meaning, answer)
        length = request.content_length or 0
        if request.content.is_eof() and self._fed == len(self._head) + length:
            # All that came was this request: the next byte begins a new one.
            self._fed = 0
            usual = request.version == HttpVersion11 and request.method == meaning.route.method
            if usual and answer.status == 200 and answer.stream is None:
                self._shared.repeats.keep(self._head, meaning, length)
        return answer

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp's parser refuses, in our envelope; the connection is closed after it."""
        if status >= 500 and not isinstance(exc, ConnectionError):  # which is its peer's doing
            log.error("a request failed in a way that was not foreseen", exc_info=exc)
        if exc is not None:
            exc.__traceback__ = None  # which refers to itself, by a frame of aiohttp's
        # What follows a colon there repeats what was sent, and that may be a token.
        cause = (message or "it is malformed").partition(":")[0]
        answer = responses.refused(InvalidRequest(f"cannot read the request as HTTP/1.1: {cause}"))
        self._began, self._about = perf_counter(), NOWHERE
        self._count(answer.status)
        request._version = HttpVersion11  # what could not be read has none
        response = web.Response(body=answer.body, status=answer.status, headers=answer.headers)
        response.force_close()
        return response

    # --- streams

    async def _stream(
        self, answer: responses.Response, stream: responses.Stream
    ) -> web.StreamResponse:
        """Send a head, then what the stream gives, until either side ends it."""
        try:
            if self.transport is not None:
                self._streaming = stream
                self.transport.write(answer.encode(rfc822_formatted_time()))
                stream.begin(self._pass_on)
                await stream.ended
        finally:
            stream.close()
        return _Sent()

    def _pass_on(self, frame: bytes) -> None:
        """Write it, unless its peer does not read: then the stream ends.

        What goes out when nothing waits may be any size, such as all that a stream has missed:
        whoever is about to read that is not slow yet.
        """
        transport = self.transport
        if transport is None:
            return
        unread = transport.get_write_buffer_size()
        if not unread:
            self._burst = len(frame)
        elif unread + len(frame) > MOST_UNREAD + self._burst:
            log.warning("ended an event stream: its peer does not read it")
            transport.abort()
            return
        transport.write(frame)

    # --- the end

    @property
    def busy(self) -> bool:
        """Whether a request was read and is not answered yet."""
        if self._streaming is not None:
            return False
        return self._repeating is not None or self._waiter is None or self._waiter.done()

    def begin_drain(self) -> None:
        """Read no further request; end the connection now if none is in progress.

        What a client sends from here on stays unread in the kernel, which tells
        it by ECONNRESET that nobody acted upon it.
        """
        request = self._current_request
        if self._streaming is not None:
            return  # it is told of what others still change
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
        self._began, self._about = perf_counter(), NOWHERE
        answer = responses.refused(error).closing()
        self._send(answer)
        self._count(answer.status)
        self.force_close()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class _Sent(web.StreamResponse):
    """What aiohttp gets for an answer that was written already: the last of its connection."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """There is no head to send."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nor an end."""
