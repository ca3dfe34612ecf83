"""Watching over blocking sockets."""

from __future__ import annotations

import time
from collections.abc import Generator

from ._connections import Connection
from ._events import Change
from ._watch_session import FAILURES, Told, Watching


def changes(watching: Watching) -> Generator[Change, None, None]:
    """The changes of one bucket from now on; this returns once the daemon tells of them."""
    stream = _stream(watching)
    next(stream)
    return _only_changes(stream)


def everything(watching: Watching) -> Generator[Told, None, None]:
    """The same, with whatever else is told."""
    return (told for told in _stream(watching) if told is not None)


def _only_changes(
    stream: Generator[Told | None, None, None],
) -> Generator[Change, None, None]:
    try:
        for told in stream:
            if isinstance(told, Change):
                yield told
    finally:
        stream.close()


def _stream(watching: Watching) -> Generator[Told | None, None, None]:
    """None for each time that the daemon has taken it on."""
    while True:
        connection = None
        try:
            connection = Connection(watching.path, time.monotonic() + watching.seconds)
            connection.send(watching.request(), time.monotonic() + watching.seconds)
            while True:
                chunk = connection.receive(time.monotonic() + watching.seconds)
                yield from watching.take(chunk)
        except FAILURES as failure:
            seconds = watching.pause(failure)
        finally:
            if connection is not None:
                connection.close()
        time.sleep(seconds)
