"""``Bucket`` and ``AsyncBucket``: plain dicts in and out, exceptions for what goes wrong."""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Generic, NamedTuple, cast

from . import _context
from ._calls import JSON, JSON_PATCH, MERGE_PATCH, Reply, bucket_call, call
from ._context import Scope
from ._errors import PreconditionFailed, error

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    B = TypeVar("B", bound=Mapping[str, Any], default=dict[str, Any])
    R = TypeVar("R")
else:
    from typing import TypeVar

    B, R = TypeVar("B"), TypeVar("R")

UPDATE_SECONDS = 30.0


class Snapshot(NamedTuple):
    """A bucket at one moment. ``etag`` is None, and ``revision`` 0, where none is stored."""

    bucket: dict[str, Any]
    revision: int
    etag: str | None
    recovered_from: dict[str, Any] | None


class _Bucket:
    """Whose bucket, and how to reach the daemon; shared by both faces."""

    def __init__(
        self,
        *,
        token: str | None = None,
        device: str | None = None,
        job: str | None = None,
        automation: str | None = None,
        device_bucket: bool = False,
        socket: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """The context of the environment, of a ``token``, or of the names given.

        ``device`` alone, or ``device_bucket``, means the device bucket.
        ``socket`` is the daemon's path; ``timeout`` bounds each call in seconds
        (default: 5 to reach the daemon, 30 until its answer).
        """
        if token is not None and (device is not None or job is not None):
            raise error("invalid_request", "cannot use a token and a device or job: give either")
        if job is not None and device is None:
            raise error("invalid_request", "cannot use a job without its device")
        self._token, self._device, self._job = token, device, job
        self._automation, self._device_bucket = automation, device_bucket
        self._socket, self._timeout = socket, timeout

    def __repr__(self) -> str:
        where = "a token's context" if self._token is not None else "the environment's context"
        if self._device is not None:
            where = f"device={self._device!r}, job={self._job!r}"
        return f"{type(self).__name__}({where})"

    def _scope(self) -> Scope:
        if self._token is not None:
            return Scope(self._token, None, None, None, self._device_bucket)
        if self._device is not None:
            return _context.named(self._device, self._job, self._automation, self._device_bucket)
        return _context.from_environment(os.environ, self._device_bucket)

    def _path(self) -> str:
        return self._socket or _context.socket_path(os.environ)

    def _snapshot(self, method: str, **more: Any) -> Snapshot:
        scope = self._scope()
        reply = bucket_call(scope, method, path=self._path(), timeout=self._timeout, **more)
        return _snapshot_of(reply, scope.label)

    def _context(self) -> dict[str, Any]:
        scope = self._scope()
        if scope.token is None:
            return {
                "device": scope.device,
                "job": scope.job,
                "automation": scope.automation,
                "expires_at": None,
            }
        reply = call(
            "GET", "/v1/context", path=self._path(), headers=scope.headers(), timeout=self._timeout
        )
        return {name: value for name, value in reply.members.items() if name != "success"}

    def _update(self, function: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Snapshot:
        began, pause = time.monotonic(), 0.001
        while True:
            now = self._snapshot("GET")
            bucket = copy.deepcopy(now.bucket)
            changed = function(bucket)
            after = bucket if changed is None else changed
            guard = {"If-None-Match": "*"} if now.etag is None else {"If-Match": now.etag}
            try:
                return self._snapshot("PUT", data=after, media_type=JSON, guard=guard)
            except PreconditionFailed:
                if time.monotonic() > began + UPDATE_SECONDS:
                    raise
            # Full jitter: whoever lost waits a random time, longer each time on average.
            time.sleep(random.random() * pause)  # noqa: S311
            pause = min(pause * 2, 0.05)


def _snapshot_of(reply: Reply, label: str) -> Snapshot:
    members = reply.members
    return Snapshot(members[label], members["revision"], reply.etag, members.get("recovered_from"))


def _merged(data: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    if data is not None and not isinstance(data, Mapping):
        raise error("invalid_request", "cannot set: the data must be a mapping of keys to values")
    return {**(data or {}), **more}


def _guard(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match}


class Bucket(_Bucket, Generic[B]):
    """One bucket; ``Bucket[MyTypedDict]`` types what it gives. Every write returns the whole.

    Raises BucketError. ``if_match`` takes the ``etag`` of a snapshot, and the write
    is refused with PreconditionFailed where the bucket has changed since.
    """

    def get(self, *keys: str) -> B:
        """The bucket, ``{}`` where none is stored; with keys only those that it has."""
        return cast("B", self._snapshot("GET", keys=keys).bucket)

    def snapshot(self) -> Snapshot:
        """The bucket with its revision and ETag."""
        return self._snapshot("GET")

    def set(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = None,
        **more: Any,
    ) -> B:
        """Set these keys, keep all others."""
        return self._write("PATCH", _merged(data, more), JSON, if_match)

    def replace(self, data: Mapping[str, Any], *, if_match: str | None = None) -> B:
        """The whole bucket anew."""
        return self._write("PUT", _merged(data, {}), JSON, if_match)

    def remove(self, *keys: str, if_match: str | None = None) -> B:
        """Remove these keys; none given, none removed."""
        if not keys:
            return self.get()
        return cast("B", self._snapshot("DELETE", keys=keys, guard=_guard(if_match)).bucket)

    def clear(self, *, if_match: str | None = None) -> None:
        """Remove the bucket."""
        self._snapshot("DELETE", guard=_guard(if_match))

    def merge_patch(self, patch: Mapping[str, Any], *, if_match: str | None = None) -> B:
        """RFC 7396: objects merge at every depth, ``None`` removes."""
        return self._write("PATCH", _merged(patch, {}), MERGE_PATCH, if_match)

    def json_patch(self, operations: list[dict[str, Any]], *, if_match: str | None = None) -> B:
        """RFC 6902: all operations or none."""
        return self._write("PATCH", operations, JSON_PATCH, if_match)

    def update(self, function: Callable[[B], B | None]) -> B:
        """Compare-and-swap: ``function`` changes the bucket it is given, or returns another.

        It may run several times, each time on the newest bucket, so it should do nothing else.
        """
        return cast("B", self._update(cast("Any", function)).bucket)

    def context(self) -> dict[str, Any]:
        """Device, job, automation and expiry."""
        return self._context()

    def _write(self, method: str, data: Any, media_type: str, if_match: str | None) -> B:
        now = self._snapshot(method, data=data, media_type=media_type, guard=_guard(if_match))
        return cast("B", now.bucket)


class AsyncBucket(_Bucket, Generic[B]):
    """``Bucket`` for asyncio: the same verbs, awaited. Usable from any number of loops."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._bucket: Bucket[B] = Bucket(**options)

    async def get(self, *keys: str) -> B:
        return await _off_loop(self._bucket.get, *keys)

    async def snapshot(self) -> Snapshot:
        return await _off_loop(self._bucket.snapshot)

    async def set(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = None,
        **more: Any,
    ) -> B:
        return await _off_loop(self._bucket.set, data, if_match=if_match, **more)

    async def replace(self, data: Mapping[str, Any], *, if_match: str | None = None) -> B:
        return await _off_loop(self._bucket.replace, data, if_match=if_match)

    async def remove(self, *keys: str, if_match: str | None = None) -> B:
        return await _off_loop(self._bucket.remove, *keys, if_match=if_match)

    async def clear(self, *, if_match: str | None = None) -> None:
        await _off_loop(self._bucket.clear, if_match=if_match)

    async def merge_patch(self, patch: Mapping[str, Any], *, if_match: str | None = None) -> B:
        return await _off_loop(self._bucket.merge_patch, patch, if_match=if_match)

    async def json_patch(
        self, operations: list[dict[str, Any]], *, if_match: str | None = None
    ) -> B:
        return await _off_loop(self._bucket.json_patch, operations, if_match=if_match)

    async def update(self, function: Callable[[B], B | None]) -> B:
        """``function`` is called on a worker thread."""
        return await _off_loop(self._bucket.update, function)

    async def context(self) -> dict[str, Any]:
        return await _off_loop(self._bucket.context)


async def _off_loop(function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    import asyncio

    return await asyncio.to_thread(function, *args, **kwargs)
