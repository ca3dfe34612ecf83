"""Handlers of the trash: deleted buckets are listed, restored, and deleted for good."""

from __future__ import annotations

from typing import Any

from ...concurrency import offload
from ...errors import InvalidRequest
from ...model.trashed import TrashInfo
from ...store.base import Filter
from .. import responses
from ..access import user_name
from ..request import Request, Target
from ..responses import Response
from .buckets import limit_of


async def list_all(request: Request) -> Response:
    job = request.one("job")
    # A job has a name, so the empty one stands for none: the device bucket.
    chosen = job if job == "" else request.name("job")
    only = Filter(request.name("device"), chosen, request.name("automation"))
    trash = request.services.trash
    page = await trash.list(only, request.one("cursor"), limit_of(request))
    more = responses.unreadable(page.unreadable)
    return await offload(
        lambda: responses.success(
            {
                "trash": [_listed(row, trash.expires_at(row)) for row in page.rows],
                "next_cursor": page.next_cursor,
                **more,
            }
        )
    )


async def restore(request: Request) -> Response:
    services, head = request.services, request.head
    if request.body.strip() not in (b"", b"{}"):
        raise InvalidRequest("cannot restore with a body: the path says what to restore")
    author = request.author(await user_name(request.peer.uid))
    request.about, now = await services.trash.restore(
        services.buckets, head.names["id"], head.preconditions, author
    )
    template = responses.MINIMAL if head.minimal else Target(request.about, None).template
    return template.fill(now)


async def remove(request: Request) -> Response:
    """Delete a bucket for good."""
    await request.services.trash.remove(request.head.names["id"])
    return responses.success({})


def _listed(row: TrashInfo, expires_at: str | None) -> dict[str, Any]:
    by, members = row.by, row._asdict()
    del members["by"]
    return {**members, "deleted_at": row.deleted_at, "expires_at": expires_at, "by": by}
