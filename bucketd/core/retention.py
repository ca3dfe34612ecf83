"""Buckets that nobody has written for long: removed now and then, where that is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from ..errors import BucketCorrupt, BucketdError, PreconditionFailed
from ..model import changes
from ..model.bucket import BucketKey, is_timestamp, timestamp
from ..model.preconditions import EntityTags, Preconditions
from ..store.base import BucketInfo, Filter, Store, settled

log = logging.getLogger(__name__)
PAGE = 500
REST = 4  # times as long as a page has taken others have disk and store to themselves
_DAY = 86400.0


class Retention:
    """Removes what was last written over ``days`` ago, every ``interval`` seconds; 0 days: never.

    ``swept`` counts what it has removed since the daemon started.
    """

    def __init__(self, store: Store, days: float, interval: float) -> None:
        self._store = store
        self.days, self.interval = days, interval
        self.swept = 0

    async def keep(self, stop: asyncio.Event) -> None:
        """Sweep again and again, until ``stop``."""
        last = time.monotonic()  # and not when the next is due: a reload may change the interval
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), min(self.interval, 1.0))
            except TimeoutError:
                if self.days and time.monotonic() - last >= self.interval:
                    await self._sweep_and_tell(stop)
                    last = time.monotonic()

    async def _sweep_and_tell(self, stop: asyncio.Event) -> None:
        try:
            count = await self.sweep(stop)
        except BucketdError as error:
            log.warning("cannot remove old buckets now: %s", error.message)
            return
        if count:
            what = "bucket" if count == 1 else "buckets"
            log.info("removed %d %s not written for %g days", count, what, self.days)

    async def sweep(self, stop: asyncio.Event) -> int:
        """Once over all buckets; how many were removed."""
        count, cursor = 0, None
        while self.days and not stop.is_set():
            began = time.monotonic()
            page = await self._store.list(Filter(), cursor, PAGE)
            for row in page.rows:
                before = self._before()
                count += is_older(row.updated_at, before) and await self._remove(row, before)
            cursor = page.next_cursor
            if cursor is None:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REST * (time.monotonic() - began))
        return count

    def _before(self) -> str:
        """What was written last before then is removed; a reload may have changed it just now."""
        return timestamp(time.time() - self.days * _DAY) if self.days else ""

    async def _remove(self, row: BucketInfo, before: str) -> bool:
        """Unless it is written meanwhile."""
        key = BucketKey(row.device, row.job)
        try:
            now = await settled(self._store.read(key))
            if now.etag is None or not is_older(now.updated_at, before):
                return False
            guard = Preconditions(if_match=EntityTags(strong=frozenset({now.etag})))
            await self._store.commit(key, changes.clear(), guard)
        except (BucketCorrupt, PreconditionFailed):  # damaged, or written, since it was listed
            return False
        self.swept += 1
        return True


def is_older(updated_at: str | None, before: str) -> bool:
    """Whether a time lies before another; what is no time does not."""
    return updated_at is not None and is_timestamp(updated_at) and updated_at < before
