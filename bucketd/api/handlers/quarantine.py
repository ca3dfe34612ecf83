"""Handlers of the quarantine routes."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from typing import Any

from ...concurrency import offload
from ...errors import NotFound
from ...store.base import Quarantine
from .. import responses
from ..request import Request
from ..responses import Response


async def list_all(request: Request) -> Response:
    kept = request.services.buckets.store.quarantine
    entries = [] if kept is None else await asyncio.to_thread(kept.entries)
    return responses.success({"quarantine": [dataclasses.asdict(entry) for entry in entries]})


async def read(request: Request) -> Response:
    """Return an entry with its content: as text where it is UTF-8, else as Base64."""
    found, content = await asyncio.to_thread(_quarantine(request).read, request.head.names["id"])
    members = dataclasses.asdict(found)
    return await offload(lambda: responses.success({**members, **_shown(content)}))


async def drop(request: Request) -> Response:
    name = request.head.names["id"]
    await asyncio.to_thread(_quarantine(request).drop, name)
    return responses.success({"id": name})


def _quarantine(request: Request) -> Quarantine:
    kept = request.services.buckets.store.quarantine
    if kept is None:
        raise NotFound("cannot look into the quarantine: buckets on etcd have none")
    return kept


def _shown(content: bytes) -> dict[str, Any]:
    try:
        return {"text": content.decode(), "base64": None}
    except UnicodeDecodeError:
        return {"text": None, "base64": base64.b64encode(content).decode()}
