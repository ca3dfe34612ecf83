"""A limit for the total size of all buckets of one device.

The first write to a device measures its total size; later changes adjust that total. The total is
measured again from time to time, since people edit files and, on etcd, other hosts change buckets.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import TooLarge
from ..model.bucket import BucketKey, Snapshot
from ..model.changes import Change, Object
from ..model.document import Document
from ..store.base import Filter, Store

log = logging.getLogger(__name__)
PAGE = 1000
FRESH_SECONDS = 60.0
AFTER_FAILURE_SECONDS = 1.0
# Measuring a device takes at most 1/50 of the time.
MEASURING_SHARE = 50
# How many devices' totals to remember.
MAX_DEVICES = 1000
LARGEST_SHOWN = 3
# Bytes of compact JSON by job; the job None stands for the device bucket.
Sizes = dict[str | None, int]


@dataclass(slots=True)
class _Usage:
    """How much one device stores: ``total`` bytes; ``due`` is when to measure it again.

    ``changed`` has the sizes of the buckets that changed since the measurement began, or had a
    change in progress then; ``largest`` has the largest of all buckets at that time. ``pending``
    counts the changes in progress, by job.
    """

    total: int = 0
    due: float = 0.0
    changed: Sizes = field(default_factory=dict)
    largest: Sizes = field(default_factory=dict)
    pending: Counter[str | None] = field(default_factory=Counter)


class Quota:
    """Limit each device to ``most`` bytes; use from one event loop.

    Changes may be evaluated on any thread, so ``guard`` protects the totals.
    """

    def __init__(self, store: Store, most: int) -> None:
        self._store, self.most = store, most
        self._usages: OrderedDict[str, _Usage] = OrderedDict()
        self._measuring: dict[str, asyncio.Task[None]] = {}
        self.guard = threading.Lock()

    def reserve(self, key: BucketKey) -> Reservation | None:
        """Return a reservation for one change; None if the device has to be measured first."""
        usage = self._usages.get(key.device)
        if usage is None:
            return None
        self._usages.move_to_end(key.device)
        if time.monotonic() >= usage.due:
            self._start_measuring(key.device)
        usage.pending[key.job] += 1
        return Reservation(self, usage, key)

    async def measure(self, device: str) -> None:
        """Return once the device's total is known. Raises BucketdError."""
        await asyncio.shield(self._start_measuring(device))

    def _start_measuring(self, device: str) -> asyncio.Task[None]:
        task = self._measuring.get(device)
        if task is None:
            task = self._measuring[device] = asyncio.create_task(self._measure(device))
            task.add_done_callback(lambda done: self._finish_measuring(device, done))
        return task

    def _finish_measuring(self, device: str, task: asyncio.Task[None]) -> None:
        del self._measuring[device]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("cannot measure how much device %r stores: %s", device, error)

    async def _measure(self, device: str) -> None:
        began, usage = time.monotonic(), self._usages.get(device) or _Usage()
        usage.due = began + FRESH_SECONDS
        # The list may still show the old size of a bucket with a change in progress.
        with self.guard:
            usage.changed = {job: n for job, n in usage.changed.items() if job in usage.pending}
        sizes = await self._stored_sizes(device)
        with self.guard:
            sizes |= usage.changed
            usage.total = sum(sizes.values())
            usage.largest = dict(heapq.nlargest(LARGEST_SHOWN, sizes.items(), lambda item: item[1]))
        now = time.monotonic()
        usage.due = now + max(FRESH_SECONDS, MEASURING_SHARE * (now - began))
        self._remember(device, usage)

    async def _stored_sizes(self, device: str) -> Sizes:
        sizes: Sizes = {}
        cursor = None
        while True:
            page = await self._store.list(Filter(device=device), cursor, PAGE)
            sizes |= {row.job: row.size for row in page.rows}
            cursor = page.next_cursor
            if cursor is None:
                return sizes

    def _remember(self, device: str, usage: _Usage) -> None:
        self._usages[device] = usage
        self._usages.move_to_end(device)
        while len(self._usages) > MAX_DEVICES:
            idle = next((name for name, known in self._usages.items() if not known.pending), device)
            if idle == device:
                return
            del self._usages[idle]


class Reservation:
    """The share of a device's quota that one change of a bucket takes, until ``release``."""

    __slots__ = ("_counted", "_key", "_quota", "_usage")

    def __init__(self, quota: Quota, usage: _Usage, key: BucketKey) -> None:
        self._quota, self._usage, self._key = quota, usage, key
        # The bucket's size before and after the change, once the total includes it.
        self._counted: tuple[int, int] | None = None

    def counted(self, change: Change) -> Change:
        """Return the change with the quota as its last check, which also adjusts the total.

        Changes are evaluated in the order of commits, so no two of them use the same free bytes.
        On etcd a change may be evaluated several times.
        """
        apply, check = change.apply, change.check

        def applied(stored: Document | None) -> Document | None:
            after = apply(stored)
            if after is None:
                self._count(0 if stored is None else stored.size, 0)
            return after

        def checked(
            before: Document | None, after: Document, automation: str | None
        ) -> Sequence[Object]:
            warnings = () if check is None else check(before, after, automation)
            self._count(0 if before is None else before.size, after.size)
            return warnings

        return change._replace(apply=applied, check=checked)

    def _count(self, before: int, after: int) -> None:
        usage, job = self._usage, self._key.job
        with self._quota.guard:
            known = usage.changed.get(job, before)
            total = usage.total - known + after
            if total > self._quota.most and after > before:
                self._refuse(total)
            usage.total, usage.changed[job] = total, after
            self._counted = (known, after)

    def release_with(self, future: asyncio.Future[Snapshot]) -> None:
        """Release the reservation with the outcome of the change."""
        self.release(asyncio.CancelledError() if future.cancelled() else future.exception())

    def release(self, error: BaseException | None) -> None:
        """End the reservation; a failed change is taken out of the total again."""
        usage, job = self._usage, self._key.job
        usage.pending[job] -= 1
        if not usage.pending[job]:
            del usage.pending[job]
        if self._counted is not None and error is not None:
            self._subtract_failed(*self._counted)

    def _subtract_failed(self, before: int, after: int) -> None:
        """Take a failed change out of the total, and measure the device again soon.

        On etcd the change may have been applied all the same; the measurement shows it.
        """
        usage, job = self._usage, self._key.job
        with self._quota.guard:
            if usage.changed.get(job) == after:
                usage.total, usage.changed[job] = usage.total - after + before, before
        usage.due = min(usage.due, time.monotonic() + AFTER_FAILURE_SECONDS)

    def _refuse(self, total: int) -> NoReturn:
        usage, key = self._usage, self._key
        sizes = usage.largest | usage.changed
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
