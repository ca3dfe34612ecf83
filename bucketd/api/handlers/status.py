"""Handlers that tell how the daemon is."""

from __future__ import annotations

from functools import cache
from importlib import resources

from ...errors import ShuttingDown
from .. import responses
from ..request import Request
from ..responses import Response


async def health(_call: Request) -> Response:
    """Alive: the event loop answers."""
    return responses.success({"status": "ok"})


async def ready(call: Request) -> Response:
    """Ready to serve; not any more while draining."""
    if call.services.draining:
        raise ShuttingDown("cannot serve: the daemon is stopping; try again in a moment")
    return responses.success({"status": "ready"})


async def openapi(_call: Request) -> Response:
    """Every route, in OpenAPI 3.1."""
    return Response(_openapi())


@cache
def _openapi() -> bytes:
    return resources.files("bucketd.api").joinpath("openapi.json").read_bytes()


async def metrics(call: Request) -> Response:
    """The figures for Prometheus, as text."""
    return Response(await call.services.metrics(), headers=responses.METRICS_HEADERS)


async def status(call: Request) -> Response:
    return responses.success(await call.services.status())
