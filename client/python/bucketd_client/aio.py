"""The client for asyncio: ``agent`` with awaitable calls, and ``AsyncBucket``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Callable, Generic, overload

from . import _context
from ._agent import B, Call, D, P, Success, at_call, get_call, set_call, undo_call
from ._async_bucket import AsyncBucket
from ._async_transport import exchange
from ._errors import BucketError
from ._results import (
    BucketResult,
    BucketSuccess,
    DeviceBucketResult,
    DeviceBucketSuccess,
    Failure,
    HistoryResult,
    HistorySuccess,
    HoldResult,
    HoldSuccess,
    WriteResult,
)

if TYPE_CHECKING:
    from typing import Literal

    from ._async_held_bucket import AsyncHeldBucket
    from ._events import Change

__all__ = ["AsyncBucket", "agent"]


async def _result(call: Callable[..., Call], *args: Any) -> Any:
    """Make one call, and return its result: a success, or a Failure with the error."""
    try:
        prepared = call(*args)
        request = prepared.request
        return prepared.result(await exchange(request.method, request.data, request.path))
    except BucketError as cause:
        return Failure.of(cause)


async def _hold(device_bucket: bool, name: str, *options: Any) -> Any:
    """Take a hold, and return its result."""
    wait, exclusive, label, on_lost = options
    try:
        hold = AsyncBucket(device_bucket=device_bucket).hold(
            name, wait=wait, exclusive=exclusive, label=label, on_lost=on_lost
        )
        return HoldSuccess({"success": True, "held": await hold.acquire()})
    except BucketError as cause:
        return Failure.of(cause)


async def _refresh(kind: Success[Any], device_bucket: bool, *refreshing: Any) -> Any:
    """Refresh the bucket, and return the result."""
    try:
        bucket: AsyncBucket = AsyncBucket(device_bucket=device_bucket)
        return kind((await bucket._refresh(*refreshing)).members)
    except BucketError as cause:
        return Failure.of(cause)


async def _history(device_bucket: bool, limit: int | None, values: bool) -> HistoryResult:
    """Read the history, and return the result."""
    try:
        bucket: AsyncBucket = AsyncBucket(device_bucket=device_bucket)
        found = await bucket.history(limit=limit, values=values)
        return HistorySuccess({"success": True, "history": found})
    except BucketError as cause:
        return Failure.of(cause)


async def watch(
    device_bucket: bool, keys: tuple[str, ...], snapshot: bool
) -> AsyncGenerator[Change | Failure, None]:
    """Yield the changes; the last item is a Failure with the reason why the watch ended."""
    from ._async_watch import changes
    from ._watch_session import Watching

    try:
        scope = _context.from_environment(os.environ, device_bucket)
        path = _context.socket_path(os.environ)
        stream = changes(Watching(scope, path, keys, snapshot))
        try:
            async for change in stream:
                yield change
        finally:
            await stream.aclose()
    except BucketError as cause:
        yield Failure.of(cause)


class AsyncBucketOfJob(Generic[B, P, D]):
    """The bucket of this job on this device.

    ``B`` types its content, ``P`` the data of ``set``, and ``D`` the content that defaults have
    completed.
    """

    @overload
    async def get(self, *, defaults: Literal[False] = False) -> BucketResult[B]: ...
    @overload
    async def get(self, *, defaults: Literal[True]) -> BucketResult[D]: ...
    async def get(self, *, defaults: bool = False) -> Any:
        """Return the whole bucket, ``{}`` if none is stored yet.

        With ``defaults`` it has the defaults of its schema for the keys that it lacks.
        """
        return await _result(get_call, BucketSuccess, False, defaults)

    @overload
    async def set(self, data: P, *, returning: Literal[True] = True) -> BucketResult[B]: ...
    @overload
    async def set(self, data: P, *, returning: Literal[False]) -> WriteResult: ...
    async def set(self, data: P, *, returning: bool = True) -> BucketResult[B] | WriteResult:
        """Set these keys, keep all others, and return the whole bucket.

        With ``returning=False`` the result has no bucket, which saves the transfer of a large one.
        """
        result: BucketResult[B] = await _result(set_call, BucketSuccess, False, data, returning)
        return result

    async def history(self, *, limit: int | None = 50, values: bool = False) -> HistoryResult:
        """Return the last changes, the newest first; see ``Bucket.history``."""
        return await _history(False, limit, values)

    async def undo(self, revision: int | None = None) -> BucketResult[B]:
        """Take one change back, the last one or that of a revision; see ``Bucket.undo``."""
        result: BucketResult[B] = await _result(undo_call, BucketSuccess, False, revision)
        return result

    async def at(self, revision: int) -> BucketResult[B]:
        """Return the bucket as it was at a revision; see ``Bucket.at``."""
        result: BucketResult[B] = await _result(at_call, BucketSuccess, False, revision)
        return result

    async def hold(
        self,
        name: str = "",
        *,
        wait: float = 60.0,
        exclusive: bool = False,
        label: str | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> HoldResult[AsyncHeldBucket[B, P, D]]:
        """Hold the bucket: ``async with result.held as held:``; see ``AsyncBucket.hold``.

        The calls of ``held`` return dicts, and raise BucketError, as those of ``AsyncBucket``.
        """
        result: HoldResult[AsyncHeldBucket[B, P, D]] = await _hold(
            False, name, wait, exclusive, label, on_lost
        )
        return result

    async def refresh(
        self,
        fresh: Callable[[B], object],
        login: Callable[[B], P | Awaitable[P]] | Callable[[], P | Awaitable[P]],
        *,
        name: str = "login",
        wait: float = 300.0,
    ) -> BucketResult[B]:
        """Return the bucket if ``fresh``, else log in one at a time; see ``AsyncBucket.refresh``.

        What ``fresh`` or ``login`` raises is raised.
        """
        result: BucketResult[B] = await _refresh(BucketSuccess, False, fresh, login, name, wait)
        return result

    def watch(self, *keys: str, snapshot: bool = False) -> AsyncGenerator[Change | Failure, None]:
        """Yield every change by any client, from the first step on; see ``AsyncBucket.watch``.

        The last item is a Failure; ``success`` distinguishes it from a Change.
        """
        return watch(False, keys, snapshot)


class AsyncBucketOfDevice:
    """The bucket that all jobs on this device share."""

    async def get(self) -> DeviceBucketResult:
        """Return the whole device bucket, ``{}`` if none is stored yet."""
        result: DeviceBucketResult = await _result(get_call, DeviceBucketSuccess, True)
        return result

    @overload
    async def set(
        self, data: Mapping[str, Any], *, returning: Literal[True] = True
    ) -> DeviceBucketResult: ...
    @overload
    async def set(self, data: Mapping[str, Any], *, returning: Literal[False]) -> WriteResult: ...
    async def set(
        self, data: Mapping[str, Any], *, returning: bool = True
    ) -> DeviceBucketResult | WriteResult:
        """Set these keys, keep all others, and return the whole device bucket.

        With ``returning=False`` the result has no bucket.
        """
        result: DeviceBucketResult = await _result(
            set_call, DeviceBucketSuccess, True, data, returning
        )
        return result

    async def history(self, *, limit: int | None = 50, values: bool = False) -> HistoryResult:
        """Return the last changes, the newest first; see ``Bucket.history``."""
        return await _history(True, limit, values)

    async def undo(self, revision: int | None = None) -> DeviceBucketResult:
        """Take one change back, the last one or that of a revision; see ``Bucket.undo``."""
        result: DeviceBucketResult = await _result(undo_call, DeviceBucketSuccess, True, revision)
        return result

    async def at(self, revision: int) -> DeviceBucketResult:
        """Return the bucket as it was at a revision; see ``Bucket.at``."""
        result: DeviceBucketResult = await _result(at_call, DeviceBucketSuccess, True, revision)
        return result

    async def hold(
        self,
        name: str = "",
        *,
        wait: float = 60.0,
        exclusive: bool = False,
        label: str | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> HoldResult[AsyncHeldBucket]:
        """Hold the whole device: ``async with result.held as held:``; see ``AsyncBucket.hold``.

        The calls of ``held`` return dicts, and raise BucketError, as those of ``AsyncBucket``.
        """
        result: HoldResult[AsyncHeldBucket] = await _hold(
            True, name, wait, exclusive, label, on_lost
        )
        return result

    async def refresh(
        self,
        fresh: Callable[[dict[str, Any]], object],
        login: Callable[[dict[str, Any]], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
        | Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]],
        *,
        name: str = "login",
        wait: float = 300.0,
    ) -> DeviceBucketResult:
        """Return the bucket if ``fresh``, else log in one at a time; see ``AsyncBucket.refresh``.

        What ``fresh`` or ``login`` raises is raised.
        """
        result: DeviceBucketResult = await _refresh(
            DeviceBucketSuccess, True, fresh, login, name, wait
        )
        return result

    def watch(self, *keys: str, snapshot: bool = False) -> AsyncGenerator[Change | Failure, None]:
        """Yield every change by any client, from the first step on."""
        return watch(True, keys, snapshot)


class AsyncUtils(Generic[B, P, D]):
    """``agent.utils``."""

    bucket: AsyncBucketOfJob[B, P, D] = AsyncBucketOfJob()
    deviceBucket = device_bucket = AsyncBucketOfDevice()  # noqa: N815  (as in every language)


class AsyncAgent(Generic[B, P, D]):
    """``agent``, the entry point of an automation. ``bucketctl types`` writes a typed one."""

    utils: AsyncUtils[B, P, D] = AsyncUtils()


agent: AsyncAgent = AsyncAgent()
