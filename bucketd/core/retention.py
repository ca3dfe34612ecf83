"""Retention: remove buckets that were not written for as many days as the settings say.

They go into the trash, as every deletion does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import datetime

from ..errors import BucketdError, Held, Overloaded, PreconditionFailed
from ..model.author import RETENTION
from ..model.bucket import BucketKey, is_timestamp
from ..model.preconditions import EntityTags, Preconditions
from ..store.base import BucketInfo, Filter, Store, settled
from .clock_record import ClockRecord
from .trash import Trash

log = logging.getLogger(__name__)
PAGE = 500
# The pause after each page is so many times as long as the page took, for other users of the disk.
PAUSE_FACTOR = 4
_DAY = 86400.0


class Retention:
    """Remove buckets last written over ``days`` ago, every ``interval`` seconds; 0 days: never.

    ``clock`` gives the age of a time stamp. ``swept`` counts the buckets removed since the start.
    """

    def __init__(
        self, store: Store, clock: ClockRecord, trash: Trash, days: float, interval: float
    ) -> None:
        self._store, self._clock, self._trash = store, clock, trash
        self.days, self.interval = days, interval
        self.swept = 0

    def is_over(self, updated_at: str | None, days: float) -> bool:
        """Report whether a time stamp is over ``days`` old; False for an invalid one."""
        if updated_at is None or not is_timestamp(updated_at):
            return False
        try:
            stamp = datetime.fromisoformat(updated_at).timestamp()
        except ValueError:
            return False
        return self._clock.age(stamp, days * _DAY) > days * _DAY

    async def keep(self, stop: asyncio.Event) -> None:
        """Sweep at the interval until ``stop``."""
        # The end of the last sweep, rather than the time of the next: a reload may change the
        # interval.
        last = time.monotonic()
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), min(self.interval, 1.0))
            except TimeoutError:
                if self.days and time.monotonic() - last >= self.interval:
                    await self._sweep_and_log(stop)
                    last = time.monotonic()

    async def _sweep_and_log(self, stop: asyncio.Event) -> None:
        try:
            count = await self.sweep(stop)
        except BucketdError as error:
            log.warning("cannot remove old buckets now: %s", error.message)
            return
        if count:
            what = "bucket" if count == 1 else "buckets"
            log.info("removed %d %s not written for %g days", count, what, self.days)

    async def sweep(self, stop: asyncio.Event) -> int:
        """Remove the old ones of all buckets, and return how many were removed."""
        count, cursor = 0, None
        while self.days and not stop.is_set():
            began = time.monotonic()
            page = await self._store.list(Filter(), cursor, PAGE)
            for row in page.rows:
                count += self._is_old(row.updated_at) and await self._remove(row)
            cursor = page.next_cursor
            if cursor is None:
                break
            with contextlib.suppress(TimeoutError):
                pause = PAUSE_FACTOR * (time.monotonic() - began)
                await asyncio.wait_for(stop.wait(), pause)
        return count

    def _is_old(self, updated_at: str | None) -> bool:
        """Report whether to remove a bucket, by the ``days`` in force now."""
        return bool(self.days) and self.is_over(updated_at, self.days)

    async def _remove(self, row: BucketInfo) -> bool:
        """Remove a bucket, unless it was written since it was listed."""
        key = BucketKey(row.device, row.job)
        try:
            now = await settled(self._store.read(key))
            if now.etag is None or not self._is_old(now.updated_at):
                return False
            guard = Preconditions(if_match=EntityTags(strong=frozenset({now.etag})))
            await self._store.commit(key, self._trash.removal, guard, author=RETENTION)
        except (PreconditionFailed, Held):
            # The bucket was written since it was listed, or somebody works on it alone.
            return False
        except BucketdError as error:
            if isinstance(error, Overloaded) or self._store.problem is not None:
                raise
            # One bucket, such as one in a directory of another user, must not keep all others.
            log.warning("cannot remove an old bucket: %s", error.message)
            return False
        self.swept += 1
        return True
