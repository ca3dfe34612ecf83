"""Who changes a bucket, on this host: one after another, so that no host competes with itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ...errors import Overloaded
from ...model.bucket import BucketKey


@dataclass(slots=True)
class _Turn:
    """Who changes one bucket, here: one after another, so that no host competes with itself."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class Turns:
    """Of all buckets; use on one event loop."""

    def __init__(self) -> None:
        self._turns: dict[BucketKey, _Turn] = {}

    @contextlib.asynccontextmanager
    async def of(self, key: BucketKey, deadline: float) -> AsyncIterator[None]:
        """In order of arrival; Overloaded for who does not get it in time."""
        turn = self._turns.setdefault(key, _Turn())
        turn.wanted += 1
        try:
            try:
                # A lock that nobody else wants is there at once, and a time limit is not free.
                async with asyncio.timeout_at(deadline if turn.wanted > 1 else None):
                    await turn.lock.acquire()
            except TimeoutError:
                raise Overloaded(
                    f"cannot change {key}: earlier changes of it still wait for etcd; nothing "
                    "was changed; try again"
                ) from None
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[key]
