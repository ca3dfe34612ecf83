"""The operations of both clients as data, and the base class of their buckets."""

from __future__ import annotations

import os

from . import _context
from ._api import (
    JSON,
    JSON_PATCH,
    MERGE_PATCH,
    RETURN_MINIMAL,
    BucketRequest,
    Reply,
    checked,
    encode,
    whole,
)
from ._clock import monotonic
from ._context import Scope
from ._errors import error
from ._http11 import encode as encode_request

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Generic

    from typing_extensions import TypeVar

    from ._errors import BucketError
    from ._http11 import Response
    from ._watch_session import Watching

    B = TypeVar("B", bound=Mapping[str, Any], default=dict[str, Any])
    P = TypeVar("P", bound=Mapping[str, Any], default=Mapping[str, Any])
    # The default of this one is the first one: without it, no key is known to be completed.
    D = TypeVar("D", bound=Mapping[str, Any], default=B)
    # Method, body, media type, keys, headers, and whether defaults complete the bucket. The body
    # holds the data as it was when given.
    Operation = tuple[str, "bytes | None", "str | None", tuple[str, ...], "dict[str, str]", bool]
else:

    class Generic:
        """The part of ``typing.Generic`` that a running program uses."""

        __class_getitem__ = classmethod(type(list[int]))

    B = P = D = Any = object
    Operation = tuple

# pytest shows the line of a test where an error came from, and not the frames of this module.
__tracebackhide__ = True
# The default of ``if_match``, where None is the ETag of a bucket that is not stored.
UNGUARDED = str(b"no guard", "ascii")
UPDATE_SECONDS = 30.0
MAX_PAUSE = 0.05


class Snapshot(Generic[B]):
    """A bucket at one moment.

    ``etag`` is None and ``revision`` is 0 if no bucket is stored. ``recovered_from`` has revision
    and reason if the last good generation replaced an unreadable file. ``stale_seconds`` is the
    maximum age of the bucket if the daemon could not reach its cluster for a newer one.
    """

    __slots__ = ("_members",)

    # Importing dataclasses takes longer than all other imports here together.
    def __init__(
        self,
        bucket: B,
        revision: int,
        etag: str | None,
        recovered_from: dict[str, Any] | None = None,
        stale_seconds: float | None = None,
    ) -> None:
        self._members = (bucket, revision, etag, recovered_from, stale_seconds)

    @property
    def bucket(self) -> B:
        return self._members[0]

    @property
    def revision(self) -> int:
        return self._members[1]

    @property
    def etag(self) -> str | None:
        return self._members[2]

    @property
    def recovered_from(self) -> dict[str, Any] | None:
        return self._members[3]

    @property
    def stale_seconds(self) -> float | None:
        return self._members[4]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self._members == other._members

    __hash__ = None  # type: ignore[assignment]  # a snapshot holds a dict

    def __repr__(self) -> str:
        return f"Snapshot{self._members!r}"

    @property
    def guard(self) -> dict[str, str]:
        """Return the precondition that holds until the bucket is written again."""
        return {"If-None-Match": "*"} if self.etag is None else {"If-Match": self.etag}


def read(keys: tuple[str, ...] = (), defaults: bool = False) -> Operation:
    for key in keys:
        if not isinstance(key, str):
            raise error(
                "invalid_request",
                f"cannot use a key that is of type {type(key).__name__}: get(*keys) takes names of "
                "keys; for one value with a default: bucket.value(key, default)",
            )
    return "GET", None, None, keys, {}, defaults


def merge(
    data: Any, more: dict[str, Any], if_match: str | None, returning: bool = True
) -> Operation:
    merged = {**({} if data is None else whole(data)), **more}
    return "PATCH", encode(merged), JSON, (), write_headers(if_match, returning), False


def replace(data: Any, headers: dict[str, str]) -> Operation:
    return "PUT", encode(whole(data)), JSON, (), headers, False


def remove(keys: tuple[str, ...], if_match: str | None, returning: bool = True) -> Operation:
    if not keys:
        raise error("invalid_request", "cannot remove: name a key, or use clear()")
    return "DELETE", None, None, keys, write_headers(if_match, returning), False


def clear(if_match: str | None) -> Operation:
    return "DELETE", None, None, (), write_headers(if_match, True), False


def merge_patch(patch: Any, if_match: str | None, returning: bool = True) -> Operation:
    body = encode(whole(patch))
    return "PATCH", body, MERGE_PATCH, (), write_headers(if_match, returning), False


def json_patch(
    operations: Iterable[Mapping[str, Any]], if_match: str | None, returning: bool = True
) -> Operation:
    body = encode([whole(each) for each in operations])
    return "PATCH", body, JSON_PATCH, (), write_headers(if_match, returning), False


def write_headers(if_match: str | None, returning: bool) -> dict[str, str]:
    """Return the precondition and the preference of a write."""
    preference = {} if returning else RETURN_MINIMAL
    if if_match is UNGUARDED:
        return preference
    if if_match is None:
        # The ETag of a snapshot is None if no bucket is stored.
        return {"If-None-Match": "*", **preference}
    return {"If-Match": if_match, **preference}


class Backoff:
    """The pauses of a compare-and-swap loop."""

    def __init__(self) -> None:
        self._until = monotonic() + UPDATE_SECONDS
        self._pause = 0.001

    def is_over(self) -> bool:
        return monotonic() > self._until

    def pause(self) -> float:
        """Return a random pause, so that concurrent loops drift apart; the limit doubles."""
        pause = os.urandom(1)[0] / 255 * self._pause
        self._pause = min(self._pause * 2, MAX_PAUSE)
        return pause


class BaseBucket(Generic[B, P, D]):
    """The scope of a bucket, and how to reach the daemon.

    ``B`` types its content, ``P`` the data of ``set``, and ``D`` the content that defaults have
    completed. Without ``P``, whatever is a mapping may be set, and the daemon alone checks it.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        device: str | None = None,
        job: str | None = None,
        automation: str | None = None,
        device_bucket: bool = False,
        fence: str | None = None,
        socket: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Take the context from the environment, a ``token``, or the names given.

        ``device`` alone, or ``device_bucket``, means the device bucket. ``fence`` is that of a hold
        which covers the bucket, and is sent with every write: ``held.fence`` of the whole device.
        ``socket`` is the path of the daemon's socket. ``timeout`` bounds each call in seconds
        (default: 5 to reach the daemon, 30 until its response).
        """
        if token is not None and any(name is not None for name in (device, job, automation)):
            raise error("invalid_request", "cannot use a token and names: give one of them")
        if job is not None and device is None:
            raise error("invalid_request", "cannot use a job without its device")
        if automation is not None and job is None:
            raise error("invalid_request", "cannot use an automation without device and job")
        self._token, self._device, self._job = token, device, job
        self._automation, self._device_bucket, self._fence = automation, device_bucket, fence
        self._socket, self._timeout = _context.path_of(socket), _context.seconds(timeout)
        self._given = self._scope_given()

    def __repr__(self) -> str:
        """Return a text without the token, since a repr ends up in logs."""
        names = {"device": self._device, "job": self._job, "automation": self._automation}
        said = [f"{name}={value!r}" for name, value in names.items() if value is not None]
        said += ["token=…"] if self._token is not None else []
        said += ["device_bucket=True"] if self._device_bucket else []
        return f"{type(self).__name__}({', '.join(said)})"

    def _scope_given(self) -> Scope | None:
        if self._token is not None:
            token = _context.token_of(self._token, "token")
            return Scope(token, None, None, None, self._device_bucket)
        if self._device is not None:
            return _context.named(self._device, self._job, self._automation, self._device_bucket)
        return None

    def _scope(self) -> Scope:
        if self._given is None:
            scope = _context.from_environment(os.environ, self._device_bucket)
        else:
            scope = _context.with_fence(self._given, os.environ)
        return scope if self._fence is None else scope.fenced(self._fence)

    def _path(self) -> str:
        return self._socket or _context.socket_path(os.environ)

    def _request(
        self, operation: Operation, below: str | None = None, query: tuple[str, ...] = ()
    ) -> BucketRequest:
        scope, path = self._scope(), self._path()
        return BucketRequest(scope, path, operation, self._timeout, below, query)

    def _watching(self, keys: tuple[str, ...], snapshot: bool, since: str | None) -> Watching:
        # The import is late, since most programs do not watch.
        from ._watch_session import Watching

        return Watching(self._scope(), self._path(), keys, snapshot, since, self._timeout)

    def _named_context(self) -> dict[str, Any] | None:
        """Return the context that the caller named, None if it is that of a token."""
        scope = self._scope()
        if scope.token is not None:
            return None
        names = {"device": scope.device, "job": scope.job, "automation": scope.automation}
        return {**names, "expires_at": None}

    def _context_request(self) -> bytes:
        return encode_request("GET", "/v1/context", None, self._scope().headers())


def without_frames(problem: BucketError) -> BucketError:
    """Return an error whose traceback leads from its caller to one place of this client.

    Raise it from its own cause, so that no error before it is shown.
    """
    return problem.with_traceback(None)


def result_of(request: BucketRequest, reply: Reply, returning: bool) -> Any:
    """Return the bucket after an operation, None unless ``returning``; warn as the daemon does."""
    if "warnings" in reply.members:
        from ._warnings import warn

        warn(reply.members["warnings"])
    return reply.members[request.scope.label] if returning else None


def snapshot_of(request: BucketRequest, reply: Reply) -> Snapshot[Any]:
    members = reply.members
    return Snapshot(
        members[request.scope.label],
        members.get("revision", 0),
        reply.etag,
        members.get("recovered_from"),
        members.get("stale_seconds"),
    )


def context_of(response: Response) -> dict[str, Any]:
    members = checked(response).members
    return {name: value for name, value in members.items() if name != "success"}
