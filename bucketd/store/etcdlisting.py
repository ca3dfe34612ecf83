"""Pages of all buckets in etcd, and how many there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from . import etcdkeys as keys
from .base import Filter, Page
from .gateway import b64

_SCANNED = 100
# A range, and what it is for, to etcd's answer; raises BucketdError.
Range = Callable[[dict[str, Any], str], Awaitable[dict[str, Any]]]


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
        while True:
            body = {"key": b64(begin), "range_end": b64(end), "limit": str(_SCANNED)}
            answer = await self._ask(body, "list the buckets")
            for found in answer.get("kvs", ()):
                if len(page.rows) == limit:
                    return begin
                begin = keys.collect(page, found, only) + b"\0"
            if not answer.get("more"):
                return None

    async def counts(self) -> dict[str, int]:
        """Stored buckets, by kind."""
        counts = {}
        for name, (begin, end) in keys.sections(self._prefix).items():
            body = {"key": b64(begin), "range_end": b64(end), "count_only": True}
            answer = await self._ask(body, "count the buckets")
            counts[name] = int(answer.get("count", 0))
        return counts
