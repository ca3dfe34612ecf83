"""Cache the values of buckets, for reads while no majority of the cluster answers.

    read ── the cluster answers ──→ its value, which is cached
      └── it does not ──→ the cached value and its age; refused if it is too old

An age counts from the moment at which the request for the value was *sent*: the value was the
newest at some time after that, so it is never older than reported.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Set
from typing import NamedTuple

from ...errors import Overloaded
from ...model.bucket import BucketKey, Snapshot
from ..base import ChangeEvent, Subscriber
from .client import Unavailable
from .keys import StoredValue

PROBE_SECONDS = 0.25
# The memory of an entry besides its bucket.
_ENTRY_BYTES = 850
Read = Callable[[], Awaitable[StoredValue]]


class _Entry(NamedTuple):
    """A value, the cluster's revision that it was read at, and the time of the request."""

    snapshot: Snapshot
    revision: int
    asked_at: float


def now() -> float:
    """Return the seconds since boot, including the time for which the machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StaleCache:
    """Keep at most ``max_bytes`` of values that are at most ``seconds`` old; none for 0 seconds."""

    def __init__(self, seconds: float = 0.0, max_bytes: int = 0) -> None:
        self._seconds, self._max_bytes = seconds, max_bytes
        self._entries: OrderedDict[BucketKey, _Entry] = OrderedDict()
        self._bytes = 0
        self._probe: asyncio.Future[StoredValue] | None = None
        self.served = 0

    def remember(self, key: BucketKey, snapshot: Snapshot, revision: int, asked_at: float) -> None:
        """Keep a value unless a newer one is cached: answers may arrive in any order."""
        known = self._entries.get(key)
        if not self._seconds or (known and known[1:] > (revision, asked_at)):
            return
        self.forget(key)
        self._entries[key] = _Entry(snapshot, revision, asked_at)
        self._bytes += snapshot.bucket.size + _ENTRY_BYTES
        while self._bytes > self._max_bytes:
            self.forget(next(iter(self._entries)))

    def update(self, key: BucketKey, after: Snapshot, revision: int) -> None:
        """Replace a value by one from a watch, which may be late, so the entry keeps its age."""
        known = self._entries.get(key)
        if known is not None:
            self.remember(key, after, revision, known.asked_at)

    def forget(self, key: BucketKey) -> None:
        """Remove an entry that may no longer be current."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.snapshot.bucket.size + _ENTRY_BYTES

    async def read(
        self, key: BucketKey, read: Read, is_unavailable: Callable[[], bool]
    ) -> Snapshot:
        """Return the result of ``read`` or, without an answer, the stale value.

        While the cluster is unavailable, one probe is in flight; other reads wait 0.25 s, then get
        the stale value. Raises BucketdError.
        """
        if self._get(key) is not None and is_unavailable():
            answers = await self._probe_answers(read)
            entry = self._get(key)
            if entry is not None and not answers:
                return self._serve(entry)
        try:
            return (await read()).snapshot
        except Overloaded as error:
            entry = self._get(key)
            if entry is None or not isinstance(error.__cause__, Unavailable):
                raise
            return self._serve(entry)

    async def _probe_answers(self, read: Read) -> bool:
        """Report whether the cluster answers again within PROBE_SECONDS."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.ensure_future(read())
            # The callback retrieves the error, which asyncio would log otherwise.
            self._probe.add_done_callback(lambda done: done.cancelled() or done.exception())
        probe = self._probe
        await asyncio.wait({probe}, timeout=PROBE_SECONDS)
        return probe.done() and (probe.cancelled() or probe.exception() is None)

    def _get(self, key: BucketKey) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None or now() - entry.asked_at > self._seconds:
            return None
        self._entries.move_to_end(key)
        return entry

    def _serve(self, entry: _Entry) -> Snapshot:
        self.served += 1
        return entry.snapshot._replace(stale_seconds=now() - entry.asked_at)

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})


class StaleCacheUpdater:
    """Publish changes to the stale cache, then to a subscriber."""

    def __init__(self, subscriber: Subscriber, cache: StaleCache) -> None:
        self._subscriber, self._cache = subscriber, cache
        self.gap = subscriber.gap

    def publish(self, changed: ChangeEvent) -> None:
        self._cache.update(changed.key, changed.after, int(changed.event_id))
        self._subscriber.publish(changed)

    @property
    def interests(self) -> Set[BucketKey] | None:
        return self._subscriber.interests
