"""``bucketd`` that notes how long any one piece of work held its event loop, in CPU time.

CPU time of the loop's thread, because on a busy machine the clock would also count
what other processes did. The longest few go to the file that LOOP_HOLDS names.
"""

from __future__ import annotations

import asyncio
import atexit
import heapq
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from bucketd.__main__ import main
from bucketd.core.events import hub
from bucketd.server import connection
from bucketd.store.file import committer

MOST = 20
_holds: list[tuple[float, str]] = []


def note(seconds: float, what: str) -> None:
    if len(_holds) < MOST or seconds > _holds[0][0]:
        (heapq.heappush if len(_holds) < MOST else heapq.heappushpop)(_holds, (seconds, what))


def timed(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*args)
        finally:
            note(time.thread_time() - began, what)

    return call


class Steps(Coroutine[Any, Any, Any]):
    """A coroutine each of whose steps is timed."""

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner, self._name = inner, getattr(inner, "__qualname__", "?")

    def send(self, value: Any) -> Any:
        return timed(self._inner.send, self._name)(value)

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()


def task_of(loop: asyncio.AbstractEventLoop, inner: Any, **more: Any) -> asyncio.Task[Any]:
    return asyncio.Task(Steps(inner), loop=loop, **more)


def write_down() -> None:
    Path(os.environ["LOOP_HOLDS"]).write_text(json.dumps(sorted(_holds, reverse=True)))


_made = connection.Connection.connection_made


def _connection_made(self: connection.Connection, transport: asyncio.BaseTransport) -> None:
    asyncio.get_running_loop().set_task_factory(task_of)
    _made(self, transport)


if __name__ == "__main__":
    atexit.register(write_down)
    kind = connection.Connection
    kind.connection_made = timed(_connection_made, "connection_made")  # type: ignore[method-assign]
    kind.data_received = timed(kind.data_received, "data_received")  # type: ignore[method-assign]
    kind._take_request = timed(kind._take_request, "next request")  # type: ignore[method-assign]
    kind._respond_with = timed(kind._respond_with, "response")  # type: ignore[method-assign]
    commits = timed(committer.Committer._commit_gathered, "commit on the loop")
    committer.Committer._commit_gathered = commits  # type: ignore[method-assign]
    beats = timed(hub.Hub._send_heartbeats, "heartbeats")
    hub.Hub._send_heartbeats = beats  # type: ignore[method-assign]
    sys.exit(main())
