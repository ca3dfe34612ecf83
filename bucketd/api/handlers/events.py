"""Handlers of the event routes."""

from __future__ import annotations

import asyncio

from ...core.contexts import Context
from ...core.events.subscription import Only, Watcher
from .. import responses
from ..request import Request
from ..responses import Response

LOOK_SECONDS = 10.0  # between looks at the clock: timers of the loop stand still in a sleep


async def watch(call: Request) -> Response:
    """What changes in one bucket, for as long as the caller may know."""
    if call.target is None:
        raise TypeError("a bucket handler stands on a route that names no bucket")
    return await _stream(call, Only(call.target.key, members=_members(call)), call.flag("snapshot"))


async def watch_all(call: Request) -> Response:
    """What changes in any bucket that the filters let through, and in contexts."""
    device, job, automation = map(call.name, ("device", "job", "automation"))
    only = Only(None, device, job, automation, _members(call))
    return await _stream(call, only, snapshot=False)


async def _stream(call: Request, only: Only, snapshot: bool) -> Response:
    watcher = call.services.events.open(only)
    try:
        if call.caller.context is not None:
            _bind(watcher, call.caller.context)
        await watcher.sync(call.headers.get("Last-Event-ID"), snapshot)
    except BaseException:
        watcher.close()
        raise
    return Response(headers=responses.EVENT_HEADERS, close=True, stream=watcher)


def _members(call: Request) -> frozenset[str] | None:
    keys = call.query.get("key")
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
