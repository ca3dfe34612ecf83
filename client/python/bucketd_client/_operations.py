"""What both faces of the client ask: verbs as plain data, and whose bucket they are about."""

from __future__ import annotations

import os
import time

from . import _context
from ._api import JSON, JSON_PATCH, MERGE_PATCH, Reply, bucket_call, call, encode, whole
from ._context import Scope
from ._errors import error

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Generic

    from typing_extensions import TypeVar

    from ._watch_session import Watching

    B = TypeVar("B", bound=Mapping[str, Any], default=dict[str, Any])
    # Method, body, media type, keys and guard: one verb, with its data as it was when asked for.
    Ask = tuple[str, "bytes | None", "str | None", tuple[str, ...], "dict[str, str] | None"]
else:

    class Generic:
        """All of ``typing.Generic`` that is used while a program runs."""

        __class_getitem__ = classmethod(type(list[int]))

    B = Any = object
    Ask = tuple

# What ``if_match`` is where it is not given: None is the ETag of what is not stored.
UNGUARDED = str(b"no guard", "ascii")
UPDATE_SECONDS = 30.0
LONGEST_PAUSE = 0.05


class Snapshot(Generic[B]):
    """A bucket at one moment.

    ``etag`` is None and ``revision`` 0 where none is stored; ``recovered_from`` has revision
    and reason where the last good generation replaced an unreadable file; ``stale_seconds`` says
    how old at most this is, where the daemon could not ask its cluster for anything newer.
    """

    __slots__ = ("_members",)

    # By hand: importing dataclasses takes longer than all else that is imported here.
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

    __hash__ = None  # type: ignore[assignment]  # it holds a dict

    def __repr__(self) -> str:
        return f"Snapshot{self._members!r}"

    @property
    def guard(self) -> dict[str, str]:
        """The header that lets a write pass only while nobody else has written."""
        return {"If-None-Match": "*"} if self.etag is None else {"If-Match": self.etag}


def reading(keys: tuple[str, ...] = ()) -> Ask:
    return "GET", None, None, keys, None


def setting(data: Any, more: dict[str, Any], if_match: str | None) -> Ask:
    merged = {**({} if data is None else whole(data)), **more}
    return "PATCH", encode(merged), JSON, (), matching(if_match)


def replacing(data: Any, guard: dict[str, str] | None) -> Ask:
    return "PUT", encode(whole(data)), JSON, (), guard


def removing(keys: tuple[str, ...], if_match: str | None) -> Ask:
    if not keys:
        raise error("invalid_request", "cannot remove: name a key, or use clear()")
    return "DELETE", None, None, keys, matching(if_match)


def clearing(if_match: str | None) -> Ask:
    return "DELETE", None, None, (), matching(if_match)


def merging(patch: Any, if_match: str | None) -> Ask:
    return "PATCH", encode(whole(patch)), MERGE_PATCH, (), matching(if_match)


def patching(operations: Iterable[Mapping[str, Any]], if_match: str | None) -> Ask:
    body = encode([whole(each) for each in operations])
    return "PATCH", body, JSON_PATCH, (), matching(if_match)


def matching(if_match: str | None) -> dict[str, str] | None:
    if if_match is UNGUARDED:
        return None
    if if_match is None:  # so says a snapshot where none was stored
        return {"If-None-Match": "*"}
    return {"If-Match": if_match}


class Rounds:
    """The pauses of a compare-and-swap loop."""

    def __init__(self) -> None:
        self._until = time.monotonic() + UPDATE_SECONDS
        self._pause = 0.001

    def over(self) -> bool:
        return time.monotonic() > self._until

    def pause(self) -> float:
        """Seconds: at random, so that rivals fall out of step, and longer from round to round."""
        pause = os.urandom(1)[0] / 255 * self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return pause


class Asking(Generic[B]):
    """Whose bucket, and how to reach the daemon."""

    def __init__(
        self,
        *,
        token: str | None = None,
        device: str | None = None,
        job: str | None = None,
        automation: str | None = None,
        device_bucket: bool = False,
        socket: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """The context of the environment, of a ``token``, or of the names given.

        ``device`` alone, or ``device_bucket``, means the device bucket.
        ``socket`` is the daemon's path; ``timeout`` bounds each call in seconds
        (default: 5 to reach the daemon, 30 until its answer).
        """
        if token is not None and any(name is not None for name in (device, job, automation)):
            raise error("invalid_request", "cannot use a token and names: give either")
        if job is not None and device is None:
            raise error("invalid_request", "cannot use a job without its device")
        if automation is not None and job is None:
            raise error("invalid_request", "cannot use an automation without device and job")
        self._token, self._device, self._job = token, device, job
        self._automation, self._device_bucket = automation, device_bucket
        self._socket, self._timeout = _context.path_of(socket), _context.seconds(timeout)
        self._given = self._scope_given()

    def __repr__(self) -> str:
        """Never with the token: a repr ends up in logs."""
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
        return self._given or _context.from_environment(os.environ, self._device_bucket)

    def _path(self) -> str:
        return self._socket or _context.socket_path(os.environ)

    def _reply(self, ask: Ask, began: float | None) -> tuple[Scope, Reply]:
        scope, path = self._scope(), self._path()
        method, body, media_type, keys, guard = ask
        return scope, bucket_call(
            scope,
            method,
            path=path,
            body=body,
            media_type=media_type,
            keys=keys,
            guard=guard,
            timeout=self._timeout,
            began=began,
        )

    def _bucket(self, ask: Ask, began: float | None = None) -> B:
        scope, reply = self._reply(ask, began)
        found: B = reply.members[scope.label]
        return found

    def _snapshot(self, ask: Ask, began: float | None = None) -> Snapshot[B]:
        scope, reply = self._reply(ask, began)
        members = reply.members
        return Snapshot(
            members[scope.label],
            members.get("revision", 0),
            reply.etag,
            members.get("recovered_from"),
            members.get("stale_seconds"),
        )

    def _watching(self, keys: tuple[str, ...], snapshot: bool, since: str | None) -> Watching:
        from ._watch_session import Watching  # most programs watch nothing

        return Watching(self._scope(), self._path(), keys, snapshot, since, self._timeout)

    def _context(self, began: float | None = None) -> dict[str, Any]:
        scope = self._scope()
        if scope.token is None:
            names = {"device": scope.device, "job": scope.job, "automation": scope.automation}
            return {**names, "expires_at": None}
        reply = call(
            "GET",
            "/v1/context",
            path=self._path(),
            headers=scope.headers(),
            timeout=self._timeout,
            began=began,
        )
        return {name: value for name, value in reply.members.items() if name != "success"}
