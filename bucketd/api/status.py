"""Handlers that tell how the daemon is."""

from __future__ import annotations

from aiohttp import web

from ..errors import ShuttingDown
from . import wire
from .call import Call


async def health(_call: Call) -> web.Response:
    """Alive: the event loop answers."""
    return wire.success({"status": "ok"})


async def ready(call: Call) -> web.Response:
    """Ready to serve; not any more while draining."""
    if call.services.draining:
        raise ShuttingDown("not ready: the daemon is stopping")
    return wire.success({"status": "ready"})


async def status(call: Call) -> web.Response:
    return wire.success(await call.services.status())
