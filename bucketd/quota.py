"""How much all buckets of one device may hold together.

What a device has is added up when it is first written to, and from then on kept by what changes.
It is added up again now and then, since files may be edited by hand and, on etcd, by other hosts.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from .errors import TooLarge
from .model import BucketKey, Snapshot
from .store.base import Filter, Store

PAGE = 1000
FRESH_SECONDS = 60.0
MOST_DEVICES = 1000  # of which it is remembered
LARGEST_SHOWN = 3


@dataclass(slots=True)
class _Use:
    """What one device has: bytes of compact JSON, by job (None: the device bucket)."""

    sizes: dict[str | None, int]
    until: float
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = sum(self.sizes.values())

    def set(self, job: str | None, size: int) -> None:
        self.total += size - self.sizes.pop(job, 0)
        if size:
            self.sizes[job] = size


class Quota:
    """``most`` bytes for each device; 0: no bound, and no cost."""

    def __init__(self, store: Store, most: int) -> None:
        self._store, self.most = store, most
        self._uses: OrderedDict[str, _Use] = OrderedDict()
        self._turns: dict[str, asyncio.Lock] = {}

    def known(self, key: BucketKey) -> bool:
        """Whether ``check`` can tell, so that no ``look`` is needed."""
        use = self._uses.get(key.device)
        return not self.most or (use is not None and time.monotonic() < use.until)

    async def look(self, key: BucketKey) -> None:
        """Add up what the device has, if that is not known."""
        turn = self._turns.setdefault(key.device, asyncio.Lock())
        try:
            async with turn:
                if not self.known(key):
                    await self._add_up(key.device)
        finally:
            if not turn.locked():
                self._turns.pop(key.device, None)

    async def _add_up(self, device: str) -> None:
        sizes: dict[str | None, int] = {}
        cursor = None
        while True:
            page = await self._store.list(Filter(device=device), cursor, PAGE)
            sizes |= {row.job: row.size for row in page.rows}
            cursor = page.next_cursor
            if cursor is None:
                break
        self._uses[device] = _Use(sizes, time.monotonic() + FRESH_SECONDS)
        while len(self._uses) > MOST_DEVICES:
            self._uses.popitem(last=False)

    def check(self, key: BucketKey, before: int, after: int) -> None:
        """Count it as done; TooLarge for a growth that the device has no room for.

        Called where commits are judged, one after another, so no two of them share the same room.
        """
        use = self._uses.get(key.device) if self.most else None
        if use is None:
            return
        total = use.total - use.sizes.get(key.job, 0) + after
        if total > self.most and after > before:
            raise self._too_large(key, use, total)
        use.set(key.job, after)

    def done(self, key: BucketKey, now: Snapshot | None) -> None:
        """What came of a change that was checked; None: it failed, so nothing is certain."""
        use = self._uses.get(key.device) if self.most else None
        if use is None:
            return
        if now is None:
            self._uses.pop(key.device, None)
        elif not now.revision:
            use.set(key.job, 0)

    def _too_large(self, key: BucketKey, use: _Use, total: int) -> TooLarge:
        largest = sorted(use.sizes.items(), key=lambda item: -item[1])[:LARGEST_SHOWN]
        shown = ", ".join(
            f"{'the device bucket' if job is None else f'job {job!r}'} ({size} bytes)"
            for job, size in largest
        )
        details: list[Any] = [
            {"device": key.device, "job": job, "bytes": size} for job, size in largest
        ]
        return TooLarge(
            f"cannot set {key}: all buckets of the device would have {total} bytes together, "
            f"allowed are {self.most} ([limits] max_device_bytes); the largest: {shown or 'none'}; "
            "clear what is not needed",
            details=details,
        )
