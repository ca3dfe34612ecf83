"""What this host knew last of buckets in etcd, for reads while no majority of the cluster answers.

    read ── the cluster answers ──→ what it says, noted
      └── it does not ──→ what was noted, with its age; refused where that is over the bound

An age counts from the moment at which the question was *sent* that the value was the answer to: it
was the newest at some time after that, so it is never older than told.
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
from .client import Lost
from .keys import StoredValue

PATIENCE_SECONDS = 0.25
_OVERHEAD = 850  # bytes that one entry costs besides its bucket
Load = Callable[[], Awaitable[StoredValue]]


class _Noted(NamedTuple):
    snapshot: Snapshot
    revision: int  # of the cluster, when it was so
    at: float


def now() -> float:
    """Seconds on a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StaleReads:
    """At most ``max_bytes`` of what is at most ``seconds`` old; 0 seconds: there are none."""

    def __init__(self, seconds: float = 0.0, max_bytes: int = 0) -> None:
        self._seconds, self._max = seconds, max_bytes
        self._noted: OrderedDict[BucketKey, _Noted] = OrderedDict()
        self._bytes = 0
        self._asking: asyncio.Future[StoredValue] | None = None
        self.served = 0

    def note(self, key: BucketKey, snapshot: Snapshot, revision: int, at: float) -> None:
        """What the cluster said, asked at ``at``; answers may overtake each other."""
        known = self._noted.get(key)
        if not self._seconds or (known and (known.revision, known.at) > (revision, at)):
            return
        self.forget(key)
        self._noted[key] = _Noted(snapshot, revision, at)
        self._bytes += len(snapshot.bucket) + _OVERHEAD
        while self._bytes > self._max:
            self.forget(next(iter(self._noted)))

    def changed(self, key: BucketKey, after: Snapshot, revision: int) -> None:
        """Told by a watch, maybe late: it keeps the age of what it takes the place of."""
        known = self._noted.get(key)
        if known is not None:
            self.note(key, after, revision, known.at)

    def forget(self, key: BucketKey) -> None:
        """For who does not know what was done to it."""
        gone = self._noted.pop(key, None)
        if gone is not None:
            self._bytes -= len(gone.snapshot.bucket) + _OVERHEAD

    async def read(self, key: BucketKey, load: Load, away: Callable[[], bool]) -> Snapshot:
        """What ``load`` gives or, if the cluster does not answer that, what was noted last.

        Once it was ``away``, one question at a time goes on being asked, and nobody waits long for
        its answer who can be told something else. Raises BucketdError.
        """
        if self._last(key) is not None and away():
            back = await self._answers(load)
            last = self._last(key)
            if last is not None and not back:
                return self._serve(last)
        try:
            return (await load()).snapshot
        except Overloaded as error:
            last = self._last(key)
            if last is None or not isinstance(error.__cause__, Lost):
                raise
            return self._serve(last)

    async def _answers(self, load: Load) -> bool:
        """Whether the cluster is back."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(load())
            self._asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        asking = self._asking
        await asyncio.wait({asking}, timeout=PATIENCE_SECONDS)
        return asking.done() and (asking.cancelled() or asking.exception() is None)

    def _last(self, key: BucketKey) -> _Noted | None:
        noted = self._noted.get(key)
        if noted is None or now() - noted.at > self._seconds:
            return None
        self._noted.move_to_end(key)
        return noted

    def _serve(self, noted: _Noted) -> Snapshot:
        self.served += 1
        return noted.snapshot._replace(stale_seconds=now() - noted.at)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})


class Noting:
    """A listener, and before it what was noted, is told of changes."""

    def __init__(self, listener: Subscriber, stale: StaleReads) -> None:
        self._listener, self._stale = listener, stale

    def tell(self, changed: ChangeEvent) -> None:
        self._stale.changed(changed.key, changed.after, int(changed.event_id))
        self._listener.tell(changed)

    def lost(self) -> None:
        self._listener.lost()

    @property
    def interests(self) -> Set[BucketKey] | None:
        return self._listener.interests
