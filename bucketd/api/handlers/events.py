"""Handlers of the event routes."""

from __future__ import annotations

import asyncio

from ...core.contexts import Context
from ...core.events import EventFilter, Subscription, View
from ...store import Filter
from .. import responses
from ..request import Request
from ..responses import Response

# Timers of the event loop do not run while the machine is suspended, so a timer is short and checks
# the time again.
MAX_TIMER_SECONDS = 10.0


async def watch(request: Request) -> Response:
    """Stream the changes of one bucket while the caller may read it."""
    only = EventFilter(request.bucket.key, view=_view(request, request.bucket.automation))
    return await _stream(request, only, request.flag("snapshot"))


async def watch_all(request: Request) -> Response:
    """Stream the changes of all buckets that match the filters, and of contexts."""
    names = Filter(request.name("device"), request.name("job"), request.name("automation"))
    return await _stream(request, EventFilter(None, names, _view(request)), snapshot=False)


async def _stream(request: Request, only: EventFilter, snapshot: bool) -> Response:
    subscription = request.services.events.open(only)
    try:
        if request.context is not None:
            _end_with(subscription, request.context)
        await subscription.prepare(request.head.headers.get("Last-Event-ID"), snapshot)
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
    subscription.ended.add_done_callback(_Expiry(subscription, context).cancel)


class _Expiry:
    """End a stream when its context expires, even if the machine is suspended meanwhile."""

    def __init__(self, subscription: Subscription, context: Context) -> None:
        self._subscription, self._context = subscription, context
        self._timer: asyncio.TimerHandle | None = None
        self._check()

    def _check(self) -> None:
        left = self._context.seconds_left
        if left <= 0:
            self._subscription.close()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(left, MAX_TIMER_SECONDS), self._check)

    def cancel(self, _ended: object) -> None:
        """Stop the timer of a stream that has ended."""
        if self._timer is not None:
            self._timer.cancel()
