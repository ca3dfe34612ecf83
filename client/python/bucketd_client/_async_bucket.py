"""``AsyncBucket``: the verbs of ``Bucket``, awaited."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable

from . import _operations
from ._errors import PreconditionFailed
from ._executor import off_loop
from ._operations import UNGUARDED, Ask, Asking, B, Rounds, Snapshot

if TYPE_CHECKING:
    from ._events import Change


class AsyncBucket(Asking[B]):
    """``Bucket`` for asyncio. Blocks no loop, and is usable from any number of them.

    A call that is cancelled after it was sent is not taken back: read what became of it.
    """

    async def _await(self, ask: Ask) -> B:
        return await off_loop(self._bucket, ask, began=time.monotonic())

    async def get(self, *keys: str) -> B:
        """The bucket, ``{}`` where none is stored; with keys only those that it has."""
        return await self._await(_operations.reading(keys))

    async def snapshot(self) -> Snapshot[B]:
        """The bucket with its revision and ETag."""
        return await off_loop(self._snapshot, _operations.reading(), began=time.monotonic())

    async def set(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = UNGUARDED,
        **more: Any,
    ) -> B:
        """Set these keys, keep all others. A key called ``if_match`` goes into ``data``."""
        return await self._await(_operations.setting(data, more, if_match))

    async def replace(self, data: Mapping[str, Any], *, if_match: str | None = UNGUARDED) -> B:
        """The whole bucket anew."""
        return await self._await(_operations.replacing(data, _operations.matching(if_match)))

    async def remove(self, *keys: str, if_match: str | None = UNGUARDED) -> B:
        """Remove these keys; those that are not there are no error."""
        return await self._await(_operations.removing(keys, if_match))

    async def clear(self, *, if_match: str | None = UNGUARDED) -> None:
        """Remove the bucket."""
        await self._await(_operations.clearing(if_match))

    async def merge_patch(self, patch: Mapping[str, Any], *, if_match: str | None = UNGUARDED) -> B:
        """RFC 7396: objects merge at every depth, ``None`` removes."""
        return await self._await(_operations.merging(patch, if_match))

    async def json_patch(
        self, operations: Iterable[Mapping[str, Any]], *, if_match: str | None = UNGUARDED
    ) -> B:
        """RFC 6902: all operations or none."""
        return await self._await(_operations.patching(operations, if_match))

    async def update(self, function: Callable[[B], B | Awaitable[B | None] | None]) -> B:
        """Compare-and-swap; ``function`` runs on the loop, and may be a coroutine function.

        It may run several times, each time on the newest bucket, so it should do nothing
        else. Raises PreconditionFailed where others have been faster for 30 s.
        """
        rounds = Rounds()
        while True:
            now = await self.snapshot()
            changed = function(now.bucket)
            if inspect.isawaitable(changed):
                changed = await changed
            after = now.bucket if changed is None else changed
            try:
                return await self._await(_operations.replacing(after, now.guard))
            except PreconditionFailed:
                if rounds.over():
                    raise
            await asyncio.sleep(rounds.pause())

    def watch(
        self, *keys: str, snapshot: bool = False, since: str | None = None
    ) -> AsyncGenerator[Change, None]:
        """Every change from its first step on: ``async for change in bucket.watch():``.

        With ``keys`` only changes of these. With ``snapshot`` the bucket as it is comes first;
        ``since``, the ``id`` of a change, goes on behind that one. It waits for a daemon that
        restarts and goes on where it was; where that is not known any more, a change with
        ``gap`` has the whole bucket. Raises NoJobContext once the token is revoked or expired.
        """
        from ._async_watch import changes

        return changes(self._watching(keys, snapshot, since))

    async def context(self) -> dict[str, Any]:
        """Device, job, automation and expiry; of a token also whether a schema applies."""
        return await off_loop(self._context, began=time.monotonic())
