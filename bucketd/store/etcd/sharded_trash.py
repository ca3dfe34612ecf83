"""The trash of several clusters as one: ids sort by time, so their pages can be merged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ...errors import NotFound
from ...model.bucket import BucketKey
from ...model.trashed import TrashedBucket
from ..base import Filter, TrashPage
from ..trash import not_in_trash
from .trash import EtcdTrash


class ShardedTrash:
    """Present the trash of all shards as one. ``number_of`` returns the shard of a bucket."""

    def __init__(self, shards: Sequence[EtcdTrash], number_of: Callable[[BucketKey], int]) -> None:
        self._shards, self._number_of = shards, number_of

    async def list(self, only: Filter, cursor: str | None, limit: int) -> TrashPage:
        pages = await asyncio.gather(*(one.list(only, cursor, limit) for one in self._shards))
        # A shard whose page ended early may have more between that end and the rows of others.
        ends = [page.next_cursor for page in pages if page.next_cursor is not None]
        end = max(ends, default="")
        merged = sorted((row for page in pages for row in page.rows), key=lambda row: row.id)
        rows = [row for row in reversed(merged) if row.id >= end]
        more = len(rows) > limit or bool(ends)
        rows = rows[:limit]
        unreadable = [name for page in pages for name in page.unreadable]
        return TrashPage(rows, (rows[-1].id if rows else end) if more else None, unreadable)

    async def read(self, trash_id: str) -> TrashedBucket:
        # The id does not name the shard, and there are few shards.
        for shard in self._shards:
            try:
                return await shard.read(trash_id)
            except NotFound:
                continue
        raise not_in_trash(trash_id)

    async def newest(self, key: BucketKey) -> TrashedBucket | None:
        return await self._shards[self._number_of(key)].newest(key)

    async def remove(self, trash_id: str) -> None:
        for shard in self._shards:
            try:
                return await shard.remove(trash_id)
            except NotFound:
                continue
        raise not_in_trash(trash_id)

    async def expire(self, _is_over: Callable[[float], bool]) -> int:
        """Return at once: the leases end by themselves."""
        return 0
