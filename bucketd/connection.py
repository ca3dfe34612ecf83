"""One peer's connection: who it is, how long it may take, and heads that it repeats.

aiohttp parses and paces; a request whose head was seen before, and which came
as one piece while nothing else was going on, is answered without its help.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time

from .api import access, app, wire
from .api.call import Body, Services
from .errors import BucketdError, InvalidRequest, Overloaded, RequestTimeout
from .model import Snapshot
from .repeats import END, LONGEST, Repeat, Repeats
from .settings import Limits
from .stuck import LARGE, Stuck

log = logging.getLogger(__name__)
MAX_LINE = 32 * 1024  # two names of 128 emoji and a few keys, percent-encoded
MOST_UNREAD = 512 * 1024  # bytes of a stream that wait for its reader
LINGER_SECONDS = 2.0  # how long an upload that was refused is read on, so that its sender hears why
_VERSIONS = (HttpVersion11, HttpVersion10)
_NOWHERE = ("none", "none")  # path and method of what no route is for


@dataclass(slots=True)
class Shared:
    """What all connections have in common. A reload replaces ``limits``."""

    services: Services
    limits: Limits
    repeats: Repeats
    stuck: Stuck = field(default_factory=Stuck)


class Connection(web.RequestHandler):
    """A peer on the socket. What it sends is read in order, one request at a time."""

    __slots__ = (
        *("_about", "_began", "_early", "_fed", "_fresh", "_head", "_header_timer", "_limits"),
        *("_repeating", "_shared", "_streaming", "peer"),
    )

    def __init__(self, manager: web.Server, shared: Shared, **options: Any) -> None:
        super().__init__(
            manager,
            access_log=None,  # type: ignore[arg-type]  # its server itself passes None
            auto_decompress=False,
            keepalive_timeout=shared.limits.idle_timeout_seconds,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_LINE,
            tcp_keepalive=False,
            **options,
        )
        self._shared, self._limits = shared, shared.limits
        self._header_timer: asyncio.TimerHandle | None = None
        self.peer = access.Peer(0, -1, frozenset())
        self._fresh = True  # aiohttp's loop has not begun, so it does not wait yet
        # Bytes given to aiohttp since no request was under way, and the head they began with.
        self._fed, self._head = 0, b""
        self._repeating: asyncio.Future[Any] | None = None
        self._early = b""  # what came while a repeated request was under way
        self._began, self._about = 0.0, _NOWHERE  # the request under way, for the figures
        self._streaming: wire.Stream | None = None

    # --- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._manager is not None and len(self._manager.connections) > (
            self._limits.max_connections
        ):
            self._refuse(Overloaded("cannot serve one more connection; try again in a moment"))
            return
        self.peer = access.Peer.of(transport.get_extra_info("socket"))
        if self._shared.services.draining:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_header_timer()
        self._shared.stuck.remove(self)
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
        wanted = not (self._reading_paused or self._early or self._shared.services.draining)
        if self.transport is not None and wanted:
            self.transport.resume_reading()

    # --- requests that aiohttp has parsed

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request, as aiohttp wants it."""
        self._began, self._about = perf_counter(), _NOWHERE
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

    async def _answer(self, request: web.BaseRequest) -> wire.Answer:
        try:
            if request._version not in _VERSIONS:
                request._version = HttpVersion11  # which the answer will be in
                raise InvalidRequest("cannot answer: this server speaks HTTP/1.1; ask in that")
            meaning = app.understand(request.method, request.raw_path, request.headers)
        except BucketdError as error:
            return wire.refused(error)
        self._about = (meaning.route.path, meaning.route.method)
        answer = await app.answer(self._shared.services, self.peer, meaning, body_of(request))
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
        if status >= 500:
            log.error("a request failed in a way that was not foreseen", exc_info=exc)
        # What follows a colon there repeats what was sent, and that may be a token.
        cause = (message or "it is malformed").partition(":")[0]
        answer = wire.refused(InvalidRequest(f"cannot read the request as HTTP/1.1: {cause}"))
        self._began, self._about = perf_counter(), _NOWHERE
        self._count(answer.status)
        request._version = HttpVersion11  # what could not be read has none
        response = web.Response(body=answer.body, status=answer.status, headers=answer.headers)
        response.force_close()
        return response

    # --- streams

    async def _stream(self, answer: wire.Answer, stream: wire.Stream) -> web.StreamResponse:
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
        """Write it, unless its peer does not read: then the stream ends."""
        transport = self.transport
        if transport is None:
            return
        unread = transport.get_write_buffer_size()
        if unread and unread + len(frame) > MOST_UNREAD:
            log.warning("ended an event stream: its peer does not read it")
            transport.abort()
        else:
            transport.write(frame)

    # --- requests whose head was seen before

    def _answer_repeat(self, data: bytes) -> bool:
        """Begin to answer it, if it is one; False where aiohttp has to read it."""
        found = self._shared.repeats.find(data)
        if found is None:
            return False
        repeat, content = found
        self._began, self._about = perf_counter(), repeat.about
        quick = self._show(repeat) if repeat.plain_read else self._begin(repeat.meaning, content)
        if not quick:
            self._repeating = self._loop.create_task(self._repeat(repeat.meaning, content))
        return True

    def _show(self, repeat: Repeat) -> bool:
        """Answer a read of what is known now; False where that takes more."""
        known = app.known(self._shared.services, self.peer, repeat.meaning)
        if known is None:
            return False
        target, now = known
        if len(now.bucket) > LARGE and self._shared.stuck.crowded:
            return False
        if repeat.frame is None or not repeat.frame.fits(now):
            repeat.frame = wire.Frame.around(target.label, now)
        if repeat.frame is None:
            return False
        self._write(repeat.frame.encode(now, rfc822_formatted_time()))
        self._count(200)
        return True

    def _begin(self, meaning: app.Meaning, content: bytes) -> bool:
        """Begin a write that needs nothing more from its peer; False where it may."""
        begun = app.begin(self._shared.services, self.peer, meaning, content)
        if begun is None:
            return False
        label, self._repeating = begun

        def wrote(future: asyncio.Future[Snapshot]) -> None:
            error = future.exception()
            if error is not None:
                self._finish(app.refusal(error))
                return
            now = future.result()
            frame = wire.Frame.around(label, now)
            if frame is None or self._shared.services.draining:
                self._finish(wire.result(label, now))
                return
            self._repeating = None
            self._write(frame.encode(now, rfc822_formatted_time()))
            self._count(200)
            self._go_on()

        self._repeating.add_done_callback(wrote)
        return True

    async def _repeat(self, meaning: app.Meaning, content: bytes) -> None:
        services = self._shared.services

        async def body(limit: int, _seconds: float) -> bytes:
            if len(content) > limit:
                raise wire.body_too_large(f"{len(content)} bytes", limit)
            return content

        answer = await app.answer(services, self.peer, meaning, body)
        self._finish(self._affordable(meaning, answer))

    def _finish(self, answer: wire.Answer) -> None:
        self._repeating = None
        self._send(answer.closing() if self._shared.services.draining else answer)
        self._count(answer.status)
        self._go_on()

    def _send(self, answer: wire.Answer) -> None:
        self._write(answer.encode(rfc822_formatted_time()))
        if answer.close:
            self.force_close()

    def _write(self, text: bytes) -> None:
        if self._manager is not None:
            self._manager.requests_count += 1
        if self.transport is not None:
            self.transport.write(text)
            self._next_keepalive_close_time = self._loop.time() + self._limits.idle_timeout_seconds

    def _count(self, status: int) -> None:
        services, seconds = self._shared.services, perf_counter() - self._began
        services.tally.add(*self._about, status, seconds)
        if seconds > services.slow_seconds:
            path, method = self._about
            log.warning("slow: %s %s took %.3f s, status %d", method, path, seconds, status)

    def _go_on(self) -> None:
        early, self._early = self._early, b""
        if early and self.transport is not None and not self._force_close:
            self.transport.resume_reading()
            self.data_received(early)

    def _affordable(self, meaning: app.Meaning, answer: wire.Answer) -> wire.Answer:
        """The answer, unless it is a large one to a read, and too many of those are not read."""
        large = meaning.route.method == "GET" and len(answer.body) > LARGE
        if not (large and self._shared.stuck.crowded):
            return answer
        return wire.refused(
            Overloaded("cannot answer: too many clients do not read their answers; try again")
        )

    # --- the end

    @property
    def _waits(self) -> bool:
        """Whether aiohttp's loop has nothing to answer: then, and only then, it waits on this."""
        return self._waiter is not None and not self._waiter.done() and not self._force_close

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
        self._began, self._about = perf_counter(), _NOWHERE
        answer = wire.refused(error).closing()
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


def body_of(request: web.BaseRequest) -> Body:
    """Reads the body of a request that aiohttp receives; bounded in size and time."""

    async def body(limit: int, seconds: float) -> bytes:
        declared = request.content_length
        if declared is not None and declared > limit:
            raise wire.body_too_large(f"{declared} bytes", limit)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunks, size = [], 0
        try:
            async with asyncio.timeout(seconds):
                while chunk := await request.content.readany():
                    size += len(chunk)
                    if size > limit:
                        raise wire.body_too_large(f"over {limit} bytes", limit)
                    chunks.append(chunk)
        except TimeoutError:
            raise RequestTimeout(
                f"cannot read the request body: it was not complete after {seconds:g} s"
            ) from None
        except web.RequestPayloadError as error:
            raise InvalidRequest(f"cannot read the request body: {error}") from None
        return b"".join(chunks)

    return body
