"""Pages of all buckets in etcd, and how many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ...concurrency import INLINE_MAX_BYTES
from ..base import Filter, Page
from . import keys
from .client import b64

_FIRST, _MOST = 5, 100  # values in one answer, which are whole buckets
_ANSWER_BYTES = 4 * 1024 * 1024
# A range, and what it is for, to etcd's answer; raises BucketdError.
Range = Callable[[dict[str, Any], str], Awaitable[dict[str, Any]]]


def _next_count(values: list[dict[str, Any]]) -> int:
    """How many to ask for next, when they were of this size."""
    size = sum(len(found.get("value", "")) for found in values) // max(len(values), 1)
    return min(_MOST, max(1, _ANSWER_BYTES // max(size, 1)))


class EtcdListing:
    """Of those below one prefix."""

    def __init__(self, ask: Range, prefix: str) -> None:
        self._ask, self._prefix = ask, prefix

    async def page(self, only: Filter, cursor: str | None, limit: int) -> Page:
        start = keys.resumed(self._prefix, cursor)
        page = Page([], None, [])
        for begin, end in keys.ranges(self._prefix, only):
            if start is None or start < end:
                more = await self._collect(page, max(begin, start or b""), end, only, limit)
                if more is not None:
                    return replace(page, next_cursor=keys.cursor(more))
        return page

    async def _collect(
        self, page: Page, begin: bytes, end: bytes, only: Filter, limit: int
    ) -> bytes | None:
        """Rows of one range into the page; where to go on, once it is full."""
        count = _FIRST
        while True:
            body = {"key": b64(begin), "range_end": b64(end), "limit": str(count)}
            answer = await self._ask(body, "list the buckets")
            values = answer.get("kvs", ())
            for found in values:
                if len(page.rows) == limit:
                    return begin
                large = len(found.get("value", "")) > INLINE_MAX_BYTES
                collect = partial(keys.collect, page, found, only)
                begin = (await asyncio.to_thread(collect) if large else collect()) + b"\0"
            if not answer.get("more"):
                return None
            count = _next_count(values)

    async def counts(self) -> dict[str, int]:
        """Stored buckets, by kind."""
        counts = {}
        for name, (begin, end) in keys.sections(self._prefix).items():
            body = {"key": b64(begin), "range_end": b64(end), "count_only": True}
            answer = await self._ask(body, "count the buckets")
            counts[name] = int(answer.get("count", 0))
        return counts
