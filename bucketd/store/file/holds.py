"""The queue of holds of one host, in memory; ``core.holds`` keeps it across restarts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial

from ...fs import clock
from ...model.bucket import Snapshot
from ..holds import Hold, HoldQueue


class LocalHolds:
    """Hold what belongs to this daemon alone. ``settle`` waits for the commits in progress."""

    def __init__(self, queue: HoldQueue, settle: Callable[[], Awaitable[None]]) -> None:
        self.queue, self._settle = queue, settle
        # Places grow across restarts, so that of two files that a crash has left the later one can
        # be told. Nobody takes a million holds a second.
        self._numbers = itertools.count(int(clock.boottime() * 1e6))
        # The writes in progress by hold, and the holds that end once there are none.
        self._writes: dict[Hold, int] = {}
        self._ending: dict[Hold, asyncio.Future[None]] = {}

    async def add(self, hold: Hold) -> None:
        hold.order = next(self._numbers)
        self.queue.add(hold)

    async def adopt(self, hold: Hold) -> None:
        """Continue a hold in its old place. Adopt all of them before any other is added."""
        self._numbers = itertools.count(max(next(self._numbers), hold.order + 1))
        self.queue.add(hold)

    async def confirm(self, hold: Hold) -> None:
        if hold.exclusive:
            # Commits from here on are refused; one that was evaluated before is not durable yet,
            # so whoever reads now would not see it.
            await self._settle()

    def release(self, hold: Hold) -> asyncio.Future[None]:
        if hold in self._ending:
            return self._ending[hold]
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        hold.ending = True
        if hold in self._writes:
            # The next holder must see what these have written.
            self._ending[hold] = ended
        else:
            self.queue.remove(hold)
            ended.set_result(None)
        return ended

    async def refresh(self) -> None:
        """Return at once: this host knows all entries."""

    def follow(self, fence: str, future: asyncio.Future[Snapshot]) -> None:
        """Let no hold end before its write in progress, since that may still become durable."""
        hold = self.queue.with_fence(fence)
        if hold is not None:
            self._writes[hold] = self._writes.get(hold, 0) + 1
            future.add_done_callback(partial(self._on_written, hold))

    def _on_written(self, hold: Hold, _future: asyncio.Future[Snapshot]) -> None:
        self._writes[hold] -= 1
        if not self._writes[hold]:
            del self._writes[hold]
            ended = self._ending.pop(hold, None)
            if ended is not None:
                self.queue.remove(hold)
                if not ended.done():
                    ended.set_result(None)
