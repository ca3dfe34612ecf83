"""Handlers of the event routes."""

from __future__ import annotations

from ...core.contexts import Context
from ...core.events import EventFilter, Subscription, View
from ...store import Filter
from .. import responses
from ..request import Request
from ..responses import Response
from .expiry import Expiry


async def watch(request: Request) -> Response:
    """Stream the changes of one bucket while the caller may read it, and holds of it."""
    view = _view(request, request.bucket.automation)
    only = EventFilter(request.bucket.key, view=view, holds=request.flag("holds"))
    return await _stream(request, only, request.flag("snapshot"))


async def watch_all(request: Request) -> Response:
    """Stream the changes of all buckets that match the filters, of contexts, and of holds."""
    names = Filter(request.name("device"), request.name("job"), request.name("automation"))
    only = EventFilter(None, names, _view(request), request.flag("holds"))
    return await _stream(request, only, snapshot=False)


async def _stream(request: Request, only: EventFilter, snapshot: bool) -> Response:
    subscription = request.services.events.open(only)
    try:
        if request.context is not None:
            _end_with(subscription, request.context)
        if only.holds:
            await request.services.holds.refresh()
        await subscription.prepare(request.head.headers.get("Last-Event-ID"), snapshot)
        if only.holds:
            request.services.events.send_holds_to(subscription, request.services.holds.queue)
    except BaseException:
        subscription.close()
        raise
    return responses.event_stream(subscription)


def _view(request: Request, automation: str | None = None) -> View:
    keys = request.head.query.get("key")
    masking_of = request.services.schemas.masking if request.head.masked else None
    return View(None if keys is None else frozenset(keys), masking_of, automation)


def _end_with(subscription: Subscription, context: Context) -> None:
    """End the stream when the context is revoked or expires."""
    subscription.context = context.id
    subscription.ended.add_done_callback(Expiry(context, subscription.close).cancel)
