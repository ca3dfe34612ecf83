"""Handlers that tell how the daemon is."""

from __future__ import annotations

from functools import cache
from importlib import resources

from ...errors import ShuttingDown
from .. import responses
from ..request import Call
from ..responses import Answer


async def health(_call: Call) -> Answer:
    """Alive: the event loop answers."""
    return responses.success({"status": "ok"})


async def ready(call: Call) -> Answer:
    """Ready to serve; not any more while draining."""
    if call.services.draining:
        raise ShuttingDown("cannot serve: the daemon is stopping; try again in a moment")
    return responses.success({"status": "ready"})


async def openapi(_call: Call) -> Answer:
    """Every route, in OpenAPI 3.1."""
    return Answer(_openapi())


@cache
def _openapi() -> bytes:
    return resources.files(__package__).joinpath("openapi.json").read_bytes()


async def metrics(call: Call) -> Answer:
    """The figures for Prometheus, as text."""
    return Answer(await call.services.metrics(), headers=responses.METRICS_HEADERS)


async def status(call: Call) -> Answer:
    return responses.success(await call.services.status())
