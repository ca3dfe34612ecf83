"""``agent.utils.bucket`` and ``agent.utils.deviceBucket``: results, never exceptions.

The context is looked up in the environment at each call, so a module may be
imported before there is one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from . import _context
from ._calls import JSON, Reply, bucket_call
from ._errors import BucketError, error
from ._results import (
    BucketResult,
    BucketSuccess,
    DeviceBucketResult,
    DeviceBucketSuccess,
    Failure,
)


def _get(device_bucket: bool) -> Reply:
    return _call("GET", device_bucket)


def _set(device_bucket: bool, data: Mapping[str, Any]) -> Reply:
    if not isinstance(data, Mapping):
        raise error("invalid_request", "cannot set: the data must be a mapping of keys to values")
    return _call("PATCH", device_bucket, data=dict(data), media_type=JSON)


def _call(method: str, device_bucket: bool, **more: Any) -> Reply:
    scope = _context.from_environment(os.environ, device_bucket)
    return bucket_call(scope, method, path=_context.socket_path(os.environ), **more)


class BucketOfJob:
    """The bucket of this job on this device."""

    def get(self) -> BucketResult:
        """The whole bucket, ``{}`` where none is stored yet."""
        try:
            return BucketSuccess(_get(False).members)
        except BucketError as cause:
            return Failure.of(cause)

    def set(self, data: Mapping[str, Any]) -> BucketResult:
        """Set these keys, keep all others; the whole bucket as it is then."""
        try:
            return BucketSuccess(_set(False, data).members)
        except BucketError as cause:
            return Failure.of(cause)


class BucketOfDevice:
    """The bucket that all jobs on this device share."""

    def get(self) -> DeviceBucketResult:
        """The whole device bucket, ``{}`` where none is stored yet."""
        try:
            return DeviceBucketSuccess(_get(True).members)
        except BucketError as cause:
            return Failure.of(cause)

    def set(self, data: Mapping[str, Any]) -> DeviceBucketResult:
        """Set these keys, keep all others; the whole device bucket as it is then."""
        try:
            return DeviceBucketSuccess(_set(True, data).members)
        except BucketError as cause:
            return Failure.of(cause)


class Utils:
    """``agent.utils``."""

    bucket = BucketOfJob()
    deviceBucket = device_bucket = BucketOfDevice()  # noqa: N815  (the same name in every language)


class Agent:
    """``agent``: what an automation is given."""

    utils = Utils()


agent = Agent()
