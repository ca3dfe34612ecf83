"""Decide which requests to repeat when a connection breaks, for blocking calls and asyncio.

The daemon acts only on a request that it has read to the end. It has not done so if nothing was
sent, if sending failed with EPIPE, or if reading fails with ECONNRESET before the first byte: on a
unix socket the kernel reports ECONNRESET if the peer closed with unread bytes. In these cases even
a write is repeated. After an end of the stream without a response the outcome is unknown: reads are
repeated, and a write fails with ``connection_lost``.
"""

from __future__ import annotations

import os
import stat

from ._clock import monotonic
from ._connections import TIMED_OUT
from ._errors import BucketError, error
from ._http11 import Response, ResponseParser

# See _bucket.
__tracebackhide__ = True

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Union

    Outcome = Union[Response, BaseException]

REACH_SECONDS, RESPONSE_SECONDS = 5.0, 30.0
FIRST_PAUSE, MAX_PAUSE = 0.005, 0.1
MAX_SOCKET_PATH = 107
_READS = ("GET", "HEAD")
_FAIR_SECONDS = 0.25
# These errors mean that nothing was changed, and that a later attempt may succeed.
_BUSY = (b'"overloaded"', b'"too_many_requests"')
_STOPPING = b'"shutting_down"'


class NotTaken(Exception):
    """The daemon has not read the whole request, so it has not acted on it."""


class NotSent(Exception):
    """The request was not sent completely in time, so the daemon has not acted on it."""


class Lost(Exception):
    """The connection ended after the request was sent, without a whole response."""


# The outcomes of an attempt other than a response.
FAILURES = (OSError, NotTaken, NotSent, Lost)


class Attempt:
    """One request on one connection: parse its response, and classify its failures."""

    def __init__(self, method: str) -> None:
        self._parser = ResponseParser(method)
        self._has_begun = False

    @property
    def keeps_alive(self) -> bool:
        return self._parser.keeps_alive

    def receive(self, data: bytes) -> Response | None:
        """Return the response once it is complete. Raise Lost if the stream ends before."""
        if not data:
            raise Lost
        self._has_begun = True
        return self._parser.feed(data)

    def failed(self, cause: OSError, is_sent: bool) -> Exception:
        """Return the outcome of a failed transfer; ``is_sent``: the whole request was sent."""
        if isinstance(cause, TIMED_OUT):
            return cause if is_sent else NotSent()
        if not is_sent or (isinstance(cause, ConnectionResetError) and not self._has_begun):
            return NotTaken()
        return Lost()


class Attempts:
    """Decide about further attempts of a call, and about its error without one.

    While no daemon serves the socket, or the daemon reports that it is busy or stopping, a call is
    attempted again for ``timeout`` seconds (default: 5); a response may take as long (default: 30).
    Both times count from ``began`` (the monotonic clock; default: now).
    """

    def __init__(
        self, method: str, path: str, timeout: float | None, began: float | None = None
    ) -> None:
        began = monotonic() if began is None else began
        self._method, self._path = method, path
        self._reach_seconds = REACH_SECONDS if timeout is None else timeout
        self._response_seconds = RESPONSE_SECONDS if timeout is None else timeout
        self._reach_by = began + self._reach_seconds
        self._pause = FIRST_PAUSE
        self._last_failure: BaseException | None = None
        self.deadline = began + self._response_seconds

    def pause_after(self, outcome: Outcome) -> float | None:
        """Return the seconds until another attempt, None if there is none."""
        at_least = 0.0
        if isinstance(outcome, Response):
            asked = retry_after(outcome)
            if asked is None:
                return None
            at_least = asked
        elif not is_repeatable(outcome, self._method, self._path):
            return None
        else:
            self._last_failure = outcome
        pause = max(self._pause, at_least)
        if monotonic() + pause >= self._reach_by:
            return None
        self._pause = min(self._pause * 2, MAX_PAUSE)
        return pause

    def are_over(self) -> bool:
        """Report whether the time for attempts is over, as after a pause on a busy machine."""
        return monotonic() >= self._reach_by

    def result(self, outcome: Outcome, began: float) -> Response:
        """Return the response, or raise the caller's error for a failure.

        ``began`` is the time at which this attempt began.
        """
        if isinstance(outcome, Response):
            return outcome
        if isinstance(outcome, (NotSent, *TIMED_OUT)):
            # A last attempt with hardly any time left says less than the one before.
            little = self.deadline - began < _FAIR_SECONDS and self._method in _READS
            if self._last_failure is None or not little:
                raise self._too_slow(outcome)
            outcome = self._last_failure
        raise final_error(outcome, self._method, self._path, self._reach_seconds)

    def _too_slow(self, cause: BaseException) -> BucketError:
        method, seconds = self._method, self._response_seconds
        if isinstance(cause, NotSent):
            why = f"it was not sent within {seconds:g} s; nothing was changed"
            return error("timeout", f"cannot make the {method}: {why}")
        unknown = "" if method in _READS else "; the outcome is unknown"
        return error(
            "timeout", f"cannot finish the {method}: no response within {seconds:g} s{unknown}"
        )


def retry_after(response: Response) -> float | None:
    """Return the seconds before another attempt, None for a response that is final."""
    if response.status not in (429, 503):
        return None
    if _STOPPING in response.body:
        # The next daemon serves as soon as it is ready, which may be sooner than Retry-After.
        return 0.0
    if not any(code in response.body for code in _BUSY):
        return None
    asked = response.headers.get("retry-after", "")
    return float(asked) if asked.isascii() and asked.isdecimal() else 0.0


def is_repeatable(failure: BaseException, method: str, path: str) -> bool:
    """Report whether another attempt is safe and may succeed."""
    if isinstance(failure, Lost):
        return method in _READS
    if isinstance(failure, ConnectionRefusedError):
        return _why_no_socket(path) is None
    # Streams receive the errors of a connection that breaks as they are; calls never do.
    broken = (ConnectionResetError, BrokenPipeError)
    return isinstance(failure, (NotTaken, FileNotFoundError, BlockingIOError, *broken))


def final_error(failure: BaseException, method: str, path: str, waited: float) -> BucketError:
    """Return the caller's error when no further attempt is made."""
    if isinstance(failure, Lost) and method not in _READS:
        return error(
            "connection_lost",
            f"cannot tell whether the {method} was done: the connection to the daemon ended "
            "without a complete response; read the bucket before you repeat it",
        )
    cause = _why_no_socket(path) or _cause(failure)
    how_long = f" for {waited:g} s" if is_repeatable(failure, method, path) else ""
    return error(
        "daemon_unreachable",
        f"cannot reach bucketd on {path}: {cause}{how_long}; is bucketd running? "
        "BUCKETD_SOCKET names its socket",
    )


def _why_no_socket(path: str) -> str | None:
    """Return why no daemon can serve this path, None if one can."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        return f"the path of a socket has at most {MAX_SOCKET_PATH} bytes"
    try:
        return None if stat.S_ISSOCK(os.stat(path).st_mode) else "it is not a socket"
    except OSError:
        # The error of the connection attempt is more specific.
        return None


def _cause(failure: BaseException) -> str:
    if isinstance(failure, BlockingIOError):
        return "it accepts no further connections"
    if isinstance(failure, OSError):
        return (failure.strerror or str(failure)).lower()
    return "it closes each connection without a response"
