"""One call over a unix socket: one write, one read, on a connection that is kept.

What may be repeated when a connection breaks follows from what the other end
has seen. Nothing was sent, or sending ended in EPIPE, or the answer is
ECONNRESET before its first byte: on a unix socket the kernel says that when
the other end closed with unread bytes, and the daemon acts only on a request
that it has read to the end. So even a write is repeated then. An orderly end
without an answer leaves the outcome open: reads are repeated, a write fails.
"""

from __future__ import annotations

import os
import stat
import time

from ._connections import TIMED_OUT, Connection, Pool
from ._errors import BucketError, error
from ._http11 import Answer, Reader, encode, usual

__all__ = ["Answer", "Lost", "exchange", "final", "may_pass", "request", "wait_asked_for"]

REACH_SECONDS, ANSWER_SECONDS = 5.0, 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1
LONGEST_SOCKET_PATH = 107
_READS = ("GET", "HEAD")
FAIR_SECONDS = 0.25
# Refusals that promise that nothing was done, and that a later try may be better.
_BUSY = (b'"overloaded"', b'"too_many_requests"')
_STOPPING = b'"shutting_down"'


class _NotTaken(Exception):
    """The daemon has not read the whole request, so it did not act on it."""


class _NotSent(Exception):
    """The time was over before the daemon had the whole request, so it did not act on it."""


class Lost(Exception):
    """The connection ended in good order, and without a whole answer."""


_pool = Pool()
os.register_at_fork(after_in_child=_pool.forget)


class _Tries:
    """When there may be another try, and until when an answer is waited for."""

    def __init__(self, timeout: float | None, began: float) -> None:
        self.reach_seconds = REACH_SECONDS if timeout is None else timeout
        self.answer_seconds = ANSWER_SECONDS if timeout is None else timeout
        self.answer_by = began + self.answer_seconds
        self._reach_by = began + self.reach_seconds
        self._pause = FIRST_PAUSE

    def again(self, at_least: float = 0.0) -> bool:
        """Wait for the next try, at least so many seconds; False where no time is left for it."""
        pause = max(self._pause, at_least)
        if time.monotonic() + pause >= self._reach_by:
            return False
        time.sleep(pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return time.monotonic() < self._reach_by  # a busy machine may have let it sleep longer


def request(
    method: str,
    target: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    path: str,
    timeout: float | None = None,
    began: float | None = None,
) -> Answer:
    """One answer of the daemon, as ``exchange`` gets it."""
    text = encode(method, target, body, headers or {})
    return exchange(method, text, path=path, timeout=timeout, began=began)


def exchange(
    method: str,
    text: bytes,
    *,
    path: str,
    timeout: float | None = None,
    began: float | None = None,
) -> Answer:
    """One answer of the daemon to a request that is encoded.

    While nobody serves the socket, or the daemon says that it is busy or
    stopping, it is tried again for ``timeout`` seconds (5); an answer may take
    as long (30). Both count from ``began`` on (``time.monotonic()``; now).
    Raises DaemonUnreachable, Timeout, or for a write whose outcome is open
    ConnectionLost.
    """
    tries = _Tries(timeout, time.monotonic() if began is None else began)
    if began is not None and time.monotonic() >= tries.answer_by:
        raise error(
            "timeout",
            f"cannot make the {method}: its time was over before its turn came; nothing was sent",
        )
    failure: BaseException | None = None
    while True:
        left = tries.answer_by - time.monotonic()
        try:
            answer = _exchange(text, method, path, tries.answer_by)
            pause = wait_asked_for(answer)
            if pause is None or not tries.again(pause):
                return answer
            continue
        except (_NotSent, *TIMED_OUT) as cause:
            # A last read that was given hardly any time tells less than the one before it.
            if failure is not None and left < FAIR_SECONDS and method in _READS:
                raise final(failure, method, path, tries.reach_seconds) from None
            raise _too_slow(method, tries.answer_seconds, cause) from None
        except (OSError, _NotTaken, Lost) as cause:
            failure = cause
        if not may_pass(failure, method, path) or not tries.again():
            raise final(failure, method, path, tries.reach_seconds) from None


def _exchange(text: bytes, method: str, path: str, deadline: float) -> Answer:
    try:
        connection = _pool.take(path) or Connection(path, deadline)
    except TIMED_OUT:
        raise _NotSent from None
    keep = False
    try:
        _send(connection, text, deadline)
        answer, keep = _receive(connection, method, deadline)
    finally:
        if not keep:
            connection.close()
    _pool.give(path, connection)
    return answer


def _send(connection: Connection, text: bytes, deadline: float) -> None:
    try:
        connection.send(text, deadline)
    except TIMED_OUT:
        raise _NotSent from None
    except ConnectionError:
        # The daemon may have answered before it closed: 413 to a body it would not read.
        if not connection.said_something():
            raise _NotTaken from None


def _receive(connection: Connection, method: str, deadline: float) -> tuple[Answer, bool]:
    try:
        first = connection.receive(deadline)
    except ConnectionResetError:
        raise _NotTaken from None
    if not first:
        raise Lost
    answer = usual(first)
    if answer is not None and method != "HEAD":
        return answer, True

    def receive() -> bytes:
        try:
            chunk = connection.receive(deadline)
        except ConnectionResetError:
            raise Lost from None
        if not chunk:
            raise Lost
        return chunk

    return Reader(receive, first).answer(method)


def wait_asked_for(answer: Answer) -> float | None:
    """Seconds before another try; None where the answer is not to be tried again."""
    if answer.status not in (429, 503):
        return None
    if _STOPPING in answer.body:
        return 0.0  # its successor serves when it is ready, which no Retry-After can know
    if not any(code in answer.body for code in _BUSY):
        return None
    asked = answer.headers.get("retry-after", "")
    return float(asked) if asked.isascii() and asked.isdecimal() else 0.0


def may_pass(failure: BaseException, method: str, path: str) -> bool:
    """Whether a repetition is safe, and has a chance."""
    if isinstance(failure, Lost):
        return method in _READS
    if isinstance(failure, ConnectionRefusedError):
        return _no_socket(path) is None
    return isinstance(failure, (_NotTaken, FileNotFoundError, BlockingIOError))


def _no_socket(path: str) -> str | None:
    """Why no daemon can ever answer at this path, if so."""
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        return f"a socket's path has at most {LONGEST_SOCKET_PATH} bytes"
    try:
        return None if stat.S_ISSOCK(os.stat(path).st_mode) else "it is no socket"
    except OSError:
        return None  # connecting has told more


def final(failure: BaseException, method: str, path: str, waited: float) -> BucketError:
    """What the caller is told once no further try is made."""
    if isinstance(failure, Lost) and method not in _READS:
        return error(
            "connection_lost",
            f"cannot tell whether the {method} was done: the daemon closed the connection "
            "without a whole answer; read the bucket before you repeat it",
        )
    cause = _no_socket(path) or _cause(failure)
    how_long = f" for {waited:g} s" if may_pass(failure, method, path) else ""
    return error(
        "daemon_unreachable",
        f"cannot reach bucketd on {path}: {cause}{how_long}; is bucketd running? "
        "BUCKETD_SOCKET names its socket",
    )


def _cause(failure: BaseException) -> str:
    if isinstance(failure, BlockingIOError):
        return "it takes no further connections"
    if isinstance(failure, OSError):
        return (failure.strerror or str(failure)).lower()
    return "it closes each connection without an answer"


def _too_slow(method: str, seconds: float, cause: BaseException) -> BucketError:
    if isinstance(cause, _NotSent):
        why = f"its time ({seconds:g} s) was over before it was sent; nothing was changed"
        return error("timeout", f"cannot make the {method}: {why}")
    known = "" if method in _READS else "; whether it was done is not known"
    return error("timeout", f"cannot finish the {method}: no answer within {seconds:g} s{known}")
