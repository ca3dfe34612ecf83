"""Buckets that nobody has written for long: removed now and then, where that is asked for."""

from __future__ import annotations

import asyncio
import logging
import time

from . import changes
from .errors import BucketdError, PreconditionFailed
from .model import BucketKey, Guard, Tags, timestamp
from .store.base import Filter, Row, Store

log = logging.getLogger(__name__)
PAGE = 100
BETWEEN_PAGES = 0.02  # seconds, in which others have the disk and the store to themselves
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
        due = time.monotonic() + self.interval
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), min(self.interval, 1.0))
            except TimeoutError:
                if self.days and time.monotonic() >= due:
                    await self._sweep_and_tell(stop)
                    due = time.monotonic() + self.interval

    async def _sweep_and_tell(self, stop: asyncio.Event) -> None:
        try:
            count = await self.sweep(stop)
        except BucketdError as error:
            log.warning("cannot remove old buckets now: %s", error.message)
            return
        if count:
            log.info("removed %d buckets not written for %g days", count, self.days)

    async def sweep(self, stop: asyncio.Event) -> int:
        """Once over all buckets; how many were removed."""
        before, count, cursor = timestamp(time.time() - self.days * _DAY), 0, None
        while not stop.is_set():
            page = await self._store.list(Filter(), cursor, PAGE)
            for row in page.rows:
                count += is_older(row.updated_at, before) and await self._remove(row, before)
            cursor = page.next_cursor
            if cursor is None:
                break
            await asyncio.sleep(BETWEEN_PAGES)
        return count

    async def _remove(self, row: Row, before: str) -> bool:
        """Unless it is written meanwhile."""
        key = BucketKey(row.device, row.job)
        try:
            now = await self._store.read(key)
            if now.etag is None or not is_older(now.updated_at, before):
                return False
            guard = Guard(if_match=Tags(strong=frozenset({now.etag})))
            await self._store.commit(key, changes.clear(), guard)
        except PreconditionFailed:
            return False
        self.swept += 1
        return True


def is_older(updated_at: str | None, before: str) -> bool:
    """Whether a time lies before another, both as ``timestamp`` writes them; unknown ones do not.

    What stands there may be from somebody's editor, so only what looks like a time is compared.
    """
    if updated_at is None or len(updated_at) != len(before) or updated_at[-1] != "Z":
        return False
    return updated_at < before
