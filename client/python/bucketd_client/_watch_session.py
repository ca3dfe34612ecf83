"""One watch, without input and output: what is asked, what the answer means, when to ask again.

It outlasts its connections. Each goes on behind the last event of the one before; where the
daemon no longer knows what lies between, the bucket is read anew, and that is told as a gap.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Union

from . import _api, _transport
from ._context import Scope
from ._errors import BucketError, error
from ._events import Change, Notice
from ._http11 import MAX_HEAD, Answer, encode_head
from ._sse import Event, Parser

SILENT_SECONDS = 45.0  # three heartbeats of the daemon: whoever is silent longer is not there
STEADY_SECONDS = 5.0  # a stream that lasted so long was a good one
# A daemon that restarts is back in a second, and its backlog has an end; one that stays away
# for longer is not asked ten times a second.
FIRST_PAUSE, SHORT_PAUSE, LONG_PAUSE = 0.01, 0.1, 2.0
SHORT_SECONDS = 10.0
_END = b"\r\n\r\n"
Told = Union[Change, Notice]


class Again(Exception):
    """This connection is of no more use; ``pause`` says when to make another."""


class Busy(Exception):
    """The daemon asks to come again, ``seconds`` from now."""

    def __init__(self, refusal: BucketError, seconds: float) -> None:
        super().__init__(refusal.message)
        self.refusal, self.seconds = refusal, seconds


_TIMEOUTS = (TimeoutError, socket.timeout)  # one and the same from Python 3.10 on
FAILURES = (OSError, Again, Busy, _transport.Lost)


class Watching:
    """Of one bucket or, with ``scope`` None, as an operator of all: then gaps are only told.

    ``timeout`` bounds, in seconds, how long it is tried to reach the daemon (at first 5; once
    it was reached, without end).
    """

    def __init__(
        self,
        scope: Scope | None,
        path: str,
        keys: tuple[str, ...] = (),
        snapshot: bool = False,
        since: str | None = None,
        timeout: float | None = None,
        query: str = "",
    ) -> None:
        if snapshot and since is not None:
            raise error("invalid_request", "cannot watch: give since or snapshot, not both")
        self.path = path
        self._scope, self._keys, self._query = scope, keys, query
        self._last = since
        self._whole, self._gap = snapshot, False
        self._timeout = timeout
        self._failing_since, self._began = time.monotonic(), 0.0
        self._reached = False  # ever
        self._progress = False  # on this connection
        self._pause = FIRST_PAUSE
        self._parser: Parser | None = None
        self._head = bytearray()

    @property
    def streaming(self) -> bool:
        """Whether the daemon has taken it on."""
        return self._parser is not None

    @property
    def seconds(self) -> float:
        """How long the next step may take."""
        if self.streaming:
            return SILENT_SECONDS
        return _transport.ANSWER_SECONDS if self._timeout is None else self._timeout

    @property
    def target(self) -> str:
        """Path and query of the next request."""
        if self._scope is None:
            return f"/v1/events{self._query}"
        return self._scope.events(self._keys, self._whole)

    @property
    def headers(self) -> dict[str, str]:
        resumes = self._last is not None and not self._whole
        return {
            "Accept": "text/event-stream",
            **({"Last-Event-ID": str(self._last)} if resumes else {}),
            **({} if self._scope is None else self._scope.headers()),
        }

    def request(self) -> bytes:
        """What to say on a new connection."""
        self._parser, self._head, self._progress = None, bytearray(), False
        return encode_head("GET", self.target, self.headers) + b"\r\n"

    def take(self, chunk: bytes) -> Iterator[Told | None]:
        """What these bytes of the answer tell, none at its end; None: it has been taken on.

        Raises one of FAILURES.
        """
        if not chunk:
            raise _transport.Lost
        parser = self._parser
        if parser is None:
            chunk = self._answered(chunk)
            parser = self._parser
            if parser is None:
                return
            yield None
        for event in parser.feed(chunk):
            if event.data:
                self._progress = True
                yield self._told(event)
            self._last = event.id or self._last

    def pause(self, failure: BaseException) -> float:
        """Seconds until another connection; raises BucketError where that is of no use."""
        if isinstance(failure, Again):
            return 0.0
        now = time.monotonic()
        if self.streaming:
            self._parser, self._failing_since = None, now
            if self._progress or now - self._began > STEADY_SECONDS:
                self._pause = FIRST_PAUSE
        most = SHORT_PAUSE if now - self._failing_since < SHORT_SECONDS else LONG_PAUSE
        self._pause = min(2 * self._pause, most)
        pause = self._pause * (0.5 + os.urandom(1)[0] / 510)
        if isinstance(failure, Busy):
            pause = max(pause, failure.seconds)
        if not self._may_pass(failure) or now + pause - self._failing_since > self._patience:
            raise self._final(failure) from None
        return pause

    @property
    def _patience(self) -> float:
        if self._timeout is not None:
            return self._timeout
        return float("inf") if self._reached else _transport.REACH_SECONDS

    def _may_pass(self, failure: BaseException) -> bool:
        if isinstance(failure, _TIMEOUTS):
            return self._reached
        return isinstance(failure, Busy) or _transport.may_pass(failure, "GET", self.path)

    def _final(self, failure: BaseException) -> BucketError:
        if isinstance(failure, Busy):
            return failure.refusal
        if isinstance(failure, _TIMEOUTS):
            return error("timeout", f"cannot watch: no answer within {self.seconds:g} s")
        return _transport.final(failure, "GET", self.path, self._patience)

    def _answered(self, chunk: bytes) -> bytes:
        """What of it stands behind the head of a stream."""
        self._head += chunk
        head, end, rest = bytes(self._head).partition(_END)
        if not end:
            if len(head) > MAX_HEAD:
                raise error("internal", f"cannot read the answer: over {MAX_HEAD} bytes of head")
            return b""
        answer = Answer(_status(head), head, rest)
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if "transfer-encoding" in answer.headers:
            raise error("internal", "cannot read the events: they come in chunks, as of no bucketd")
        if answer.status != 200 or kind != "text/event-stream":
            self._refused(answer)
            return b""
        self._parser, self._reached, self._began = Parser(), True, time.monotonic()
        return rest

    def _refused(self, answer: Answer) -> None:
        """Raise what the answer says, once it is there."""
        length = answer.headers.get("content-length", "")
        if length.isascii() and length.isdecimal() and len(answer.body) < int(length):
            return
        if (seconds := _transport.wait_asked_for(answer)) is not None:
            try:
                _api.checked(answer)
            except BucketError as refusal:
                raise Busy(refusal, seconds) from None
        _api.checked(answer)
        raise error("internal", "cannot read the answer: it is no stream of events")

    def _told(self, event: Event) -> Told:
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


def _status(head: bytes) -> int:
    version, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise error("internal", "cannot read the answer: it is not HTTP, so this is not bucketd")
    return int(rest[:3])
