"""Handlers of the event routes."""

from __future__ import annotations

import asyncio

from ...core.contexts import Context
from ...core.events.subscription import Only, Watcher
from .. import responses
from ..request import Request
from ..responses import Response

LOOK_SECONDS = 10.0  # between looks at the clock: timers of the loop stand still in a sleep


async def watch(request: Request) -> Response:
    """What changes in one bucket, for as long as the caller may know."""
    only = Only(request.bucket.key, members=_members(request))
    return await _stream(request, only, request.flag("snapshot"))


async def watch_all(request: Request) -> Response:
    """What changes in any bucket that the filters let through, and in contexts."""
    device, job, automation = map(request.name, ("device", "job", "automation"))
    only = Only(None, device, job, automation, _members(request))
    return await _stream(request, only, snapshot=False)


async def _stream(request: Request, only: Only, snapshot: bool) -> Response:
    watcher = request.services.events.open(only)
    try:
        if request.caller.context is not None:
            _bind(watcher, request.caller.context)
        await watcher.sync(request.head.headers.get("Last-Event-ID"), snapshot)
    except BaseException:
        watcher.close()
        raise
    return responses.event_stream(watcher)


def _members(request: Request) -> frozenset[str] | None:
    keys = request.head.query.get("key")
    return None if keys is None else frozenset(keys)


def _bind(watcher: Watcher, context: Context) -> None:
    """Let the stream end with the context: now if it is revoked, else when it expires."""
    watcher.context = context.id
    watcher.ended.add_done_callback(_Expiry(watcher, context).cancel)


class _Expiry:
    """Ends a stream with its context, also where the machine sleeps meanwhile."""

    def __init__(self, watcher: Watcher, context: Context) -> None:
        self._watcher, self._context = watcher, context
        self._handle: asyncio.TimerHandle | None = None
        self._look()

    def _look(self) -> None:
        left = self._context.seconds_left
        if left <= 0:
            self._watcher.close()
        else:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(min(left, LOOK_SECONDS), self._look)

    def cancel(self, _ended: object) -> None:
        if self._handle is not None:
            self._handle.cancel()
