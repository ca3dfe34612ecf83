"""Handlers that tell how the daemon is."""

from __future__ import annotations

from functools import cache
from importlib import resources

from ...errors import ShuttingDown
from .. import responses
from ..request import Request
from ..responses import Response


def health(_request: Request) -> Response:
    """Alive: the event loop answers."""
    return responses.success({"status": "ok"})


def ready(request: Request) -> Response:
    """Ready to serve; not any more while draining."""
    if request.services.draining:
        raise ShuttingDown("cannot serve: the daemon is stopping; try again in a moment")
    return responses.success({"status": "ready"})


def openapi(_request: Request) -> Response:
    """Every route, in OpenAPI 3.1."""
    return responses.response(_openapi())


@cache
def _openapi() -> bytes:
    return resources.files("bucketd.api").joinpath("openapi.json").read_bytes()


async def metrics(request: Request) -> Response:
    """The figures for Prometheus, as text."""
    return responses.metrics(await request.services.metrics())


async def status(request: Request) -> Response:
    return responses.success(await request.services.status())
