"""What may be repeated when a connection breaks, for blocking calls and for asyncio alike.

The answer follows from what the daemon has seen. Nothing was sent, or sending ended in EPIPE, or
reading ends in ECONNRESET before the first byte: on a unix socket the kernel reports that when the
peer closed with unread bytes, and the daemon acts only on a request that it has read to the end.
So even a write is repeated then. An orderly end without a response leaves the outcome open: reads
are repeated, a write fails with ``connection_lost``.
"""

from __future__ import annotations

import os
import stat

from ._clock import monotonic
from ._connections import TIMED_OUT
from ._errors import BucketError, error
from ._http11 import Response, ResponseParser

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Union

    Outcome = Union[Response, BaseException]

REACH_SECONDS, RESPONSE_SECONDS = 5.0, 30.0
FIRST_PAUSE, MAX_PAUSE = 0.005, 0.1
MAX_SOCKET_PATH = 107
_READS = ("GET", "HEAD")
_FAIR_SECONDS = 0.25
# These refusals promise that nothing was done, and that a later attempt may succeed.
_BUSY = (b'"overloaded"', b'"too_many_requests"')
_STOPPING = b'"shutting_down"'


class NotTaken(Exception):
    """The daemon has not read the whole request, so it did not act on it."""


class NotSent(Exception):
    """The time was over before the daemon had the whole request, so it did not act on it."""


class Lost(Exception):
    """The connection ended after the request was sent, without a whole response."""


# What one attempt may end with, besides a response.
FAILURES = (OSError, NotTaken, NotSent, Lost)


class Attempt:
    """One request on one connection: what its bytes and its failures mean."""

    def __init__(self, method: str) -> None:
        self._parser = ResponseParser(method)
        self._has_begun = False

    @property
    def keeps_alive(self) -> bool:
        return self._parser.keeps_alive

    def receive(self, data: bytes) -> Response | None:
        """Return the response once it is complete. Raise Lost for an end before that."""
        if not data:
            raise Lost
        self._has_begun = True
        return self._parser.feed(data)

    def failed(self, cause: OSError, is_sent: bool) -> Exception:
        """Return what a failed transfer means; ``is_sent`` says that all was sent before."""
        if isinstance(cause, TIMED_OUT):
            return cause if is_sent else NotSent()
        if not is_sent or (isinstance(cause, ConnectionResetError) and not self._has_begun):
            return NotTaken()
        return Lost()


class Attempts:
    """When there may be another attempt, and how a call ends without one.

    While nobody serves the socket, or the daemon says that it is busy or stopping, a call is
    attempted again for ``timeout`` seconds (5); a response may take as long (30). Both count from
    ``began`` on (the monotonic clock; now).
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
        """Return the seconds until another attempt, None where this outcome is the last."""
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
        """Report whether a pause has lasted longer than it should, as on a busy machine."""
        return monotonic() >= self._reach_by

    def result(self, outcome: Outcome, began: float) -> Response:
        """Return the response, or raise what a failure means for the caller.

        ``began`` is when this attempt did.
        """
        if isinstance(outcome, Response):
            return outcome
        if isinstance(outcome, (NotSent, *TIMED_OUT)):
            # A last read that was given hardly any time says less than the one before.
            little = self.deadline - began < _FAIR_SECONDS and self._method in _READS
            if self._last_failure is None or not little:
                raise self._too_slow(outcome)
            outcome = self._last_failure
        raise final_error(outcome, self._method, self._path, self._reach_seconds)

    def _too_slow(self, cause: BaseException) -> BucketError:
        method, seconds = self._method, self._response_seconds
        if isinstance(cause, NotSent):
            why = f"its time ({seconds:g} s) was over before it was sent; nothing was changed"
            return error("timeout", f"cannot make the {method}: {why}")
        unknown = "" if method in _READS else "; whether it was done is not known"
        return error(
            "timeout", f"cannot finish the {method}: no response within {seconds:g} s{unknown}"
        )


def retry_after(response: Response) -> float | None:
    """Return the seconds before another attempt, None for a response that is final."""
    if response.status not in (429, 503):
        return None
    if _STOPPING in response.body:
        # The successor serves when it is ready, which no Retry-After can know.
        return 0.0
    if not any(code in response.body for code in _BUSY):
        return None
    asked = response.headers.get("retry-after", "")
    return float(asked) if asked.isascii() and asked.isdecimal() else 0.0


def is_repeatable(failure: BaseException, method: str, path: str) -> bool:
    """Report whether another attempt is safe, and may succeed."""
    if isinstance(failure, Lost):
        return method in _READS
    if isinstance(failure, ConnectionRefusedError):
        return _why_no_socket(path) is None
    return isinstance(failure, (NotTaken, FileNotFoundError, BlockingIOError))


def final_error(failure: BaseException, method: str, path: str, waited: float) -> BucketError:
    """Return the error for the caller once no further attempt is made."""
    if isinstance(failure, Lost) and method not in _READS:
        return error(
            "connection_lost",
            f"cannot tell whether the {method} was done: the connection to the daemon ended "
            "without a whole response; read the bucket before you repeat it",
        )
    cause = _why_no_socket(path) or _cause(failure)
    how_long = f" for {waited:g} s" if is_repeatable(failure, method, path) else ""
    return error(
        "daemon_unreachable",
        f"cannot reach bucketd on {path}: {cause}{how_long}; is bucketd running? "
        "BUCKETD_SOCKET names its socket",
    )


def _why_no_socket(path: str) -> str | None:
    """Return why no daemon can ever serve this path, None where one can."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        return f"the path of a socket has at most {MAX_SOCKET_PATH} bytes"
    try:
        return None if stat.S_ISSOCK(os.stat(path).st_mode) else "it is not a socket"
    except OSError:
        # The failure to connect says more.
        return None


def _cause(failure: BaseException) -> str:
    if isinstance(failure, BlockingIOError):
        return "it takes no further connections"
    if isinstance(failure, OSError):
        return (failure.strerror or str(failure)).lower()
    return "it closes each connection without a response"
