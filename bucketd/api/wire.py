"""Requests in, answers out: bodies, query, preconditions, the one envelope, code → status."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import orjson
from multidict import CIMultiDictProxy

from .. import strictjson
from ..errors import (
    BucketdError,
    Failure,
    InvalidRequest,
    NotAcceptable,
    TooLarge,
    UnsupportedMediaType,
)
from ..model import Guard, Snapshot, Tags

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
CONDITIONS = ("If-Match", "If-None-Match")
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
OFF_LOOP_BYTES = 64 * 1024  # parsing more than this would hold up everybody else
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TAG = re.compile(r'\s*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)")?\s*(?:,|$)')  # RFC 9110 §8.8.3
_BASE = {"Cache-Control": "no-store", "Server": "bucketd"}
_HEADERS = {"Content-Type": JSON, **_BASE}
EVENT_HEADERS = {"Content-Type": "text/event-stream", **_BASE}
METRICS_HEADERS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", **_BASE}


Headers = CIMultiDictProxy[str]


# --- answers


class Stream(Protocol):
    """What follows a head and has no length: ends with its connection, or when ``ended``."""

    ended: asyncio.Future[None]

    def begin(self, send: Callable[[bytes], None]) -> None:
        """Send what there is, and from now on whatever comes, until ``close``."""

    def close(self) -> None:
        """Nothing more is wanted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: everything but length, date and the fate of the connection."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: _HEADERS)
    close: bool = False
    stream: Stream | None = None

    def closing(self) -> Answer:
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


def result(label: str, now: Snapshot) -> Answer:
    """``{"success": true, "bucket": {…}, "revision": n}`` with its ETag."""
    headers = dict(_HEADERS)
    if now.etag is not None:
        headers["ETag"] = f'"{now.etag}"'
    return Answer(b"%b%b%b" % (_before(label), now.bucket, _after(now)), headers=headers)


def _before(label: str) -> bytes:
    return b'{"success":true,"%b":' % label.encode()


def _after(now: Snapshot) -> bytes:
    recovered = b""
    if now.recovered is not None:
        revision, reason = now.recovered
        what = orjson.dumps({"revision": revision, "reason": reason})
        recovered = b',"recovered_from":' + what
    return b',"revision":%d%b}' % (now.revision, recovered)


# What ``Answer.encode`` makes of such a result, but for the ETag and the length.
_STORED = Answer(headers={**_HEADERS, "ETag": '"%b"'})._head().replace(b": 0\r\n", b": %d\r\n")


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
        if now.etag is None or now.recovered is not None:
            return None
        before, after = _before(label), _after(now)
        head = _STORED % (now.etag.encode(), len(before) + len(now.bucket) + len(after))
        return cls(now.etag, now.revision, head, b"\r\n\r\n" + before, after)

    def fits(self, now: Snapshot) -> bool:
        """Whether ``now`` is still the state that it was made for; an ETag never repeats."""
        return now.etag == self.etag and now.revision == self.revision and now.recovered is None

    def encode(self, now: Snapshot, date: str) -> bytes:
        return b"".join((self.head, date.encode(), self.before, now.bucket, self.after))


def success(members: dict[str, Any], status: int = 200) -> Answer:
    """``{"success": true, …members}``."""
    body = orjson.dumps({"success": True} | members)
    return Answer(body, status)


def not_modified(now: Snapshot) -> Answer:
    return Answer(status=304, headers={"ETag": f'"{now.etag}"', **_BASE})


def refused(error: BucketdError, request_id: str | None = None) -> Answer:
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
    return Answer(_error_body(error), STATUS[error.code], headers)


def new_request_id() -> str:
    return secrets.token_hex(6)


def _error_body(error: BucketdError) -> bytes:
    members = {"success": False, "error": error.message, "code": error.code}
    if error.details:
        members["details"] = error.details
    members |= {name: error.extra[name] for name in ("revision", "count") if name in error.extra}
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


def check_accept(headers: Headers) -> None:
    """NotAcceptable where an Accept header leaves no room for JSON."""
    accept = ",".join(headers.getall("Accept", []))
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


def media_type(headers: Headers, allowed: tuple[str, ...]) -> str:
    """The body's media type; JSON where none is named. UnsupportedMediaType for any other."""
    if headers.get("Content-Type") == JSON and "Content-Encoding" not in headers:
        return JSON  # all four writes take it
    kind, *parameters = (
        piece.strip().lower() for piece in headers.get("Content-Type", JSON).split(";")
    )
    charsets = [p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")]
    encoding = headers.get("Content-Encoding", "identity").lower()
    if kind not in allowed or encoding != "identity" or set(charsets) - {"utf-8", "utf8"}:
        raise UnsupportedMediaType(
            f"cannot read the request body: send it as {' or '.join(allowed)}, "
            "in UTF-8 and not compressed"
        )
    return kind


async def parse_json(text: bytes) -> Any:
    """The body as JSON, off the loop when it is large."""
    if len(text) > OFF_LOOP_BYTES:
        return await asyncio.to_thread(strictjson.loads, text)
    return strictjson.loads(text)


def has_large_body(headers: Headers) -> bool:
    """Whether it has over OFF_LOOP_BYTES, or comes in chunks and may have."""
    return "Transfer-Encoding" in headers or int(headers.get("Content-Length", 0)) > OFF_LOOP_BYTES


def body_too_large(size: str, limit: int) -> TooLarge:
    return TooLarge(
        f"cannot read the request body: it has {size}, allowed are {limit}; "
        "[limits] max_bucket_bytes says how many"
    )


def guard(headers: Headers) -> Guard:
    """If-Match and If-None-Match as a Guard; InvalidRequest for one that is empty or none."""
    if not any(name in headers for name in CONDITIONS):
        return _UNGUARDED
    return Guard(_tags(headers, "If-Match"), _tags(headers, "If-None-Match"))


_UNGUARDED = Guard()


def _tags(headers: Headers, header: str) -> Tags | None:
    values = headers.getall(header, None)
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
