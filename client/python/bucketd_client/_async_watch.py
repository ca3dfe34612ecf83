"""Watch on the loop of asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ._async_connections import Connection, sleep
from ._clock import monotonic
from ._events import Change
from ._watch_session import FAILURES, Watching

# See _bucket.
__tracebackhide__ = True


async def changes(watching: Watching) -> AsyncGenerator[Change, None]:
    """Yield the changes of one bucket, from the first ``await`` on."""
    while True:
        connection = None
        try:
            connection = await Connection.open(watching.path)
            connection.send(watching.request())
            while True:
                chunk = await connection.receive(monotonic() + watching.seconds)
                for received in watching.take(chunk):
                    if isinstance(received, Change):
                        yield received
        except FAILURES as failure:
            seconds = watching.pause(failure)
        finally:
            if connection is not None:
                connection.close()
        await sleep(seconds)
