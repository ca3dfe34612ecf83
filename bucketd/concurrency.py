"""Offload work from the event loop, and lock by key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
# Parsing or comparing more JSON on the event loop would delay all other clients.
INLINE_MAX_BYTES = 64 * 1024
# Only one thread runs Python at a time, so more workers would not finish more work, and the event
# loop would wait for each of them.
_worker = ThreadPoolExecutor(1, thread_name_prefix="bucketd-work")


async def offload(function: Callable[..., T], *given: Any) -> T:
    """Run a function in the worker thread, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_worker, function, *given)


class _KeyedLock:
    """A lock, and the number of tasks that hold it or wait for it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class KeyedLocks:
    """Hand out one lock per key, in order of arrival. For one event loop."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, _KeyedLock] = {}

    @contextlib.asynccontextmanager
    async def lock(self, key: Hashable, deadline: float | None = None) -> AsyncIterator[None]:
        """Hold the lock of a key; raise TimeoutError after ``deadline`` (the loop's clock)."""
        entry = self._locks.setdefault(key, _KeyedLock())
        entry.users += 1
        try:
            # A free lock is taken without waiting, so it needs no time limit, which costs time.
            async with asyncio.timeout_at(deadline if entry.users > 1 else None):
                await entry.lock.acquire()
            try:
                yield
            finally:
                entry.lock.release()
        finally:
            entry.users -= 1
            if not entry.users:
                del self._locks[key]
