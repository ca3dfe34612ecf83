"""``AsyncBucket``: the operations of ``Bucket``, awaited."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, Literal, overload

from . import _operations
from ._async_connections import pool_of_loop, sleep
from ._async_transport import exchange
from ._errors import BucketError, PreconditionFailed
from ._operations import UNGUARDED, B, Backoff, BaseBucket, D, P, Snapshot

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._api import BucketRequest, Reply
    from ._async_held_bucket import AsyncHeldBucket
    from ._events import Change
    from ._history import HistoryEntry
    from ._operations import Operation

# pytest shows the line of a test where an error came from, and not the frames of this module.
__tracebackhide__ = True


class AsyncBucket(BaseBucket[B, P, D]):
    """``Bucket`` for asyncio, on the loop itself; usable from any number of loops.

    A cancelled call may still take effect if it was sent; read the bucket to know.
    """

    async def __aenter__(self) -> Self:
        """Return this bucket; the end of the block closes idle connections."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the idle connections of this event loop; a later call opens another."""
        (await pool_of_loop(self._path())).close_idle()

    @overload
    async def get(self, *keys: str, defaults: Literal[False] = False) -> B: ...
    @overload
    async def get(self, *keys: str, defaults: Literal[True]) -> D: ...
    @overload
    async def get(self, *keys: str, defaults: bool) -> B | D: ...
    async def get(self, *keys: str, defaults: bool = False) -> Any:
        """Return the bucket, ``{}`` if none is stored; with keys, only those that it has.

        With ``defaults`` the daemon adds the defaults of its schema for the keys that the bucket
        lacks; nothing is stored.
        """
        return await self._run(_operations.read(keys, defaults))

    async def value(self, key: str, default: Any = None) -> Any:
        """Return the value of one key, ``default`` if the bucket does not have it."""
        found = await self._run(_operations.read((key,)))
        return found.get(key, default)

    async def snapshot(self) -> Snapshot[B]:
        """Return the bucket with its revision and ETag."""
        request = self._request(_operations.read())
        return _operations.snapshot_of(request, await self._exchange(request))

    @overload
    async def set(
        self: AsyncBucket[B],
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
        **more: Any,
    ) -> B: ...
    @overload
    async def set(
        self: AsyncBucket[B],
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = UNGUARDED,
        returning: bool,
        **more: Any,
    ) -> B | None: ...
    @overload
    async def set(
        self,
        data: P,
        /,
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    async def set(
        self, data: P, /, *, if_match: str | None = UNGUARDED, returning: bool
    ) -> B | None: ...
    async def set(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = UNGUARDED,
        returning: bool = True,
        **more: Any,
    ) -> Any:
        """Set these keys, keep all others.

        Pass a key named ``if_match`` or ``returning`` in ``data``.
        """
        return await self._run(_operations.merge(data, more, if_match, returning), returning)

    @overload
    async def replace(
        self: AsyncBucket[B],
        data: Mapping[str, Any],
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    async def replace(
        self: AsyncBucket[B],
        data: Mapping[str, Any],
        *,
        if_match: str | None = UNGUARDED,
        returning: bool,
    ) -> B | None: ...
    @overload
    async def replace(
        self, data: B, *, if_match: str | None = UNGUARDED, returning: Literal[True] = True
    ) -> B: ...
    @overload
    async def replace(
        self, data: B, *, if_match: str | None = UNGUARDED, returning: bool
    ) -> B | None: ...
    async def replace(
        self, data: Mapping[str, Any], *, if_match: str | None = UNGUARDED, returning: bool = True
    ) -> Any:
        """Replace the whole bucket by the data."""
        headers = _operations.write_headers(if_match, returning)
        return await self._run(_operations.replace(data, headers), returning)

    @overload
    async def remove(
        self, *keys: str, if_match: str | None = UNGUARDED, returning: Literal[True] = True
    ) -> B: ...
    @overload
    async def remove(
        self, *keys: str, if_match: str | None = UNGUARDED, returning: bool
    ) -> B | None: ...
    async def remove(
        self, *keys: str, if_match: str | None = UNGUARDED, returning: bool = True
    ) -> Any:
        """Remove these keys; ignore keys that the bucket does not have."""
        return await self._run(_operations.remove(keys, if_match, returning), returning)

    async def clear(self, *, if_match: str | None = UNGUARDED) -> None:
        """Remove the bucket."""
        await self._run(_operations.clear(if_match))

    @overload
    async def merge_patch(
        self,
        patch: Mapping[str, Any],
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    async def merge_patch(
        self, patch: Mapping[str, Any], *, if_match: str | None = UNGUARDED, returning: bool
    ) -> B | None: ...
    async def merge_patch(
        self, patch: Mapping[str, Any], *, if_match: str | None = UNGUARDED, returning: bool = True
    ) -> Any:
        """Apply a merge patch (RFC 7396): objects merge at every depth, ``None`` removes."""
        return await self._run(_operations.merge_patch(patch, if_match, returning), returning)

    @overload
    async def json_patch(
        self,
        operations: Iterable[Mapping[str, Any]],
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    async def json_patch(
        self,
        operations: Iterable[Mapping[str, Any]],
        *,
        if_match: str | None = UNGUARDED,
        returning: bool,
    ) -> B | None: ...
    async def json_patch(
        self,
        operations: Iterable[Mapping[str, Any]],
        *,
        if_match: str | None = UNGUARDED,
        returning: bool = True,
    ) -> Any:
        """Apply a JSON Patch (RFC 6902): all operations or none."""
        return await self._run(_operations.json_patch(operations, if_match, returning), returning)

    async def update(self, function: Callable[[B], B | Awaitable[B | None] | None]) -> B:
        """Compare and swap: ``function`` modifies its argument, the bucket, or returns another one.

        ``function`` runs on the loop, and may be a coroutine function. It may run several times,
        each time on the newest bucket, so it should have no other effect. Raise PreconditionFailed
        if concurrent changes prevent the swap for 30 s.
        """
        backoff = Backoff()
        while True:
            now = await self.snapshot()
            changed = await _result_of(function(now.bucket))
            after = now.bucket if changed is None else changed
            try:
                stored: B = await self._run(_operations.replace(after, now.guard))
                return stored
            except PreconditionFailed:
                if backoff.is_over():
                    raise
            await sleep(backoff.pause())

    async def history(self, *, limit: int | None = 50, values: bool = False) -> list[HistoryEntry]:
        """Return the last changes, the newest first: revision, time, who, and which keys.

        ``limit`` is their number, None for all that are kept. With ``values`` each has ``before``,
        the earlier values of its keys.
        """
        from ._history import Pages

        pages = Pages(limit, values)
        while (query := pages.query()) is not None:
            request = self._request(_operations.read(), "/history", query)
            pages.take((await self._exchange(request, returning=False)).members)
        return pages.entries

    @overload
    async def undo(
        self,
        revision: int | None = None,
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    async def undo(
        self,
        revision: int | None = None,
        *,
        if_match: str | None = UNGUARDED,
        returning: bool,
    ) -> B | None: ...
    async def undo(
        self,
        revision: int | None = None,
        *,
        if_match: str | None = UNGUARDED,
        returning: bool = True,
    ) -> Any:
        """Take one change back, the last one or that of a revision, and no other.

        Of a bucket that was deleted that is its deletion. Raise a BucketError with the code
        ``undo_conflict`` if a later change has touched one of its keys.
        """
        from ._history import undoing

        request = self._request(undoing(revision, if_match, returning), "/undo")
        reply = await self._exchange(request, returning)
        return _operations.result_of(request, reply, returning)

    async def at(self, revision: int) -> B:
        """Return the bucket as it was at a revision. Raise NotFound for one that is not kept."""
        from ._history import reading_at

        operation, query = reading_at(revision)
        found: B = (await self._exchange(self._request(operation, "", query))).bucket
        return found

    def hold(
        self,
        name: str = "",
        *,
        wait: float = 60.0,
        exclusive: bool = False,
        label: str | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> AsyncHeldBucket[B, P, D]:
        """Be the only one who holds this bucket: ``async with bucket.hold() as held:``.

        As ``Bucket.hold``; ``on_lost`` is called on the loop. The cancellation of a task that waits
        for a hold, or has it in a block, releases it. Without a block: ``await acquire()`` and
        ``await release()``.
        """
        from ._async_held_bucket import AsyncHeldBucket
        from ._held import HoldOptions

        return AsyncHeldBucket(self, HoldOptions(name, wait, exclusive, label, on_lost))

    async def refresh(
        self,
        fresh: Callable[[B], object],
        login: Callable[[B], P | Awaitable[P]] | Callable[[], P | Awaitable[P]],
        *,
        name: str = "login",
        wait: float = 300.0,
    ) -> B:
        """Return the bucket if it is ``fresh(bucket)``; else set what ``login(bucket)`` returns.

        As ``Bucket.refresh``; ``fresh`` and ``login`` run on the loop, and may be coroutine
        functions.
        """
        reply = await self._refresh(fresh, login, name, wait)
        if "warnings" in reply.members:
            from ._warnings import warn

            # Below the caller are this method and the function.
            warn(reply.members["warnings"], stacklevel=3)
        found: B = reply.bucket
        return found

    def watch(
        self, *keys: str, snapshot: bool = False, since: str | None = None
    ) -> AsyncGenerator[Change, None]:
        """Yield every change from the first step on: ``async for change in bucket.watch():``.

        With ``keys`` only changes of these keys are yielded. With ``snapshot`` the current bucket
        comes first; ``since``, the ``id`` of a change, continues after that change. A watch waits
        for a daemon that restarts, and continues after the last change. If the daemon no longer
        has the changes in between, a change with ``gap`` has the whole bucket. Raise NoJobContext
        once the token is revoked or expired.
        """
        from ._async_watch import changes

        return changes(self._watching(keys, snapshot, since))

    async def context(self) -> dict[str, Any]:
        """Return device, job, automation and expiry; for a token also whether a schema applies."""
        named = self._named_context()
        if named is not None:
            return named
        data = self._context_request()
        return _operations.context_of(await exchange("GET", data, self._path(), self._timeout))

    async def _run(self, operation: Operation, returning: bool = True) -> Any:
        """Return the bucket after an operation, None unless ``returning``."""
        request = self._request(operation)
        return _operations.result_of(request, await self._exchange(request, returning), returning)

    async def _reply(self, operation: Operation) -> Reply:
        """Return the reply with the bucket after an operation."""
        return await self._exchange(self._request(operation))

    async def _exchange(self, request: BucketRequest, returning: bool = True) -> Reply:
        """Make a request, and return the reply, with the bucket if ``returning``."""
        try:
            response = await exchange(request.method, request.data, request.path, request.timeout)
            return request.reply(response) if returning else request.minimal_reply(response)
        except BucketError as problem:
            raise _operations.without_frames(problem) from problem.__cause__

    async def _refresh(
        self,
        fresh: Callable[[B], object],
        login: Callable[..., object],
        name: str,
        wait: float,
    ) -> Reply:
        """Return the reply with the bucket that is fresh, or has been refreshed."""
        found = await self._reply(_operations.read())
        if await _result_of(fresh(found.bucket)):
            return found
        from ._held import call_login, new_session

        async with self.hold(name, wait=wait) as held:
            found = await held._reply(_operations.read())
            if await _result_of(fresh(found.bucket)):
                return found
            data = new_session(await _result_of(call_login(login, found.bucket)))
            return await held._reply(_operations.merge(data, {}, UNGUARDED))


async def _result_of(value: Any) -> Any:
    """Return what a function of the caller returned, or its coroutine."""
    return await value if inspect.isawaitable(value) else value
