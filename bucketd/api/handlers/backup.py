"""Handler of the route by which a program tells that it has made a backup."""

from __future__ import annotations

import asyncio

from ...model.strict_json import as_object
from .. import responses
from ..request import Request
from ..responses import Response


async def record(request: Request) -> Response:
    """Note that a backup is complete now, and what it has."""
    told = await request.json(as_object)
    return responses.success(await asyncio.to_thread(request.services.backups.record, told))
