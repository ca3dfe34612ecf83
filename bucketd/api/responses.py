"""Answers out: the one envelope, headers, code → status, and a stored bucket as it goes out."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from math import ceil
from typing import Any, NamedTuple, Protocol

import orjson

from ..errors import BucketdError, Failure
from ..model.bucket import Snapshot
from .headers import JSON

log = logging.getLogger(__name__)
STATUS = {
    "invalid_json": 400,
    "invalid_request": 400,
    "no_job_context": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "request_timeout": 408,
    "patch_failed": 409,
    "schema_conflict": 409,
    "precondition_failed": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "schema_violation": 422,
    "too_many_requests": 429,
    "internal": 500,
    "bucket_corrupt": 500,
    "overloaded": 503,
    "shutting_down": 503,
    "read_only": 503,
    "storage_full": 507,
}
RETRY_AFTER = {"too_many_requests": "1", "overloaded": "1", "shutting_down": "1", "read_only": "5"}
_BASE = {"Cache-Control": "no-store", "Server": "bucketd"}
_HEADERS = {"Content-Type": JSON, **_BASE}
EVENT_HEADERS = {"Content-Type": "text/event-stream", **_BASE}
METRICS_HEADERS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", **_BASE}


class Stream(Protocol):
    """What follows a head and has no length: ends with its connection, or when ``ended``."""

    ended: asyncio.Future[None]

    def begin(self, send: Callable[[bytes], None]) -> None:
        """Send what there is, and from now on whatever comes, until ``close``."""

    def close(self) -> None:
        """Nothing more is wanted."""


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent back: everything but length, date and the fate of the connection."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: _HEADERS)
    close: bool = False
    stream: Stream | None = None

    def closing(self) -> Response:
        """The same as the last answer of its connection."""
        return replace(self, close=True)

    def encode(self, date: str) -> bytes:
        """As bytes of HTTP/1.1."""
        end = "\r\nConnection: close" if self.close else ""
        return b"%b%b%b\r\n\r\n%b" % (self._head(), date.encode(), end.encode(), self.body)

    def _head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status != HTTPStatus.NOT_MODIFIED and self.stream is None:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "Date: "]).encode()


def result(label: str, now: Snapshot) -> Response:
    """``{"success": true, "bucket": {…}, "revision": n}`` with ETag and, where stale, Age."""
    headers = dict(_HEADERS)
    if now.etag is not None:
        headers["ETag"] = f'"{now.etag}"'
    if now.stale_seconds is not None:
        headers["Age"] = str(ceil(now.stale_seconds))  # RFC 9111 §5.1
    return Response(b"%b%b%b" % (_before(label), now.bucket, _after(now)), headers=headers)


def _before(label: str) -> bytes:
    return b'{"success":true,"%b":' % label.encode()


def _after(now: Snapshot) -> bytes:
    recovered = b""
    if now.recovered is not None:
        revision, reason = now.recovered
        what = orjson.dumps({"revision": revision, "reason": reason})
        recovered = b',"recovered_from":' + what
    stale = b""
    if now.stale_seconds is not None:
        stale = b',"stale_seconds":%.3f' % now.stale_seconds
    return b',"revision":%d%b%b}' % (now.revision, recovered, stale)


# What ``Answer.encode`` makes of such a result, but for the ETag and the length.
_STORED = Response(headers={**_HEADERS, "ETag": '"%b"'})._head().replace(b": 0\r\n", b": %d\r\n")


class Frame(NamedTuple):
    """A stored bucket's answer without the bucket and the date, for as long as it stays so."""

    etag: str
    revision: int
    head: bytes
    before: bytes
    after: bytes

    @classmethod
    def around(cls, label: str, now: Snapshot) -> Frame | None:
        """None where nothing is stored, or there is more to say."""
        if now.etag is None or now.recovered is not None or now.stale_seconds is not None:
            return None
        before, after = _before(label), _after(now)
        head = _STORED % (now.etag.encode(), len(before) + len(now.bucket) + len(after))
        return cls(now.etag, now.revision, head, b"\r\n\r\n" + before, after)

    def fits(self, now: Snapshot) -> bool:
        """Whether ``now`` is still the state that it was made for; an ETag never repeats."""
        return now.etag == self.etag and now.revision == self.revision and now.recovered is None

    def encode(self, now: Snapshot, date: str) -> bytes:
        return b"".join((self.head, date.encode(), self.before, now.bucket, self.after))


def success(members: dict[str, Any], status: int = 200) -> Response:
    """``{"success": true, …members}``."""
    body = orjson.dumps({"success": True} | members)
    return Response(body, status)


def not_modified(now: Snapshot) -> Response:
    return Response(status=304, headers={"ETag": f'"{now.etag}"', **_BASE})


def refused(error: BucketdError, request_id: str | None = None) -> Response:
    """The error envelope with its status and the headers that belong to it.

    Its line in the log has the same request id; with ``request_id`` there is one already.
    """
    if request_id is None:
        request_id = new_request_id()
        # A client can make as many errors of its own as it likes, so those are for debugging.
        level = logging.WARNING if isinstance(error, Failure) else logging.DEBUG
        log.log(level, "request %s: %s: %s", request_id, error.code, error.message)
    headers = {**_HEADERS, "X-Request-Id": request_id}
    if error.code in RETRY_AFTER:
        headers["Retry-After"] = RETRY_AFTER[error.code]
    if error.code == "no_job_context":
        headers["WWW-Authenticate"] = "Bearer"
    if allowed := error.extra.get("allow"):
        headers["Allow"] = allowed
    return Response(_error_body(error), STATUS[error.code], headers)


def new_request_id() -> str:
    return secrets.token_hex(6)


def _error_body(error: BucketdError) -> bytes:
    members = {"success": False, "error": error.message, "code": error.code}
    if error.details:
        members["details"] = error.details
    members |= {name: error.extra[name] for name in ("revision", "count") if name in error.extra}
    return orjson.dumps(members)
