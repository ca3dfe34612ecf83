"""Handlers of the context routes."""

from __future__ import annotations

import asyncio
import time

import orjson

from ...concurrency import offload
from ...core.contexts import Context
from ...core.holds import EXPIRED, REVOKED
from ...errors import InvalidRequest, NoJobContext
from ...model.bucket import BucketKey
from ...model.strict_json import as_object
from .. import responses
from ..request import Request
from ..responses import Response
from ..services import Services

AT_ONCE = 1000
SWEEP_SECONDS = 60.0
_MEMBERS = ("device", "job", "automation", "ttl_seconds", "label")


def own(request: Request) -> Response:
    """Return the context of the caller's token."""
    context = request.context
    if context is None:
        raise NoJobContext("no job context")
    schema = request.services.schemas.find(context.automation)
    return responses.success({**_scope(context), "schema": schema is not None})


async def create(request: Request) -> Response:
    body = await request.json(as_object)
    if unknown := [name for name in body if name not in _MEMBERS]:
        raise InvalidRequest(
            f"cannot mint a context: {unknown[0][:40]!r} is not one of {', '.join(_MEMBERS)}"
        )
    context, token = await asyncio.to_thread(
        request.services.contexts.mint, *(body.get(name) for name in _MEMBERS)
    )
    request.about = BucketKey(context.device, context.job)
    announce(request.services, "created", context)
    return responses.success({"id": context.id, "token": token, **_scope(context)}, 201)


async def list_all(request: Request) -> Response:
    return await offload(_list_response, request.services)


def _list_response(services: Services) -> Response:
    """Return the response with all contexts, on a worker thread.

    orjson holds the interpreter's lock while it writes, so it gets some contexts at a time.
    """
    live = services.contexts.list()
    parts = [
        orjson.dumps([_public(context) for context in live[at : at + AT_ONCE]])[1:-1]
        for at in range(0, len(live), AT_ONCE)
    ]
    return responses.success({"contexts": orjson.Fragment(b"[%b]" % b",".join(parts))})


async def revoke(request: Request) -> Response:
    context = await asyncio.to_thread(request.services.contexts.revoke, request.head.names["id"])
    request.services.events.end(context.id)
    request.services.holds.end_context(context.id, REVOKED)
    request.about = BucketKey(context.device, context.job)
    announce(request.services, "revoked", context)
    return responses.success({"id": context.id})


def announce(services: Services, state: str, context: Context) -> None:
    """Publish to the operators' event streams that a context was created, revoked or expired."""
    services.events.announce("context", {"state": state, **_public(context)})


async def sweep(services: Services, stop: asyncio.Event) -> None:
    """Remove expired contexts until ``stop``; within a second while an operator watches."""
    due = time.monotonic() + SWEEP_SECONDS
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            if services.events.watched_by_operators or time.monotonic() > due:
                due = time.monotonic() + SWEEP_SECONDS
                for context in await asyncio.to_thread(services.contexts.sweep):
                    services.holds.end_context(context.id, EXPIRED)
                    announce(services, "expired", context)


def _scope(context: Context) -> dict[str, str | None]:
    return {
        "device": context.device,
        "job": context.job,
        "automation": context.automation,
        "label": context.label,
        "expires_at": context.expires_at,
    }


def _public(context: Context) -> dict[str, str | None]:
    """Return the public members; the hash is none, since a guessed token can be tested with it."""
    return {"id": context.id, "created_at": context.created_at, **_scope(context)}
