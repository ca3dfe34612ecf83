"""Watch over blocking sockets."""

from __future__ import annotations

import time
from collections.abc import Generator

from ._clock import monotonic
from ._connections import Connection
from ._events import Change
from ._watch_session import FAILURES, Received, Watching

# See _bucket.
__tracebackhide__ = True


def changes(watching: Watching) -> Generator[Change, None, None]:
    """Yield all changes of one bucket that are made after this function has returned."""
    stream = _stream(watching)
    next(stream)
    return _only_changes(stream)


def everything(watching: Watching) -> Generator[Received, None, None]:
    """Yield changes and notices, from the first step on."""
    return (received for received in _stream(watching) if received is not None)


def _only_changes(
    stream: Generator[Received | None, None, None],
) -> Generator[Change, None, None]:
    try:
        for received in stream:
            if isinstance(received, Change):
                yield received
    finally:
        stream.close()


def _stream(watching: Watching) -> Generator[Received | None, None, None]:
    """Yield the received events, and None each time that the daemon has accepted the watch."""
    while True:
        connection = None
        try:
            connection = Connection(watching.path, monotonic() + watching.seconds)
            connection.send(watching.request(), monotonic() + watching.seconds)
            while True:
                chunk = connection.receive(monotonic() + watching.seconds)
                yield from watching.take(chunk)
        except FAILURES as failure:
            seconds = watching.pause(failure)
        finally:
            if connection is not None:
                connection.close()
        time.sleep(seconds)
