"""One watch, without input and output: its requests, its parser, and its reconnections.

A watch outlasts its connections; each continues after the last event of the one before. If the
daemon no longer has the changes in between, the bucket is read again, as a change with ``gap``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Union

from . import _retry
from ._clock import monotonic
from ._connections import TIMED_OUT
from ._context import Scope
from ._errors import BucketError, error
from ._event_stream import Busy, EventStream
from ._events import Change, Notice
from ._http11 import encode_head
from ._sse import Event

# See _bucket.
__tracebackhide__ = True

# Three heartbeats of the daemon: after a longer silence the connection counts as broken.
SILENT_SECONDS = 45.0
# After a stream that lasted so long, the next pause is short again.
STEADY_SECONDS = 5.0
# A daemon that restarts is back within a second; later attempts have longer pauses.
FIRST_PAUSE, SHORT_PAUSE, LONG_PAUSE = 0.01, 0.1, 2.0
SHORT_SECONDS = 10.0
Received = Union[Change, Notice]


class Again(Exception):
    """The connection is no longer usable; ``pause`` returns when to open another."""


FAILURES = (OSError, Again, Busy, _retry.Lost)


class Watching:
    """A watch of one bucket or, with ``scope`` None, of all: then a gap has no bucket.

    ``query`` has more parameters of its requests.
    ``timeout`` bounds the seconds of attempts to reach the daemon (at first 5; without end once
    it was reached).
    """

    def __init__(
        self,
        scope: Scope | None,
        path: str,
        keys: tuple[str, ...] = (),
        snapshot: bool = False,
        since: str | None = None,
        timeout: float | None = None,
        query: tuple[str, ...] = (),
    ) -> None:
        if snapshot and since is not None:
            raise error("invalid_request", "cannot watch: give since or snapshot, not both")
        self.path = path
        self._scope, self._keys, self._query = scope, keys, query
        self._last = since
        self._whole, self._gap = snapshot, False
        self._timeout = timeout
        self._failing_since, self._began = monotonic(), 0.0
        self._reached = False
        # Whether this connection has received an event.
        self._progress = False
        self._pause = FIRST_PAUSE
        self._stream = EventStream()

    @property
    def streaming(self) -> bool:
        """Report whether the daemon has accepted the watch."""
        return self._stream.has_begun

    @property
    def seconds(self) -> float:
        """Return the time limit of the next step."""
        if self.streaming:
            return SILENT_SECONDS
        return _retry.RESPONSE_SECONDS if self._timeout is None else self._timeout

    @property
    def target(self) -> str:
        """Return path and query of the next request."""
        if self._scope is None:
            return "/v1/events" + ("?" + "&".join(self._query) if self._query else "")
        return self._scope.events(self._keys, self._whole, self._query)

    @property
    def headers(self) -> dict[str, str]:
        resumes = self._last is not None and not self._whole
        return {
            "Accept": "text/event-stream",
            **({"Last-Event-ID": str(self._last)} if resumes else {}),
            **({} if self._scope is None else self._scope.headers()),
        }

    def request(self) -> bytes:
        """Return the request to send on a new connection."""
        self._stream, self._progress = EventStream(), False
        return encode_head("GET", self.target, self.headers) + b"\r\n"

    def take(self, chunk: bytes) -> Iterator[Received | None]:
        """Yield the events in some bytes, and None once the daemon has accepted the watch.

        An empty ``chunk`` is the end of the connection. Raise one of FAILURES.
        """
        was_streaming = self.streaming
        events = self._stream.feed(chunk)
        if self.streaming and not was_streaming:
            self._reached, self._began = True, monotonic()
            yield None
        for event in events:
            if event.data:
                self._progress = True
                yield self._decode(event)
            self._last = event.id or self._last

    def pause(self, failure: BaseException) -> float:
        """Return the seconds until another connection. Raise BucketError if that has no use."""
        if isinstance(failure, Again):
            return 0.0
        now = monotonic()
        if self.streaming:
            self._stream, self._failing_since = EventStream(), now
            if self._progress or now - self._began > STEADY_SECONDS:
                self._pause = FIRST_PAUSE
        most = SHORT_PAUSE if now - self._failing_since < SHORT_SECONDS else LONG_PAUSE
        self._pause = min(2 * self._pause, most)
        pause = self._pause * (0.5 + os.urandom(1)[0] / 510)
        if isinstance(failure, Busy):
            pause = max(pause, failure.seconds)
        if (
            not self._is_repeatable(failure)
            or now + pause - self._failing_since > self._reach_timeout
        ):
            raise self._final(failure) from None
        return pause

    @property
    def _reach_timeout(self) -> float:
        if self._timeout is not None:
            return self._timeout
        return float("inf") if self._reached else _retry.REACH_SECONDS

    def _is_repeatable(self, failure: BaseException) -> bool:
        if isinstance(failure, TIMED_OUT):
            return self._reached
        return isinstance(failure, Busy) or _retry.is_repeatable(failure, "GET", self.path)

    def _final(self, failure: BaseException) -> BucketError:
        if isinstance(failure, Busy):
            return failure.refusal
        if isinstance(failure, TIMED_OUT):
            return error("timeout", f"cannot watch: no response within {self.seconds:g} s")
        return _retry.final_error(failure, "GET", self.path, self._reach_timeout)

    def _decode(self, event: Event) -> Received:
        try:
            data = json.loads(event.data)
        except ValueError:
            raise error("internal", "cannot read an event: it is not JSON") from None
        if event.kind == "gap":
            return self._missed(data, event.id)
        if event.kind == "bucket":
            gap, self._whole, self._gap = self._gap, False, False
            return Change.of(data, event.id, gap)
        return Notice({"event": event.kind, "data": data, "id": event.id})

    def _missed(self, data: dict[str, object], id: str) -> Change:
        if self._scope is None:
            return Change.of(data, id, gap=True)
        self._whole = self._gap = True
        raise Again
