"""One hold, without input and output: its requests, its events, and its attempts.

A hold ends with its connection. After a restart of the daemon it is taken up again with its fence,
on a new connection.
"""

from __future__ import annotations

import json
import os

from . import _api, _retry
from ._clock import monotonic
from ._connections import TIMED_OUT
from ._errors import BucketError, HoldLost, error
from ._event_stream import Busy, EventStream
from ._http11 import encode

# See _bucket.
__tracebackhide__ = True

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

    from ._context import Scope

MAX_WAIT = 3600.0
# The daemon keeps a hold for 5 s after its restart, for a holder that comes back.
RETURN_SECONDS = 10.0
# The daemon sends nothing but comments while a hold lasts, so silence means nothing.
QUIET_SECONDS = 1e6
FIRST_PAUSE, MAX_PAUSE = 0.01, 0.1
# A request that waited longer has reached a daemon, which has ended since.
REACHED_SECONDS = 0.2
FAILURES = (OSError, Busy, _retry.Lost)
_REASONS = {
    "broken": "an operator has ended it",
    "expired": "its token has expired",
    "forbidden": "this user is no longer an operator",
    "revoked": "its token was revoked",
    "unreachable": "the daemon could not keep it in etcd",
}


class HoldEnded(HoldLost):
    """A hold that was had has ended otherwise than by its release."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"cannot use the bucket: its hold was lost: {cause}", "hold_lost")


class HoldSession:
    """A hold in its three phases: waited for, had, and taken up again.

    ``timeout`` bounds the seconds until the daemon is reached, and its response after the wait.
    """

    def __init__(
        self,
        scope: Scope,
        path: str,
        wanted: dict[str, Any],
        wait: float,
        timeout: float | None,
    ) -> None:
        self.path = path
        self.scope, self._wanted, self._timeout = scope, wanted, timeout
        self._failing_since = monotonic()
        self._until = self._failing_since + wait
        # True once a daemon has begun to serve the wait.
        self._was_reached = False
        # The time when the request was sent on this connection, None before.
        self._sent: float | None = None
        self._return_by: float | None = None
        self._stream = EventStream()
        self._pause = FIRST_PAUSE
        self.members: dict[str, Any] = {}

    @property
    def is_had(self) -> bool:
        return bool(self.members) and self._return_by is None

    @property
    def deadline(self) -> float:
        """Return the end of the next step of a connection."""
        if self.is_had:
            return monotonic() + QUIET_SECONDS
        if self._return_by is not None:
            return self._return_by
        seconds = _retry.RESPONSE_SECONDS if self._timeout is None else self._timeout
        return max(self._until, monotonic() if self._sent is None else self._sent) + seconds

    def request(self) -> bytes:
        """Return the request to send on a new connection."""
        self._stream, self._sent = EventStream(), monotonic()
        if self._return_by is None:
            left = max(0.0, self._until - self._sent)
            body = _api.encode({**self._wanted, "wait_seconds": left})
        else:
            body = _api.encode({"fence": self.members["fence"]})
        headers = {"Content-Type": _api.JSON, **self.scope.headers()}
        return encode("POST", self.scope.hold(), body, headers)

    def take(self, chunk: bytes) -> bool:
        """Report, after some more bytes of the response, whether the hold is had.

        An empty ``chunk`` is the end of the connection. Raise BucketError for a refusal or a loss,
        or one of FAILURES.
        """
        for event in self._stream.feed(chunk):
            if event.kind == "hold":
                self.members, self._return_by = _decoded(event.data), None
            elif event.kind == "lost":
                reason = str(_decoded(event.data).get("reason"))
                raise HoldEnded(_REASONS.get(reason, reason))
        return self.is_had

    def begin_return(self) -> None:
        """Begin to take the hold up again: its connection has ended without a reason."""
        self._return_by, self._pause = monotonic() + RETURN_SECONDS, FIRST_PAUSE

    def pause(self, failure: BaseException) -> float:
        """Return the seconds until another connection. Raise BucketError if that has no use."""
        now = monotonic()
        sent, self._sent = self._sent, None
        if sent is not None and now - sent > REACHED_SECONDS and not isinstance(failure, Busy):
            self._failing_since, self._pause, self._was_reached = now, FIRST_PAUSE, True
        self._pause = min(2 * self._pause, MAX_PAUSE)
        pause = self._pause * (0.5 + os.urandom(1)[0] / 510)
        if self._return_by is not None:
            if now + pause > self._return_by:
                raise HoldEnded(f"the daemon was not back within {RETURN_SECONDS:.0f} s")
            return pause
        if isinstance(failure, Busy):
            pause = max(pause, failure.seconds)
        reach = _retry.REACH_SECONDS if self._timeout is None else self._timeout
        is_repeatable = isinstance(failure, Busy) or _retry.is_repeatable(failure, "GET", self.path)
        give_up = self._failing_since + reach
        if self._was_reached:
            # A waiter goes on waiting for a daemon that restarts, too.
            give_up = max(give_up, self._until)
        if not is_repeatable or now + pause > give_up:
            waited = max(reach, round(now - self._failing_since))
            raise self._final(failure, waited) from None
        return pause

    def _final(self, failure: BaseException, waited: float) -> BucketError:
        if isinstance(failure, Busy):
            return failure.refusal
        if isinstance(failure, TIMED_OUT):
            return error("timeout", "cannot hold: the daemon has not responded after the wait")
        return _retry.final_error(failure, "GET", self.path, waited)


def _decoded(data: str) -> dict[str, Any]:
    try:
        members = json.loads(data)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise error("internal", "cannot read an event of the hold: it is not a JSON object")
    return members


def wanted(name: str, exclusive: bool, label: str | None) -> dict[str, Any]:
    """Return what a request for a hold says; the daemon checks it."""
    said: dict[str, Any] = {"name": name, "exclusive": exclusive}
    return said if label is None else {**said, "label": label}


def check_wait(wait: float) -> float:
    """Return the wait. Raise InvalidRequest unless it is a possible number of seconds."""
    if isinstance(wait, (int, float)) and not isinstance(wait, bool) and 0 <= wait <= MAX_WAIT:
        return wait
    raise error(
        "invalid_request", f"cannot hold: wait must be a number of seconds from 0 to {MAX_WAIT:.0f}"
    )
