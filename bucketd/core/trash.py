"""The trash: deleted buckets can be restored for some days, then they are deleted for good."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import datetime, timedelta

from ..errors import BucketdError, NotFound
from ..model import changes
from ..model.author import Author
from ..model.bucket import BucketKey, Snapshot
from ..model.changes import Change
from ..model.preconditions import Preconditions
from ..model.trashed import TrashedBucket, TrashInfo
from ..store.base import Filter, Store, TrashPage
from .buckets import Buckets
from .clock_record import ClockRecord

log = logging.getLogger(__name__)
_DAY = 86400.0
# The pause between two searches for expired buckets: a part of the days, within these seconds.
_PART, _SHORTEST, _LONGEST = 10, 1.0, 600.0


class Trash:
    """The deleted buckets of a store, each for ``days``; 0: deletions are for good.

    With 0 days, what is in the trash stays there until somebody empties it. ``clock`` gives the
    true age of a deletion, so no jump of the wall clock ends anything.
    """

    def __init__(self, store: Store, clock: ClockRecord, days: float) -> None:
        self._store, self._clock, self.days = store, clock, days

    @property
    def removal(self) -> Change:
        """Return the change that removes a bucket into the trash."""
        return changes.clear(self.days)

    async def list(self, only: Filter, cursor: str | None, limit: int) -> TrashPage:
        return await self._store.trash.list(only, cursor, limit)

    def expires_at(self, row: TrashInfo) -> str | None:
        """Return when a bucket is deleted for good, if the wall clock makes no jump until then."""
        if not self.days:
            return None
        try:
            at = datetime.fromisoformat(row.deleted_at) + timedelta(days=self.days)
        except OverflowError:
            return None
        return f"{at.strftime('%Y-%m-%dT%H:%M:%S')}.{at.microsecond // 1000:03d}Z"

    async def restore(
        self, buckets: Buckets, trash_id: str, preconditions: Preconditions, author: Author
    ) -> tuple[BucketKey, Snapshot]:
        """Bring a bucket back, and return it. Raises NotFound, and Exists where one is stored."""
        trashed = await self._store.trash.read(trash_id)
        return trashed.key, await _commit(buckets, trashed, preconditions, author)

    async def restore_newest(
        self, buckets: Buckets, key: BucketKey, preconditions: Preconditions, author: Author
    ) -> Snapshot:
        """Bring the newest deletion of one bucket back. Raises NotFound, and Exists."""
        trashed = await self._store.trash.newest(key)
        if trashed is None:
            raise NotFound(
                f"cannot take back a change of {key}: none is stored, and no deletion of it is in "
                "the trash; nothing was changed"
            )
        return await _commit(buckets, trashed, preconditions, author)

    async def remove(self, trash_id: str) -> None:
        """Delete a bucket for good. Raises NotFound."""
        await self._store.trash.remove(trash_id)

    async def keep(self, stop: asyncio.Event) -> None:
        """Delete for good what is over, at intervals until ``stop``."""
        # The end of the last time, rather than when it is next: a reload may change the days.
        last = time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _SHORTEST)
            pause = min(max(self.days * _DAY / _PART, _SHORTEST), _LONGEST)
            is_due = time.monotonic() - last >= pause
            if self.days and is_due and not stop.is_set():
                await self.expire()
                last = time.monotonic()

    async def expire(self) -> int:
        """Delete for good what is over, and return how many buckets that were."""
        days = self.days
        try:
            count = await self._store.trash.expire(
                lambda deleted: self._clock.age(deleted, days * _DAY) > days * _DAY
            )
        except BucketdError as error:
            log.warning("cannot empty the trash of what is over: %s", error.message)
            return 0
        if count:
            what = "bucket" if count == 1 else "buckets"
            log.info("deleted %d %s for good after %g days in the trash", count, what, days)
        return count


async def _commit(
    buckets: Buckets, trashed: TrashedBucket, preconditions: Preconditions, author: Author
) -> Snapshot:
    change = changes.restore(trashed)
    automation = trashed.last.automation
    return await buckets.commit(trashed.key, change, preconditions, automation, author)
