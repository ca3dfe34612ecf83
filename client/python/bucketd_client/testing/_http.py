"""HTTP/1.1 on one connection: requests in, responses out, until either side closes it."""

from __future__ import annotations

import contextlib
import http.server
import secrets
import socket
from http import HTTPStatus
from typing import Any, Callable

from .._errors import BucketError, error
from . import _strict_json
from ._call import Response
from ._events import Stream
from ._requests import Request

STATUS = {
    "invalid_json": 400, "invalid_request": 400, "no_job_context": 401, "forbidden": 403,
    "not_found": 404, "method_not_allowed": 405, "not_acceptable": 406, "request_timeout": 408,
    "patch_failed": 409, "precondition_failed": 412, "too_large": 413,
    "unsupported_media_type": 415, "schema_violation": 422, "too_many_requests": 429,
    "internal": 500, "bucket_corrupt": 500, "overloaded": 503, "shutting_down": 503,
    "read_only": 503, "storage_full": 507,
}  # fmt: skip
RETRY_AFTER = {"too_many_requests": "1", "overloaded": "1", "shutting_down": "1", "read_only": "5"}
Respond = Callable[[Request], Response]


class Connection(http.server.BaseHTTPRequestHandler):
    """Serve one connection to its end, in the constructor."""

    protocol_version = "HTTP/1.1"

    def __init__(self, sock: socket.socket, respond: Respond, max_bytes: int) -> None:
        self._respond, self._max_bytes = respond, max_bytes
        super().__init__(sock, ("", 0), None)  # type: ignore[arg-type]

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

    do_GET = do_HEAD = do_POST = _serve  # noqa: N815  (as the base class looks for them)
    do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def send_error(self, code: int, _m: str | None = None, _e: str | None = None) -> None:
        """Refuse bytes that are not HTTP, without repeating them as the base class does."""
        self.command, self.close_connection = "", True
        cause = f"it is not HTTP/1.1 ({HTTPStatus(code).phrase})"
        self._refuse(error("invalid_request", f"cannot read the request: {cause}"))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a test shows what it asserts."""

    def _request(self) -> Request:
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        # The base class has changed ``path``.
        target = self.requestline.split()[1]
        return Request(self.command, target, headers, self._body(headers))

    def _body(self, headers: dict[str, list[str]]) -> bytes | None:
        if headers.get("transfer-encoding", [""])[0].lower() == "chunked":
            return self._chunks()
        length = headers.get("content-length", ["0"])[0]
        if not (length.isascii() and length.isdecimal()):
            self.close_connection = True
            raise error("invalid_request", "cannot read the request: its length is not a number")
        if int(length) > self._max_bytes:
            # The body stays unread.
            self.close_connection = True
            return None
        return self.rfile.read(int(length))

    def _chunks(self) -> bytes | None:
        body = b""
        try:
            while size := int(self.rfile.readline(100).partition(b";")[0], 16):
                body += self.rfile.read(size)
                if len(body) > self._max_bytes:
                    self.close_connection = True
                    return None
                self.rfile.readline(2)
            self.rfile.readline(2)
        except ValueError:
            self.close_connection = True
            raise error(
                "invalid_request", "cannot read the request: its chunks are malformed"
            ) from None
        return body

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
            more["Allow"] = refusal.message.partition("it takes ")[2]
        self._send(STATUS[refusal.code], {"success": False, **members}, None, more)

    def _stream(self, stream: Stream) -> None:
        self.close_connection = True
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
        self.wfile.write(f"{head}Server: bucketd\r\nConnection: close\r\n\r\n".encode())
        if self.command != "HEAD":
            with contextlib.closing(stream.frames()) as frames:
                for frame in frames:
                    self.wfile.write(frame)

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
        if self.close_connection:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        self.wfile.write(head + (b"" if self.command == "HEAD" else body))
