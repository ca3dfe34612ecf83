"""One blocking call over a unix socket: one write and one read on a keep-alive connection.

``_retry`` decides which requests to repeat when a connection breaks.
"""

from __future__ import annotations

import atexit
import time

from ._clock import monotonic
from ._connections import TIMED_OUT, Connection, Pool
from ._http11 import Response, encode
from ._retry import FAILURES, Attempt, Attempts, NotSent

# See _bucket.
__tracebackhide__ = True

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from ._retry import Outcome

__all__ = ["Response", "exchange", "request"]

_pool = Pool()
# A socket that is open at the interpreter's shutdown causes a warning, or an abort (Python 3.9).
atexit.register(_pool.close)


def request(
    method: str,
    target: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    path: str,
    timeout: float | None = None,
) -> Response:
    """Return the daemon's response; see ``exchange``."""
    return exchange(method, encode(method, target, body, headers or {}), path, timeout)


def close_idle(path: str) -> None:
    """Close the idle connections to a socket."""
    _pool.close(path)


def exchange(method: str, data: bytes, path: str, timeout: float | None = None) -> Response:
    """Return the daemon's response to an encoded request.

    ``Attempts`` explains ``timeout``. Raise DaemonUnreachable, Timeout or, for a write whose
    outcome is unknown, ConnectionLost.
    """
    attempts = Attempts(method, path, timeout)
    while True:
        began = monotonic()
        outcome: Outcome
        try:
            outcome = _attempt(method, data, path, attempts.deadline)
        except FAILURES as failure:
            outcome = failure
        pause = attempts.pause_after(outcome)
        if pause is not None:
            time.sleep(pause)
        if pause is None or attempts.are_over():
            return attempts.result(outcome, began)


def _attempt(method: str, data: bytes, path: str, deadline: float) -> Response:
    try:
        connection = _pool.take(path) or Connection(path, deadline)
    except TIMED_OUT:
        raise NotSent from None
    keep = False
    try:
        attempt, response = Attempt(method), None
        _send(connection, attempt, data, deadline)
        while response is None:
            try:
                received = connection.receive(deadline)
            except OSError as cause:
                raise attempt.failed(cause, is_sent=True) from None
            response = attempt.receive(received)
        keep = attempt.keeps_alive
    finally:
        if not keep:
            connection.close()
    _pool.give(path, connection)
    return response


def _send(connection: Connection, attempt: Attempt, data: bytes, deadline: float) -> None:
    try:
        connection.send(data, deadline)
    except OSError as cause:
        # The daemon may have responded before it closed, as with 413 to a body that is too large.
        if isinstance(cause, TIMED_OUT) or not connection.has_data():
            raise attempt.failed(cause, is_sent=False) from None
