"""List and count the buckets in etcd."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...concurrency import INLINE_MAX_BYTES, offload
from ..base import Filter, Page
from . import keys
from .client import EtcdClient, b64
from .reader import Reader

# How many values to request in one answer; each is a whole bucket.
_FIRST_COUNT, _MAX_COUNT = 5, 100
_ANSWER_BYTES = 4 * 1024 * 1024


class Listing:
    """List the buckets below one prefix; each method raises BucketdError."""

    def __init__(self, client: EtcdClient, reader: Reader) -> None:
        self._client, self._reader = client, reader
        self._prefix = client.options.prefix

    async def page(self, only: Filter, cursor: str | None, limit: int) -> Page:
        start = b"" if cursor is None else keys.decode_cursor(self._prefix, cursor)
        page = Page([], None, [])
        for begin, end in keys.filtered_ranges(self._prefix, only):
            if start < end:
                next_key = await self._add_range(page, max(begin, start), end, only, limit)
                if next_key is not None:
                    return replace(page, next_cursor=keys.encode_cursor(next_key))
        return page

    async def _add_range(
        self, page: Page, begin: bytes, end: bytes, only: Filter, limit: int
    ) -> bytes | None:
        """Add the rows of a range to a page; return the next key once the page is full."""
        count = _FIRST_COUNT
        while True:
            request = {"key": b64(begin), "range_end": b64(end), "limit": str(count)}
            answer = await self._reader.range(request, "list the buckets", self._client.deadline())
            kvs: list[dict[str, Any]] = answer.get("kvs", [])
            for kv in kvs:
                if len(page.rows) == limit:
                    return begin
                if len(kv.get("value", "")) > INLINE_MAX_BYTES:
                    await offload(keys.add_row, self._prefix, page, kv, only)
                else:
                    keys.add_row(self._prefix, page, kv, only)
                begin = keys.key_of(kv) + b"\0"
            if not answer.get("more"):
                return None
            # The next answer has room for so many values of the average size of these.
            mean = sum(len(kv.get("value", "")) for kv in kvs) // max(len(kvs), 1)
            count = min(_MAX_COUNT, max(1, _ANSWER_BYTES // max(mean, 1)))

    async def counts(self, deadline: float) -> dict[str, int]:
        """Return how many buckets are stored, by kind."""
        counts = {}
        ranges = {
            **keys.bucket_ranges(self._prefix),
            "trashed_buckets": keys.trash_range(self._prefix),
        }
        for name, (begin, end) in ranges.items():
            request = {"key": b64(begin), "range_end": b64(end), "count_only": True}
            answer = await self._reader.range(request, "count the buckets", deadline)
            counts[name] = int(answer.get("count", 0))
        return counts
