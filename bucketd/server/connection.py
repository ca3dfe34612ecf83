"""One peer's connection: requests received one after another, each handled and responded to.

    IDLE ── bytes ──> RECEIVING ── request complete ──> HANDLING ── response ──> IDLE
                          │                                │
                   refused by its head                event stream
                          └──> LINGERING                   └──> STREAMING

A request that is complete is handled at once; one whose reply takes waiting leaves the connection
HANDLING, and what arrives meanwhile waits. STREAMING and LINGERING end with the connection.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from ..api import (
    Deferred,
    ResolvedRequest,
    Response,
    Stream,
    admit,
    check_not_stopping,
    handle,
    http_date,
    refusal,
)
from ..concurrency import INLINE_MAX_BYTES
from ..errors import BucketdError, InvalidRequest, Overloaded, RequestTimeout
from .limits import LINGER_SECONDS, MAX_UNREAD_BYTES, PEER_CHECK_SECONDS
from .parser import END
from .peer import has_hung_up, peer_of
from .request_reader import RequestReader

if TYPE_CHECKING:
    from .server import Server

log = logging.getLogger(__name__)
UNROUTED = ("none", "none")  # path and method of a request that no route is for


class State(enum.Enum):
    IDLE = "between two requests"
    RECEIVING = "part of a request was received"
    HANDLING = "waiting for the outcome of a request"
    STREAMING = "sending events"
    LINGERING = "responded for the last time; what still arrives is dropped"


IDLE, RECEIVING, HANDLING, STREAMING, LINGERING = State


class Connection(asyncio.Protocol):
    """A peer on the socket. What it sends is handled in order, one request at a time."""

    def __init__(self, server: Server) -> None:
        self._server, self._services, self._limits = server, server.services, server.limits
        self._loop = asyncio.get_running_loop()
        self._state = IDLE
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._reader = RequestReader(server.heads)
        self._reading = True
        self._ended = False  # the peer sends nothing more
        self._writable = True
        self._scheduled = False  # the next request is taken in the next turn of the event loop
        self._render: Callable[[Any], Response] | None = None  # makes a response of its outcome
        self._abandon: Callable[[], object] | None = None  # ends a request whose peer is gone
        self._watching = False  # the peer is looked after, since reading does not tell its end
        self._stream: Stream | None = None
        self._burst = 0  # bytes of a stream that went out when none were unread

    # --- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = peer_of(transport.get_extra_info("socket"))
        self._server.add(self)
        self._arm(self._limits.idle_timeout_seconds)
        if self._server.has_too_many_of(self.peer):
            self._reader.began, self._reader.keep_alive = perf_counter(), False
            self._respond(
                refusal(Overloaded("cannot serve one more connection; try again in a moment"))
            )
        elif self._services.draining:
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self._state is STREAMING or self._state is LINGERING:
            return
        reader = self._reader
        reader.received = reader.received + data if reader.received else data
        if self._state is HANDLING or self._scheduled or not self._writable:
            self._pause_reading()
            self._watch_peer()
        else:
            self._take_request()

    def eof_received(self) -> bool:
        """Note that the peer sends nothing more; report whether it still gets something."""
        self._ended = True
        if self._needs_peer:
            if self._has_hung_up:
                return False
            self._watch_peer()
            if self._stream is not None:
                self._stream.on_end_of_input()
            return True
        if self._state is RECEIVING and not self._scheduled:
            self._refuse(_incomplete())
        return self._state is HANDLING or self._scheduled or bool(self._reader.received)

    def pause_writing(self) -> None:
        """Stop reading requests while the peer is not reading responses."""
        self._writable = False
        if self._transport is not None:
            self._pause_reading()
            self._server.slow_readers.add(self, self._transport, self._loop)

    def resume_writing(self) -> None:
        self._writable = True
        self._server.slow_readers.remove(self)
        if self._state is not HANDLING:
            self._go_on()

    def connection_lost(self, _error: BaseException | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._server.slow_readers.remove(self)
        self._server.remove(self)
        if self._stream is not None:
            self._stream.close()
        if self._abandon is not None:
            self._abandon()
            self._abandon = None

    # --- requests in

    def _take_request(self) -> None:
        """Take the next request as far as it was received; handle it once it is complete."""
        reader = self._reader
        try:
            if reader.body is None:
                resolved = reader.read_head()
                if resolved is None:
                    if self._state is IDLE:
                        self._state = RECEIVING
                        self._arm(self._limits.header_timeout_seconds)
                    self._wait_for_more()
                    return
                if self._services.draining:
                    check_not_stopping(resolved)
                body = reader.read_whole_body()
                if body is not None:
                    self._handle(resolved, body)
                    return
                self._start_body(resolved)
            body = reader.read_body(self._services.buckets.max_bytes)
        except BucketdError as error:
            self._refuse(error)
            return
        if body is None or reader.resolved is None:
            self._wait_for_more()
        else:
            self._handle(reader.resolved, body)

    def _start_body(self, resolved: ResolvedRequest) -> None:
        """Begin to receive a body, unless the head alone is reason to refuse the request."""
        reader = self._reader
        admit(self._services, self.peer, resolved, reader.length or 0)
        expectation = resolved.headers.get("Expect", "").lower()
        if expectation == "100-continue" and not reader.received and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        reader.begin_body()
        self._state = RECEIVING
        self._arm(self._services.body_timeout)

    def _wait_for_more(self) -> None:
        if self._reader.received:
            self._schedule()
        elif self._ended:
            self._refuse(_incomplete())
        else:
            self._resume_reading()

    def _handle(self, resolved: ResolvedRequest, body: bytes) -> None:
        reply = handle(self._services, self.peer, resolved, body)
        if self._reader.raw_head and not (isinstance(reply, Response) and reply.status >= 400):
            self._reader.cache_head(len(body))
        if isinstance(reply, Response):
            self._respond(reply)
            return
        self._state = HANDLING
        if isinstance(reply, Deferred):
            outcome, self._render = reply.outcome, reply.render
            if reply.abandon is not None:
                self._abandon = reply.abandon
                self._watch_peer()
        else:
            outcome, self._render = reply, None
        asyncio.ensure_future(outcome).add_done_callback(self._respond_with)

    # --- responses out

    def _respond_with(self, outcome: asyncio.Future[Any]) -> None:
        """Respond with the outcome that a request has waited for."""
        self._abandon = None
        if outcome.cancelled():
            self.abort()
            return
        # Raising the error here would make a cycle: its traceback holds this frame, which holds the
        # future, which holds the error.
        failure = outcome.exception()
        if failure is not None:
            self._respond(refusal(failure))
            return
        try:
            response = outcome.result() if self._render is None else self._render(outcome.result())
        except Exception as error:
            response = refusal(error)
        self._respond(response)

    def _respond(self, response: Response, linger: bool = False) -> None:
        transport, stream, reader = self._transport, response.stream, self._reader
        if transport is None:
            if stream is not None:
                stream.close()
            return
        if self._server.slow_readers.is_full and self._is_large_read(response):
            response = refusal(
                Overloaded("cannot answer: too many clients do not read responses; try again")
            )
        closes = (
            not reader.keep_alive
            or stream is not None
            or self._services.draining
            or (self._ended and not reader.received)
        )
        self._state = IDLE
        parts = () if reader.head_only else response.parts
        field = b"\r\nConnection: close" if closes else reader.keep_alive_field
        transport.write(b"".join((response.head, http_date(), field, END, *parts)))
        # The peer goes on while its request is counted.
        self._count(response.status)
        if closes:
            self._finish(stream, linger)
            return
        self._deadline = self._loop.time() + self._limits.idle_timeout_seconds
        if reader.received or not self._reading:
            self._go_on()

    def _is_large_read(self, response: Response) -> bool:
        resolved = self._reader.resolved
        is_read = resolved is not None and resolved.route.method == "GET"
        return is_read and sum(map(len, response.parts)) > INLINE_MAX_BYTES

    def _refuse(self, error: BucketdError) -> None:
        """Refuse a request that is not complete, or whose head is reason enough."""
        is_whole = self._reader.skip_body()
        if not is_whole:
            self._reader.keep_alive = False
            self._reader.drop()
        self._respond(refusal(error), linger=not is_whole)

    def _count(self, status: int) -> None:
        services, reader = self._services, self._reader
        seconds = perf_counter() - reader.began
        self._server.requests_count += 1
        resolved = reader.resolved
        about = UNROUTED if resolved is None else resolved.about
        services.tally.add(about, status, seconds)
        may_wait = resolved is not None and resolved.route.may_wait
        if seconds > services.slow_seconds and not may_wait:
            path, method = about
            target = resolved.target if resolved is not None else None
            fields = target.key.fields if target is not None else {}
            text = "slow: %s %s took %.3f s, status %d"
            log.warning(text, method, path, seconds, status, extra={"fields": fields})

    # --- what follows a response

    def _go_on(self) -> None:
        """Take the next request if part of it is there, else read on."""
        if not self._writable:
            return
        if self._reader.received:
            self._schedule()
        elif self._ended and self._state is IDLE:
            self.close()
        elif not self._services.draining:
            self._resume_reading()

    def _schedule(self) -> None:
        """Take the next request in the next turn of the event loop, after those of others."""
        self._pause_reading()
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._take_scheduled)

    def _take_scheduled(self) -> None:
        self._scheduled = False
        if self._transport is not None and not self._transport.is_closing():
            self._take_request()

    def _finish(self, stream: Stream | None, linger: bool) -> None:
        """Stream events, or linger, or close: the last response was sent."""
        self._reader.drop()
        if stream is not None and not self._reader.head_only:
            self._state, self._stream = STREAMING, stream
            stream.ended.add_done_callback(lambda _ended: self.close())
            stream.start(self._send_event)
            self._resume_reading()
        elif linger and not self._ended and self._transport is not None:
            self._state = LINGERING
            self._transport.write_eof()
            self._arm(LINGER_SECONDS)
            self._resume_reading()
        else:
            if stream is not None:
                stream.close()
            self.close()

    def _send_event(self, frame: bytes) -> None:
        """Write part of a stream; end the stream whose peer does not read it.

        What goes out when nothing is unread may have any size, such as all that a stream has
        missed: a peer that is about to read is not slow yet.
        """
        transport = self._transport
        if transport is None:
            return
        unread = transport.get_write_buffer_size()
        if not unread:
            self._burst = len(frame)
        elif unread + len(frame) > MAX_UNREAD_BYTES + self._burst:
            log.warning("ended an event stream: its peer does not read it")
            transport.abort()
            return
        transport.write(frame)

    # --- the end

    @property
    def _needs_peer(self) -> bool:
        """Report whether what is done now is of use only while the peer is there."""
        return self._state is STREAMING or self._abandon is not None

    @property
    def _has_hung_up(self) -> bool:
        transport = self._transport
        return transport is not None and has_hung_up(transport.get_extra_info("socket"))

    def _watch_peer(self) -> None:
        """Notice the end of a peer that is not read from: one that has shut down its sending half,
        or that has sent more than its request.
        """
        blind = self._ended or not self._reading
        if blind and self._needs_peer and not self._watching and self._transport is not None:
            self._watching = True
            self._loop.call_later(PEER_CHECK_SECONDS, self._check_peer)

    def _check_peer(self) -> None:
        self._watching = False
        if self._needs_peer and self._has_hung_up:
            self.abort()
        else:
            self._watch_peer()

    @property
    def busy(self) -> bool:
        """Report whether a request was received, or its body is, and there is no response yet."""
        return self._state is HANDLING or self._scheduled or self._reader.body is not None

    def begin_drain(self) -> None:
        """Read no further request; close the connection now if none is in progress.

        What a client sends from here on stays unread in the kernel. Closing the socket then gives
        the client ECONNRESET, which tells it that nobody acted upon the request.
        """
        if self._state is STREAMING or self._state is LINGERING or self._reader.body is not None:
            return
        self._pause_reading()
        if not self.busy:
            self.close()

    def close(self) -> None:
        """Close the connection once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # --- reading and time

    def _pause_reading(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self._writable and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def _arm(self, seconds: float) -> None:
        """Set the deadline of the state. A timer that goes off too early is set again."""
        self._deadline = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._state is HANDLING or self._state is STREAMING or self._scheduled:
            self._arm(self._limits.idle_timeout_seconds)
        elif self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)
        elif self._state is LINGERING:
            self.abort()
        elif self._state is IDLE:
            self.close()
        elif self._reader.body is None:
            self._refuse(_too_slow("request: its header", self._limits.header_timeout_seconds))
        else:
            self._refuse(_too_slow("request body: it", self._services.body_timeout))


def _incomplete() -> InvalidRequest:
    return InvalidRequest("cannot read the request: it ended before it was complete")


def _too_slow(what: str, seconds: float) -> RequestTimeout:
    return RequestTimeout(f"cannot read the {what} was not complete after {seconds:g} s")
