"""How much all buckets of one device may hold together.

What a device has is added up when it is first written to, and from then on kept by what changes.
Now and then it is added up again beside that, since files may be edited by hand and, on etcd, by
other hosts.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import TooLarge
from ..model.bucket import BucketKey, Snapshot
from ..model.changes import Change
from ..store.base import Filter, Store

log = logging.getLogger(__name__)
PAGE = 1000
FRESH_SECONDS = 60.0
AFTER_FAILURE_SECONDS = 1.0
AT_MOST = 50  # adding up takes at most one part in so many of the time
MOST_DEVICES = 1000  # of which it is remembered
LARGEST_SHOWN = 3
Sizes = dict[str | None, int]  # of compact JSON in bytes, by job; None: the device bucket


@dataclass(slots=True)
class _Use:
    """What one device has: ``total`` bytes. ``due``: when to add it up again.

    ``changed``: sizes of what was changed since adding up began, or was under way then.
    ``largest``: some of the others. ``pending``: how many changes are under way, by job.
    """

    total: int = 0
    due: float = 0.0
    changed: Sizes = field(default_factory=dict)
    largest: Sizes = field(default_factory=dict)
    pending: Counter[str | None] = field(default_factory=Counter)


class Quota:
    """``most`` bytes for each device. Use from one event loop; changes are judged on any thread."""

    def __init__(self, store: Store, most: int) -> None:
        self._store, self.most = store, most
        self._uses: OrderedDict[str, _Use] = OrderedDict()
        self._measuring: dict[str, asyncio.Task[None]] = {}
        self.guard = threading.Lock()

    def reserve(self, key: BucketKey) -> Reservation | None:
        """Return what one change of a bucket needs; None where the device has to be measured."""
        use = self._uses.get(key.device)
        if use is None:
            return None
        self._uses.move_to_end(key.device)
        if time.monotonic() >= use.due:
            self._begin_measuring(key.device)
        use.pending[key.job] += 1
        return Reservation(self, use, key)

    async def measure(self, device: str) -> None:
        """Return once it is known how much the device holds. Raises BucketdError."""
        await asyncio.shield(self._begin_measuring(device))

    def _begin_measuring(self, device: str) -> asyncio.Task[None]:
        task = self._measuring.get(device)
        if task is None:
            task = self._measuring[device] = asyncio.create_task(self._measure(device))
            task.add_done_callback(lambda done: self._measured(device, done))
        return task

    def _measured(self, device: str, task: asyncio.Task[None]) -> None:
        del self._measuring[device]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("cannot add up what device %r has: %s", device, error)

    async def _measure(self, device: str) -> None:
        began, use = time.monotonic(), self._uses.get(device) or _Use()
        use.due = began + FRESH_SECONDS
        with self.guard:  # of what is under way the list may still tell the old size
            use.changed = {job: n for job, n in use.changed.items() if job in use.pending}
        sizes = await self._listed(device)
        with self.guard:
            sizes |= use.changed
            use.total = sum(sizes.values())
            use.largest = dict(heapq.nlargest(LARGEST_SHOWN, sizes.items(), lambda item: item[1]))
        now = time.monotonic()
        use.due = now + max(FRESH_SECONDS, AT_MOST * (now - began))
        self._remember(device, use)

    async def _listed(self, device: str) -> Sizes:
        sizes: Sizes = {}
        cursor = None
        while True:
            page = await self._store.list(Filter(device=device), cursor, PAGE)
            sizes |= {row.job: row.size for row in page.rows}
            cursor = page.next_cursor
            if cursor is None:
                return sizes

    def _remember(self, device: str, use: _Use) -> None:
        self._uses[device] = use
        self._uses.move_to_end(device)
        while len(self._uses) > MOST_DEVICES:
            idle = next((name for name, use in self._uses.items() if not use.pending), device)
            if idle == device:
                return
            del self._uses[idle]


class Reservation:
    """One change of a bucket, on a device with a bound: a context, or over with ``done``."""

    __slots__ = ("_counted", "_key", "_quota", "_use")

    def __init__(self, quota: Quota, use: _Use, key: BucketKey) -> None:
        self._quota, self._use, self._key = quota, use, key
        self._counted: tuple[int, int] | None = None  # from, to

    def counted(self, change: Change) -> Change:
        """The change, counted where it is judged: after all else, and in the order of commits.

        So no two changes share the same room. On etcd one may be judged several times.
        """
        apply, check = change.apply, change.check

        def applied(stored: bytes | None) -> bytes | None:
            after = apply(stored)
            if after is None:
                self._count(len(stored or b""), 0)
            return after

        def checked(before: bytes | None, after: bytes, automation: str | None) -> None:
            if check is not None:
                check(before, after, automation)
            self._count(len(before or b""), len(after))

        return change._replace(apply=applied, check=checked)

    def _count(self, before: int, after: int) -> None:
        use, job = self._use, self._key.job
        with self._quota.guard:
            known = use.changed.get(job, before)
            total = use.total - known + after
            if total > self._quota.most and after > before:
                self._refuse(total)
            use.total, use.changed[job] = total, after
            self._counted = (known, after)

    def release_with(self, future: asyncio.Future[Snapshot]) -> None:
        """Release it with the outcome of the change."""
        self.release(asyncio.CancelledError() if future.cancelled() else future.exception())

    def release(self, error: BaseException | None) -> None:
        """Note that the change is over, or has failed."""
        use, job = self._use, self._key.job
        use.pending[job] -= 1
        if not use.pending[job]:
            del use.pending[job]
        if self._counted is not None and error is not None:
            self._take_back(*self._counted)

    def _take_back(self, before: int, after: int) -> None:
        """It was counted, and most likely not done; that is seen when it is added up again."""
        use, job = self._use, self._key.job
        with self._quota.guard:
            if use.changed.get(job) == after:
                use.total, use.changed[job] = use.total - after + before, before
        use.due = min(use.due, time.monotonic() + AFTER_FAILURE_SECONDS)

    def _refuse(self, total: int) -> NoReturn:
        use, key = self._use, self._key
        sizes = use.largest | use.changed
        largest = heapq.nlargest(LARGEST_SHOWN, sizes.items(), lambda item: item[1])
        shown = ", ".join(
            f"{'the device bucket' if job is None else f'job {job!r}'} ({size} bytes)"
            for job, size in largest
        )
        details: list[Any] = [
            {"device": key.device, "job": job, "bytes": size} for job, size in largest
        ]
        raise TooLarge(
            f"cannot set {key}: all buckets of the device would have {total} bytes together, "
            f"allowed are {self._quota.most} ([limits] max_device_bytes); the largest: "
            f"{shown or 'none'}; clear what is not needed",
            details=details,
        )
