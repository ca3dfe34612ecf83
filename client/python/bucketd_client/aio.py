"""The same for asyncio: ``agent`` with awaitable verbs, and ``AsyncBucket``."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from . import _context
from ._agent import json_of, result
from ._async_bucket import AsyncBucket
from ._errors import BucketError
from ._executor import off_loop
from ._results import (
    BucketResult,
    BucketSuccess,
    DeviceBucketResult,
    DeviceBucketSuccess,
    Failure,
)

if TYPE_CHECKING:
    from ._events import Change

__all__ = ["AsyncBucket", "agent"]


async def watch(
    device_bucket: bool, keys: tuple[str, ...], snapshot: bool
) -> AsyncGenerator[Change | Failure, None]:
    """The changes; a Failure, as the last, says why there are no more."""
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


class AsyncBucketOfJob:
    """The bucket of this job on this device."""

    async def get(self) -> BucketResult:
        """The whole bucket, ``{}`` where none is stored yet."""
        return await off_loop(result, BucketSuccess, False, began=time.monotonic())

    async def set(self, data: Mapping[str, Any]) -> BucketResult:
        """Set these keys, keep all others; the whole bucket as it is then."""
        return await off_loop(result, BucketSuccess, False, json_of(data), time.monotonic())

    def watch(self, *keys: str, snapshot: bool = False) -> AsyncGenerator[Change | Failure, None]:
        """Every change by whomever, from the first step on; see ``AsyncBucket.watch``.

        A Failure is the last: ``success`` tells them apart.
        """
        return watch(False, keys, snapshot)


class AsyncBucketOfDevice:
    """The bucket that all jobs on this device share."""

    async def get(self) -> DeviceBucketResult:
        """The whole device bucket, ``{}`` where none is stored yet."""
        return await off_loop(result, DeviceBucketSuccess, True, began=time.monotonic())

    async def set(self, data: Mapping[str, Any]) -> DeviceBucketResult:
        """Set these keys, keep all others; the whole device bucket as it is then."""
        return await off_loop(result, DeviceBucketSuccess, True, json_of(data), time.monotonic())

    def watch(self, *keys: str, snapshot: bool = False) -> AsyncGenerator[Change | Failure, None]:
        """Every change by whomever, from the first step on."""
        return watch(True, keys, snapshot)


class AsyncUtils:
    """``agent.utils``."""

    bucket = AsyncBucketOfJob()
    deviceBucket = device_bucket = AsyncBucketOfDevice()  # noqa: N815  (as in every language)


class AsyncAgent:
    """``agent``: what an automation is given."""

    utils = AsyncUtils()


agent = AsyncAgent()
