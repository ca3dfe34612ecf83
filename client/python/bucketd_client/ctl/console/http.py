"""HTTP/1.1 for one request a connection: parse its head, write a response."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

MAX_HEAD = 32 * 1024
MAX_BODY = 16 * 1024 * 1024
HEAD_SECONDS, BODY_SECONDS = 10.0, 60.0
REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
    411: "Length Required", 413: "Content Too Large", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
}  # fmt: skip
JSON = "application/json; charset=utf-8"
# Names the check that has refused a request.
REFUSED_BY = "Console-Refused-By"
# Each response has these, a refusal too: the page loads nothing from elsewhere, no other page
# frames it or opens it with a reference to its window, and no cache keeps what it shows.
SECURITY_FIELDS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")


class Refusal(Exception):
    """A request that is not served. ``check`` names the check that refused it."""

    def __init__(self, status: int, check: str, cause: str, code: str = "forbidden") -> None:
        super().__init__(cause)
        self.status, self.check, self.code = status, check, code

    def response(self) -> bytes:
        members = {"success": False, "code": self.code, "error": str(self)}
        return response(self.status, json.dumps(members).encode(), refused_by=self.check)


class Request:
    """The head of a request, and its body once it is read. Field names are in lower case."""

    def __init__(self, method: str, target: str, fields: list[tuple[str, str]]) -> None:
        self.method, self.target, self.fields = method, target, fields
        self.path, _, self.query = target.partition("?")
        self.body = b""

    def field(self, name: str) -> str | None:
        """Return the value of a field, None without it. Raise Refusal if it comes twice."""
        values = [value for key, value in self.fields if key == name]
        if len(values) > 1:
            raise bad_request(f"the field {name} comes {len(values)} times")
        return values[0] if values else None

    def json(self) -> dict[str, Any]:
        """Return the body, which must be a JSON object. Raise Refusal."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise bad_request("its body must be a JSON object")
        return value


def bad_request(cause: str) -> Refusal:
    return Refusal(400, "request", f"cannot read the request: {cause}", "invalid_request")


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Return the head of the request, None if the peer sends none. Raise Refusal."""
    try:
        data = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise bad_request("it ends within its head") from None
        return None
    except asyncio.LimitOverrunError:
        raise Refusal(
            431, "request", f"cannot read the request: its head is over {MAX_HEAD} bytes"
        ) from None
    except asyncio.TimeoutError:
        raise Refusal(408, "request", "cannot read the request: its head came too late") from None
    return _parse(data)


def _parse(data: bytes) -> Request:
    first, *lines = data[:-4].split(b"\r\n")
    matched = _REQUEST_LINE.fullmatch(first)
    if matched is None:
        raise bad_request("its first line must be METHOD /path HTTP/1.1")
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise bad_request("a line of its head is no header field")
        fields.append((field[1].decode().lower(), field[2].decode("latin-1")))
    return Request(matched[1].decode(), matched[2].decode(), fields)


async def read_body(reader: asyncio.StreamReader, request: Request) -> None:
    """Read the body, if there is one. Raise Refusal."""
    if request.field("transfer-encoding") is not None:
        raise Refusal(
            411, "request", "cannot read the request: its body must have a Content-Length"
        )
    length = request.field("content-length") or "0"
    if not (length.isascii() and length.isdigit() and len(length) < 12):
        raise bad_request("its Content-Length is no number")
    if int(length) > MAX_BODY:
        cause = f"cannot read the request: its body is over {MAX_BODY} bytes"
        raise Refusal(413, "request", cause, "too_large")
    try:
        request.body = await asyncio.wait_for(reader.readexactly(int(length)), BODY_SECONDS)
    except asyncio.IncompleteReadError:
        raise bad_request("it ends within its body") from None
    except asyncio.TimeoutError:
        raise Refusal(408, "request", "cannot read the request: its body came too late") from None


def head(status: int, fields: list[tuple[str, str]], reason: str = "") -> bytes:
    """Return the head of a response, after which the connection closes."""
    lines = [f"HTTP/1.1 {status} {reason or REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in (*fields, *SECURITY_FIELDS)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def response(
    status: int, body: bytes, content_type: str = JSON, refused_by: str | None = None
) -> bytes:
    fields = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    if refused_by is not None:
        fields.append((REFUSED_BY, refused_by))
    return head(status, fields) + body


def success(members: dict[str, Any]) -> bytes:
    return response(200, json.dumps({"success": True, **members}).encode())
