"""``agent.utils.bucket`` and ``agent.utils.deviceBucket``: results, never exceptions.

The context is looked up in the environment at each call, so a module may be
imported before there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, Generic

from . import _context
from ._api import JSON, bucket_call, encode, whole
from ._errors import BucketError
from ._results import (
    BucketResult,
    BucketSuccess,
    DeviceBucketResult,
    DeviceBucketSuccess,
    Failure,
)

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from ._events import Change

    B = TypeVar("B", bound=Mapping[str, Any], default=dict[str, Any])
    P = TypeVar("P", bound=Mapping[str, Any], default=Mapping[str, Any])
else:
    from typing import TypeVar

    B, P = TypeVar("B"), TypeVar("P")

S = TypeVar("S")
Success = Callable[[Mapping[str, Any]], S]


def json_of(data: Any) -> bytes | Failure:
    """The data as it is now, or why it has no JSON."""
    try:
        return encode(whole(data))
    except BucketError as cause:
        return Failure.of(cause)


def result(
    kind: Success[S],
    device_bucket: bool,
    body: bytes | Failure | None = None,
    began: float | None = None,
) -> S | Failure:
    """The bucket, after ``body`` was set in it where there is one, or what went wrong."""
    if isinstance(body, Failure):
        return body
    method, media_type = ("GET", None) if body is None else ("PATCH", JSON)
    try:
        scope = _context.from_environment(os.environ, device_bucket)
        path = _context.socket_path(os.environ)
        reply = bucket_call(scope, method, path=path, body=body, media_type=media_type, began=began)
    except BucketError as cause:
        return Failure.of(cause)
    return kind(reply.members)


def watch(device_bucket: bool, keys: tuple[str, ...], snapshot: bool) -> Iterator[Change | Failure]:
    """The changes; a Failure, as the last, says why there are no more."""
    from ._sync_watch import changes
    from ._watch_session import Watching

    try:
        scope = _context.from_environment(os.environ, device_bucket)
        path = _context.socket_path(os.environ)
        yield from changes(Watching(scope, path, keys, snapshot))
    except BucketError as cause:
        yield Failure.of(cause)


class BucketOfJob(Generic[B, P]):
    """The bucket of this job on this device; ``B`` is what it holds, ``P`` what may be set."""

    def get(self) -> BucketResult[B]:
        """The whole bucket, ``{}`` where none is stored yet."""
        return result(BucketSuccess, False)

    def set(self, data: P) -> BucketResult[B]:
        """Set these keys, keep all others; the whole bucket as it is then."""
        return result(BucketSuccess, False, json_of(data))

    def watch(self, *keys: str, snapshot: bool = False) -> Iterator[Change | Failure]:
        """Every change by whomever, from the first step on; see ``Bucket.watch``.

        A Failure is the last: ``success`` tells them apart.
        """
        return watch(False, keys, snapshot)


class BucketOfDevice:
    """The bucket that all jobs on this device share."""

    def get(self) -> DeviceBucketResult:
        """The whole device bucket, ``{}`` where none is stored yet."""
        return result(DeviceBucketSuccess, True)

    def set(self, data: Mapping[str, Any]) -> DeviceBucketResult:
        """Set these keys, keep all others; the whole device bucket as it is then."""
        return result(DeviceBucketSuccess, True, json_of(data))

    def watch(self, *keys: str, snapshot: bool = False) -> Iterator[Change | Failure]:
        """Every change by whomever, from the first step on."""
        return watch(True, keys, snapshot)


class Utils(Generic[B, P]):
    """``agent.utils``."""

    bucket: BucketOfJob[B, P] = BucketOfJob()
    deviceBucket = device_bucket = BucketOfDevice()  # noqa: N815  (the same name in every language)


class Agent(Generic[B, P]):
    """``agent``: what an automation is given. ``bucketctl types`` writes one for a schema."""

    utils: Utils[B, P] = Utils()


agent: Agent = Agent()
