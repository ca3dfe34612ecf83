"""Responses: the one envelope, error code → status, and the template around a stored bucket."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from math import ceil
from typing import Any, Protocol

import orjson

from ..errors import BucketdError, Failure, Internal
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
    "exists": 409,
    "undo_conflict": 409,
    "not_kept": 410,
    "precondition_failed": 412,
    "hold_lost": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "schema_violation": 422,
    "held": 423,
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
_JSON_HEADERS = {"Content-Type": JSON, **_BASE}
_METRICS_HEADERS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", **_BASE}


class Stream(Protocol):
    """What follows the head of a response without a length, until ``ended``."""

    ended: asyncio.Future[None]

    def start(self, send: Callable[[bytes], None]) -> None:
        """Send what there is, and from now on whatever comes, until ``close``."""

    def on_end_of_input(self) -> None:
        """Note that the peer, which still reads, has shut down its sending half."""

    def close(self) -> None:
        """End the stream."""


@dataclass(slots=True)
class Response:
    """What is sent back. ``head``: status line and header fields but Date and Connection.

    ``parts`` are joined to the body. ``revision``: of the bucket that the response is about.
    """

    status: int
    head: bytes
    parts: tuple[bytes, ...]
    stream: Stream | None = None
    revision: int | None = None


@dataclass(slots=True)
class Deferred:
    """A response to come, which ``render`` makes of the outcome of a future or coroutine.

    ``abandon`` is called if the peer goes away before; without it the request goes on alone.
    """

    outcome: Awaitable[Any]
    render: Callable[[Any], Response]
    abandon: Callable[[], object] | None = None


# What a handler returns: a response now, or later.
Reply = Response | Deferred | Coroutine[Any, Any, Response]


def response(
    body: bytes, status: int = 200, headers: Mapping[str, str] = _JSON_HEADERS
) -> Response:
    """Return a response with this body, its length included in the head."""
    return Response(status, _head(status, {**headers, "Content-Length": str(len(body))}), (body,))


def success(members: dict[str, Any], status: int = 200) -> Response:
    """Return ``{"success": true, …members}``."""
    return response(orjson.dumps({"success": True} | members), status)


def unreadable(names: list[str]) -> dict[str, Any]:
    """Return the member that names what could not be read, if there is any."""
    return {"unreadable": names} if names else {}


def metrics(text: bytes) -> Response:
    return response(text, headers=_METRICS_HEADERS)


def event_stream(stream: Stream) -> Response:
    headers = {"Content-Type": "text/event-stream", **_BASE}
    return Response(200, _head(200, headers), (), stream)


def not_modified(now: Snapshot) -> Response:
    return Response(304, _head(304, {"ETag": f'"{now.etag}"', **_BASE}), ())


def http_date() -> bytes:
    """Return the Date field of this second, as it follows a head."""
    return _date_field(int(time.time()))


@lru_cache(maxsize=2)
def _date_field(second: int) -> bytes:
    return b"\r\nDate: " + formatdate(second, usegmt=True).encode()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode()


class ResponseTemplate:
    """Everything of a response to a read or write of a bucket that does not depend on its state.

    ``{"success": true, "bucket": {…}, "revision": n}`` with ETag, under the member ``label``;
    ``minimal`` leaves the bucket out (RFC 7240).
    """

    __slots__ = ("_around", "_before", "_head", "_minimal")

    def __init__(self, label: str, minimal: bool) -> None:
        self._minimal = minimal
        self._before = b'{"success":true' if minimal else b'{"success":true,"%b":' % label.encode()
        more = {"Preference-Applied": "return=minimal"} if minimal else {}
        self._head = _head(200, _JSON_HEADERS | more) + b"%b\r\nContent-Length: %d"
        # A bucket is mostly read several times in the same state.
        self._around = lru_cache(maxsize=1024)(self._render)

    def fill(self, now: Snapshot) -> Response:
        """Return the response about this state of the bucket."""
        pieces, size = ((), 0) if self._minimal else (now.bucket.pieces, now.bucket.size)
        if (
            now.undone is None
            and now.recovered is None
            and now.stale_seconds is None
            and not now.warnings
            and now.trash is None
            and now.restored is None
        ):
            head, after = self._around(now.etag, now.revision, size)
            return Response(200, head, (self._before, *pieces, after), None, now.revision)
        field = members = b""
        if now.recovered is not None:
            recovered = dict(zip(("revision", "reason"), now.recovered, strict=True))
            members = b',"recovered_from":' + orjson.dumps(recovered)
        if now.stale_seconds is not None:
            field = b"\r\nAge: %d" % ceil(now.stale_seconds)  # RFC 9111 §5.1
            members += b',"stale_seconds":%.3f' % now.stale_seconds
        if now.warnings:
            members += b',"warnings":' + orjson.dumps(now.warnings)
        if now.trash is not None:
            field += b"\r\nBucketd-Trash: " + now.trash.encode()
            members += b',"trash":"%b"' % now.trash.encode()
        if now.restored is not None:
            members += b',"restored":"%b"' % now.restored.encode()
        if now.undone is not None:
            members += b',"undone":%d' % now.undone
        # These members may be large, so the cache does not keep them.
        head, after = self._render(now.etag, now.revision, size, field, members)
        return Response(200, head, (self._before, *pieces, after), None, now.revision)

    def _render(
        self, etag: str | None, revision: int, size: int, field: bytes = b"", members: bytes = b""
    ) -> tuple[bytes, bytes]:
        """Return the head, and the body after a bucket of this size."""
        after = b',"revision":%d%b}' % (revision, members)
        if etag is not None:
            field += b'\r\nETag: "%b"' % etag.encode()
        return self._head % (field, len(self._before) + size + len(after)), after


BUCKET = ResponseTemplate("bucket", minimal=False)
DEVICE_BUCKET = ResponseTemplate("deviceBucket", minimal=False)
MINIMAL = ResponseTemplate("", minimal=True)


def refusal(error: BaseException) -> Response:
    """Return the error envelope; an unexpected error is logged and its text not sent."""
    request_id = secrets.token_hex(6)
    fields = {"request_id": request_id}
    if isinstance(error, BucketdError):
        key = error.extra.get("key")
        fields |= key.fields if key is not None else {}
        # A client can cause as many errors as it likes, so those are logged for debugging only.
        level = logging.WARNING if isinstance(error, Failure) else logging.DEBUG
        what = (request_id, error.code, error.message)
        log.log(level, "request %s: %s: %s", *what, extra={"fields": fields})
    else:
        about = {"fields": fields}
        log.error("request %s: unexpected error", request_id, exc_info=error, extra=about)
        error = Internal("cannot answer: unexpected error; the daemon's log has its cause")
    headers = {**_JSON_HEADERS, "X-Request-Id": request_id}
    if error.code in RETRY_AFTER:
        headers["Retry-After"] = RETRY_AFTER[error.code]
    if error.code == "no_job_context":
        headers["WWW-Authenticate"] = "Bearer"
    if allowed := error.extra.get("allow"):
        headers["Allow"] = allowed
    return response(_error_body(error), STATUS[error.code], headers)


def _error_body(error: BucketdError) -> bytes:
    members = {"success": False, "error": error.message, "code": error.code}
    if error.details:
        members["details"] = error.details
    members |= {name: error.extra[name] for name in ("revision", "count") if name in error.extra}
    return orjson.dumps(members)
