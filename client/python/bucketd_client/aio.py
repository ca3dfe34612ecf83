"""The same for asyncio: ``agent`` with awaitable verbs, and ``AsyncBucket``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ._agent import json_of, result
from ._aiobucket import AsyncBucket
from ._results import BucketResult, BucketSuccess, DeviceBucketResult, DeviceBucketSuccess
from ._threads import off_loop

__all__ = ["AsyncBucket", "agent"]


class AsyncBucketOfJob:
    """The bucket of this job on this device."""

    async def get(self) -> BucketResult:
        """The whole bucket, ``{}`` where none is stored yet."""
        return await off_loop(result, BucketSuccess, False, began=time.monotonic())

    async def set(self, data: Mapping[str, Any]) -> BucketResult:
        """Set these keys, keep all others; the whole bucket as it is then."""
        return await off_loop(result, BucketSuccess, False, json_of(data), time.monotonic())


class AsyncBucketOfDevice:
    """The bucket that all jobs on this device share."""

    async def get(self) -> DeviceBucketResult:
        """The whole device bucket, ``{}`` where none is stored yet."""
        return await off_loop(result, DeviceBucketSuccess, True, began=time.monotonic())

    async def set(self, data: Mapping[str, Any]) -> DeviceBucketResult:
        """Set these keys, keep all others; the whole device bucket as it is then."""
        return await off_loop(result, DeviceBucketSuccess, True, json_of(data), time.monotonic())


class AsyncUtils:
    """``agent.utils``."""

    bucket = AsyncBucketOfJob()
    deviceBucket = device_bucket = AsyncBucketOfDevice()  # noqa: N815  (as in every language)


class AsyncAgent:
    """``agent``: what an automation is given."""

    utils = AsyncUtils()


agent = AsyncAgent()
