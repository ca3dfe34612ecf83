"""One call over a unix socket, on the loop of asyncio.

The rules of ``_retry`` apply as for blocking calls. The connection of a cancelled call is closed,
so its response cannot be taken for that of another call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._async_connections import Pool, pool_of_loop, sleep
from ._clock import monotonic
from ._connections import TIMED_OUT
from ._http11 import Response
from ._retry import FAILURES, Attempt, Attempts, NotSent

# See _bucket.
__tracebackhide__ = True

if TYPE_CHECKING:
    from ._retry import Outcome


async def exchange(method: str, data: bytes, path: str, timeout: float | None = None) -> Response:
    """Return the daemon's response to an encoded request; see ``_transport.exchange``."""
    attempts = Attempts(method, path, timeout)
    pool = await pool_of_loop(path)
    while True:
        began = monotonic()
        outcome: Outcome
        try:
            outcome = await _attempt(pool, method, data, attempts.deadline)
        except FAILURES as failure:
            outcome = failure
        pause = attempts.pause_after(outcome)
        if pause is not None:
            await sleep(pause)
        if pause is None or attempts.are_over():
            return attempts.result(outcome, began)


async def _attempt(pool: Pool, method: str, data: bytes, deadline: float) -> Response:
    try:
        connection = await pool.take(deadline)
    except TIMED_OUT:
        raise NotSent from None
    keep = False
    try:
        attempt, response = Attempt(method), None
        connection.send(data)
        while response is None:
            try:
                received = await connection.receive(deadline)
            except OSError as cause:
                raise attempt.failed(cause, connection.is_sent(cause)) from None
            response = attempt.receive(received)
        keep = attempt.keeps_alive
        return response
    finally:
        pool.give(connection, keep)
