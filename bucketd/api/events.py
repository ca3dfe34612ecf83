"""Handlers of the event routes."""

from __future__ import annotations

import asyncio
import time

from ..contexts import Context
from ..watcher import Only, Watcher
from . import wire
from .call import Call
from .wire import Answer


async def watch(call: Call) -> Answer:
    """What changes in one bucket, for as long as the caller may know."""
    if call.target is None:
        raise TypeError("a bucket handler stands on a route that names no bucket")
    return await _stream(call, Only(call.target.key, members=_members(call)), call.flag("snapshot"))


async def watch_all(call: Call) -> Answer:
    """What changes in any bucket that the filters let through, and in contexts."""
    device, job, automation = map(call.name, ("device", "job", "automation"))
    only = Only(None, device, job, automation, _members(call))
    return await _stream(call, only, snapshot=False)


async def _stream(call: Call, only: Only, snapshot: bool) -> Answer:
    watcher = call.services.events.open(only)
    try:
        if call.caller.context is not None:
            _bind(watcher, call.caller.context)
        await watcher.sync(call.headers.get("Last-Event-ID"), snapshot)
    except BaseException:
        watcher.close()
        raise
    return Answer(headers=wire.EVENT_HEADERS, close=True, stream=watcher)


def _members(call: Call) -> frozenset[str] | None:
    keys = call.query.get("key")
    return None if keys is None else frozenset(keys)


def _bind(watcher: Watcher, context: Context) -> None:
    """Let the stream end with the context: now if it is revoked, else when it expires."""
    watcher.context = context.id
    left = max(0.0, context.expires - time.time())
    expiry = asyncio.get_running_loop().call_later(left, watcher.close)
    watcher.ended.add_done_callback(lambda _: expiry.cancel())
