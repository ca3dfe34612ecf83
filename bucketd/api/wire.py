"""Requests in, answers out: bodies, query, preconditions, the one envelope, code → status."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from aiohttp import web

from .. import strictjson
from ..errors import (
    BucketdError,
    InvalidRequest,
    NotAcceptable,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)
from ..model import Guard, Snapshot, Tags

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
    "precondition_failed": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "too_many_requests": 429,
    "internal": 500,
    "bucket_corrupt": 500,
    "overloaded": 503,
    "shutting_down": 503,
    "read_only": 503,
    "storage_full": 507,
}
RETRY_AFTER = {"too_many_requests": "1", "overloaded": "1", "shutting_down": "1", "read_only": "5"}
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
OFF_LOOP_BYTES = 64 * 1024  # parsing more than this would hold up everybody else
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TAG = re.compile(r'\s*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)")?\s*(?:,|$)')  # RFC 9110 §8.8.3
_BASE = {"Cache-Control": "no-store", "Server": "bucketd"}
_HEADERS = {"Content-Type": JSON, **_BASE}


# --- answers


def result(label: str, now: Snapshot) -> web.Response:
    """``{"success": true, "bucket": {…}, "revision": n}`` with its ETag."""
    headers = dict(_HEADERS)
    if now.etag is not None:
        headers["ETag"] = f'"{now.etag}"'
    recovered = b""
    if now.recovered is not None:
        revision, reason = now.recovered
        what = orjson.dumps({"revision": revision, "reason": reason})
        recovered = b',"recovered_from":' + what
    body = b'{"success":true,"%s":%s,"revision":%d%s}' % (
        label.encode(),
        now.bucket,
        now.revision,
        recovered,
    )
    return web.Response(body=body, headers=headers)


def success(members: dict[str, Any], status: int = 200) -> web.Response:
    """``{"success": true, …members}``."""
    body = orjson.dumps({"success": True} | members)
    return web.Response(status=status, body=body, headers=_HEADERS)


def not_modified(now: Snapshot) -> web.Response:
    return web.Response(status=304, headers={"ETag": f'"{now.etag}"', **_BASE})


def refused(error: BucketdError) -> web.Response:
    """The error envelope with its status and the headers that belong to it."""
    headers = dict(_HEADERS)
    if error.code in RETRY_AFTER:
        headers["Retry-After"] = RETRY_AFTER[error.code]
    if error.code == "no_job_context":
        headers["WWW-Authenticate"] = "Bearer"
    if allowed := error.extra.get("allow"):
        headers["Allow"] = allowed
    return web.Response(status=STATUS[error.code], body=_error_body(error), headers=headers)


def refused_raw(error: BucketdError) -> bytes:
    """The same as bytes, for a connection that is closed before there is a request."""
    body, status = _error_body(error), STATUS[error.code]
    return (
        b"HTTP/1.1 %d Refused\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Retry-After: 1\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)
    )


def _error_body(error: BucketdError) -> bytes:
    members = {"success": False, "error": error.message, "code": error.code}
    if error.details:
        members["details"] = error.details
    if "revision" in error.extra:
        members["revision"] = error.extra["revision"]
    return orjson.dumps(members)


# --- requests


def split_target(raw: str) -> tuple[str, str]:
    """Path and query, still encoded; of the absolute form too (RFC 9112 §3.2.2)."""
    if raw[:7].lower() == "http://":
        raw = "/" + raw[7:].partition("/")[2]
    path, _, query = raw.partition("?")
    return path, query


def decode(text: str, what: str) -> str:
    """Percent-decode once, as UTF-8; InvalidRequest for anything else."""
    if "%" not in text and text.isascii():
        return text
    try:
        if _BAD_ESCAPE.search(text):
            raise ValueError
        return unquote_to_bytes(text).decode()
    except ValueError:
        raise InvalidRequest(
            f"cannot read {what}: it is not percent-encoded UTF-8 (a literal % is %25)"
        ) from None


def parse_query(text: str, allowed: frozenset[str]) -> dict[str, list[str]]:
    """The parameters; one that the route has not, or has once and gets twice, is refused.

    Strictly, because ``DELETE …?keys=a`` read as ``DELETE …`` would delete everything.
    """
    found: dict[str, list[str]] = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        name, value = (decode(piece.replace("+", " "), "the query") for piece in (name, value))
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise InvalidRequest(f"cannot use the parameter {name!r}: this route has {known}")
        if name in found and name != "key":
            raise InvalidRequest(f"cannot use the parameter {name!r} twice")
        found.setdefault(name, []).append(value)
    return found


def check_accept(request: web.BaseRequest) -> None:
    """NotAcceptable where an Accept header leaves no room for JSON."""
    accept = ",".join(request.headers.getall("Accept", []))
    if not accept.strip():
        return
    best: tuple[int, float] = (-1, 0.0)
    for item in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in item.split(";"))
        if kind in _ACCEPTABLE:
            best = max(best, (_ACCEPTABLE.index(kind), _quality(parameters)))
    if best[1] <= 0:
        raise NotAcceptable("cannot answer in the type asked for: this API speaks application/json")


_ACCEPTABLE = ("*/*", "application/*", JSON)  # the more exact range decides


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def media_type(request: web.BaseRequest, allowed: tuple[str, ...]) -> str:
    """The body's media type; JSON where none is named. UnsupportedMediaType for any other."""
    kind, *parameters = (
        piece.strip().lower() for piece in request.headers.get("Content-Type", JSON).split(";")
    )
    charsets = [p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")]
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if kind not in allowed or encoding != "identity" or set(charsets) - {"utf-8", "utf8"}:
        raise UnsupportedMediaType(
            f"cannot read the request body: send it as {' or '.join(allowed)}, "
            "in UTF-8 and not compressed"
        )
    return kind


async def read_json(request: web.BaseRequest, limit: int, timeout: float) -> Any:
    """The body as JSON, read within ``timeout`` seconds and parsed off the loop when large."""
    text = await _read_body(request, limit, timeout)
    if len(text) > OFF_LOOP_BYTES:
        return await asyncio.to_thread(strictjson.loads, text)
    return strictjson.loads(text)


async def _read_body(request: web.BaseRequest, limit: int, timeout: float) -> bytes:
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _body_too_large(f"{declared} bytes", limit)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    content, chunks, size = request.content, [], 0
    try:
        async with asyncio.timeout(timeout):
            while chunk := await content.readany():
                size += len(chunk)
                if size > limit:
                    raise _body_too_large(f"over {limit} bytes", limit)
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout(
            f"cannot read the request body: it was not complete after {timeout:g} s"
        ) from None
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"cannot read the request body: {error}") from None
    return b"".join(chunks)


def _body_too_large(size: str, limit: int) -> TooLarge:
    return TooLarge(f"cannot read the request body: it has {size}, allowed are {limit}")


def guard(request: web.BaseRequest) -> Guard:
    """If-Match and If-None-Match as a Guard; InvalidRequest for one that is empty or none."""
    headers = request.headers
    if "If-Match" not in headers and "If-None-Match" not in headers:
        return _UNGUARDED
    return Guard(_tags(request, "If-Match"), _tags(request, "If-None-Match"))


_UNGUARDED = Guard()


def _tags(request: web.BaseRequest, header: str) -> Tags | None:
    values = request.headers.getall(header, None)
    if values is None:
        return None
    text = ",".join(values).strip()
    if text == "*":
        return Tags(any=True)
    strong: set[str] = set()
    weak: set[str] = set()
    position = 0
    while position < len(text):
        found = _TAG.match(text, position)
        if found is None or found.end() == position:
            break
        position = found.end()
        if found[2] is not None:
            (weak if found[1] else strong).add(found[2])
    if position < len(text) or not strong | weak:
        raise InvalidRequest(
            f'cannot use {header}: it must be * or a list of ETags such as "4f1c…", in quotes'
        )
    return Tags(strong=frozenset(strong), weak=frozenset(weak))
