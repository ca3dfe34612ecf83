"""Handlers of the routes about the daemon: health, status, metrics, OpenAPI."""

from __future__ import annotations

from functools import cache
from importlib import resources

from ...errors import ShuttingDown
from .. import responses
from ..request import Request
from ..responses import Response


def health(_request: Request) -> Response:
    """Report that the event loop responds."""
    return responses.success({"status": "ok"})


def ready(request: Request) -> Response:
    """Report that the daemon serves requests; raise ShuttingDown while it drains."""
    if request.services.draining:
        raise ShuttingDown("cannot serve: the daemon is stopping; try again in a moment")
    return responses.success({"status": "ready"})


def openapi(_request: Request) -> Response:
    """Return the OpenAPI 3.1 document of all routes."""
    return responses.response(_openapi())


@cache
def _openapi() -> bytes:
    return resources.files("bucketd.api").joinpath("openapi.json").read_bytes()


async def metrics(request: Request) -> Response:
    """Return the metrics as Prometheus text."""
    return responses.metrics(await request.services.metrics())


async def status(request: Request) -> Response:
    return responses.success(await request.services.status())
