"""Handlers of the hold routes."""

from __future__ import annotations

import asyncio

from ...core.holds import EXPIRED, HoldRequest, HoldStream
from ...model.strict_json import as_object
from ...store import Owner
from .. import responses
from ..access import user_name
from ..request import Request
from ..responses import Deferred, Response
from .expiry import Expiry


def take(request: Request) -> Deferred:
    """Hold a pair or a device: the stream begins once the hold is had, and ends with it."""
    task = asyncio.ensure_future(_take(request))
    return Deferred(task, responses.event_stream, abandon=task.cancel)


async def _take(request: Request) -> HoldStream:
    wanted = await request.json(lambda body: HoldRequest.checked(as_object(body)))
    services, context, key = request.services, request.context, request.bucket.key
    peer, operators = request.peer, services.operators
    name = await user_name(peer.uid)
    if context is None:
        owner = Owner(name, peer.uid, peer.pid)
        return await services.holds.take(
            key,
            wanted,
            owner,
            is_operator=operators.include(peer),
            allowed=lambda: services.operators.include(peer),
        )
    owner = Owner(name, peer.uid, peer.pid, context.id, context.automation)
    expiry = Expiry(context, lambda: services.holds.end_context(context.id, EXPIRED))
    try:
        stream = await services.holds.take(key, wanted, owner, operators.include(peer))
    except BaseException:
        expiry.cancel()
        raise
    stream.ended.add_done_callback(expiry.cancel)
    return stream


async def list_all(request: Request) -> Response:
    device, job = request.name("device"), request.name("job")
    held, waiting = await request.services.holds.rows(device, job)
    return responses.success({"holds": held, "waiting": waiting})


async def end(request: Request) -> Response:
    """End a hold, or the wait for one."""
    return responses.success(await request.services.holds.end(request.head.names["id"]))
