"""The same for asyncio: ``agent`` with awaitable verbs, and ``AsyncBucket``.

Each call runs on a thread of the loop's default pool, over the same kept
connections as the synchronous client: one transport to get right, calls are
short, and nothing is bound to one loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ._agent import BucketOfDevice, BucketOfJob
from ._bucket import AsyncBucket
from ._results import BucketResult, DeviceBucketResult

__all__ = ["AsyncBucket", "agent"]


class AsyncBucketOfJob:
    """The bucket of this job on this device."""

    _calls = BucketOfJob()

    async def get(self) -> BucketResult:
        return await asyncio.to_thread(self._calls.get)

    async def set(self, data: Mapping[str, Any]) -> BucketResult:
        return await asyncio.to_thread(self._calls.set, data)


class AsyncBucketOfDevice:
    """The bucket that all jobs on this device share."""

    _calls = BucketOfDevice()

    async def get(self) -> DeviceBucketResult:
        return await asyncio.to_thread(self._calls.get)

    async def set(self, data: Mapping[str, Any]) -> DeviceBucketResult:
        return await asyncio.to_thread(self._calls.set, data)


class AsyncUtils:
    """``agent.utils``."""

    bucket = AsyncBucketOfJob()
    deviceBucket = device_bucket = AsyncBucketOfDevice()  # noqa: N815  (as in every language)


class AsyncAgent:
    """``agent``: what an automation is given."""

    utils = AsyncUtils()


agent = AsyncAgent()
