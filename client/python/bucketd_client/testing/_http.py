"""HTTP/1.1 on one connection: requests in, responses out, until either side closes it."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
from http import HTTPStatus
from typing import Any, Callable

from .._errors import BucketError, error
from . import _strict_json
from ._call import Response
from ._events import Stream
from ._holds import HoldStream, Peer
from ._requests import Headers, Request

STATUS = {
    "invalid_json": 400, "invalid_request": 400, "no_job_context": 401, "forbidden": 403,
    "not_found": 404, "method_not_allowed": 405, "not_acceptable": 406, "request_timeout": 408,
    "patch_failed": 409, "hold_lost": 412, "precondition_failed": 412, "too_large": 413,
    "unsupported_media_type": 415, "schema_violation": 422, "held": 423, "too_many_requests": 429,
    "internal": 500, "bucket_corrupt": 500, "overloaded": 503, "shutting_down": 503,
    "read_only": 503, "storage_full": 507,
}  # fmt: skip
RETRY_AFTER = {"too_many_requests": "1", "overloaded": "1", "shutting_down": "1", "read_only": "5"}
Respond = Callable[[Request], Response]

# The daemon's limits: of a target and of all header fields, of one field, and of their number.
MAX_HEAD_BYTES, MAX_FIELD_BYTES, MAX_FIELDS = 32 * 1024, 8190, 128
LINGER_SECONDS = 2.0
# RFC 9110: with a second one of these it is not clear what a request means.
_ONCE = frozenset({
    "content-length", "content-location", "content-range", "content-type", "etag", "host",
    "max-forwards", "server", "transfer-encoding", "user-agent",
})  # fmt: skip
_LINE = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT) ([\x21-\x7e]+) HTTP/1\.([01])"
)
_TARGET = re.compile(rb"/.*|[A-Za-z]+://([^][/?#:@]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?([/?#].*)?")
_FIELD = re.compile(rb"([\w!#$%&'*+.^`|~-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?")


class Connection:
    """Serve one connection to its end, in the constructor."""

    def __init__(self, sock: socket.socket, respond: Respond, max_bytes: int) -> None:
        self._send_bytes, self._respond, self._max_bytes = sock.sendall, respond, max_bytes
        self._method, self._closing = "", False
        self._peer = Peer(sock)
        with sock.makefile("rb") as self._reader:
            while not self._closing and self._reader.peek(1):
                self._serve()
        # What a refused request still sends is read, so that its sender sees the response.
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(LINGER_SECONDS)
        while sock.recv(65536):
            pass

    def _serve(self) -> None:
        try:
            response = self._respond(self._request())
        except BucketError as refusal:
            return self._refuse(refusal)
        if response.stream is not None:
            return self._stream(response.stream)
        applied = response.preference
        more = {} if applied is None else {"Preference-Applied": applied}
        return self._send(response.status, response.members, response.etag, more)

    def _request(self) -> Request:
        """Read a request. After one that cannot be read the connection is of no use."""
        self._method, self._closing = "", True
        found = _LINE.fullmatch(self._line())
        if found is None:
            raise _malformed("its first line is malformed")
        method, target, minor = (part.decode() for part in found.groups())
        if len(target) > MAX_HEAD_BYTES:
            raise _malformed("a line of it is too long")
        if not _TARGET.fullmatch(found[2]):
            raise _malformed("its target is malformed")
        headers = self._fields()
        if minor == "1" and "host" not in headers:
            raise _malformed("it has no Host")
        if headers.get("expect", [""])[0].lower() == "100-continue":
            self._send_bytes(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._method, body = method, self._body(headers)
        asked = ",".join(headers.get("connection", [])).lower().split(",")
        unread = isinstance(body, BucketError)
        self._closing = unread or minor == "0" or "close" in map(str.strip, asked)
        return Request(method, target, headers, body, self._peer)

    def _line(self) -> bytes:
        line = self._reader.readline(2 * MAX_HEAD_BYTES)
        if line.endswith(b"\r\n"):
            return line[:-2]
        if len(line) == 2 * MAX_HEAD_BYTES:
            raise _malformed("a line of it is too long")
        raise _malformed("a line of it ends without CR LF") if line[-1:] == b"\n" else _incomplete()

    def _fields(self) -> Headers:
        headers: Headers = {}
        size = count = 0
        while line := self._line():
            found = _FIELD.fullmatch(line)
            if found is None:
                raise _malformed("a header is malformed")
            name, value = found[1].decode().lower(), found[2].decode(errors="surrogateescape")
            if name in _ONCE and name in headers:
                raise _malformed("a header is there twice")
            headers.setdefault(name, []).append(value)
            length = len(found[1]) + len(found[2])
            size, count = size + length, count + 1
            if length > MAX_FIELD_BYTES or size > MAX_HEAD_BYTES or count > MAX_FIELDS:
                raise error(
                    "invalid_request",
                    f"cannot read the headers: they have over {MAX_HEAD_BYTES} bytes, "
                    f"one has over {MAX_FIELD_BYTES}, or there are over {MAX_FIELDS}",
                )
        return headers

    def _body(self, headers: Headers) -> bytes | BucketError:
        """Return the body, or the reason why it stays unread."""
        encoding = headers.get("transfer-encoding", [None])[0]
        length = headers.get("content-length", ["0"])[0]
        if encoding is not None and (encoding.lower() != "chunked" or "content-length" in headers):
            raise _malformed("its Transfer-Encoding is invalid")
        if not (length.isascii() and length.isdecimal() and len(length) <= 19):
            raise _malformed("its Content-Length is invalid")
        try:
            if encoding is not None:
                return self._chunks()
            return self._read(int(length), int(length))
        except BucketError as problem:
            return problem

    def _read(self, length: int, so_far: int) -> bytes:
        if so_far > self._max_bytes:
            raise error(
                "too_large",
                f"cannot read the request body: it has over {self._max_bytes} bytes, "
                f"allowed are {self._max_bytes}",
            )
        data = self._reader.read(length)
        if len(data) < length:
            raise _incomplete()
        return data

    def _chunks(self) -> bytes:
        body = b""
        while found := _CHUNK.fullmatch(self._line()):
            size = int(found[1], 16)
            if size == 0:
                self._fields()
                return body
            body += self._read(size, len(body) + size)
            if self._line():
                break
        raise error("invalid_request", "cannot read the request body: a chunk is malformed")

    def _refuse(self, refusal: BucketError) -> None:
        members: dict[str, Any] = {"error": refusal.message, "code": refusal.code}
        if refusal.details:
            members["details"] = refusal.details
        if refusal.revision is not None:
            members["revision"] = refusal.revision
        more = {"X-Request-Id": secrets.token_hex(6)}
        if refusal.code in RETRY_AFTER:
            more["Retry-After"] = RETRY_AFTER[refusal.code]
        if refusal.code == "no_job_context":
            more["WWW-Authenticate"] = "Bearer"
        if refusal.code == "method_not_allowed":
            more["Allow"] = refusal.message.rpartition("it takes ")[2]
        self._send(STATUS[refusal.code], {"success": False, **members}, None, more)

    def _stream(self, stream: Stream | HoldStream) -> None:
        self._closing = True
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
        head += b"Server: bucketd\r\nConnection: close\r\n\r\n"
        if self._method == "HEAD":
            self._send_bytes(head)
            return
        # The generator has begun before anything is sent, so it ends the stream in any case.
        with contextlib.closing(stream.frames()) as frames:
            for frame in frames:
                self._send_bytes(head + frame)
                head = b""

    def _send(
        self,
        status: int,
        members: dict[str, Any] | None,
        etag: str | None = None,
        more: dict[str, str] | None = None,
    ) -> None:
        body = b"" if members is None else _strict_json.dumps({"success": True, **members})
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        headers = {**headers, "Server": "bucketd", **(more or {})}
        if etag is not None:
            headers["ETag"] = f'"{etag}"'
        if members is not None:
            headers["Content-Length"] = str(len(body))
        if self._closing:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        self._send_bytes(head + (b"" if self._method == "HEAD" else body))


def _malformed(cause: str) -> BucketError:
    """Return the refusal in words that repeat nothing of what was sent: it may hold a token."""
    return error("invalid_request", f"cannot read the request as HTTP/1.1: {cause}")


def _incomplete() -> BucketError:
    return error("invalid_request", "cannot read the request: it ended before it was complete")
