"""HTTP/1.1 on a unix socket: one request on each connection, answered by a function."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
from collections.abc import Generator, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, Callable, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from .._codes import STATUS
from .._errors import BucketError, error

RETRY_AFTER = {"too_many_requests": "1", "overloaded": "1", "shutting_down": "1", "read_only": "5"}
# A stream looks so often whether it should end.
POLL_SECONDS = 0.05


class Request(NamedTuple):
    """One request; the names of ``headers`` are in lower case. A test's own has no ``sock``."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    sock: socket.socket | None

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def segments(self) -> list[str]:
        return [unquote(each) for each in self.path.split("/")[1:]]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    def is_gone(self) -> bool:
        """Report whether the peer sends no more: it has closed, or shut down its half."""
        if self.sock is None:
            return False
        with contextlib.suppress(BlockingIOError, ValueError):
            return not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return self.sock.fileno() < 0

    def encode(self) -> bytes:
        """Return the bytes of this request for another server, which closes afterwards."""
        more = {"connection": "close", "content-length": str(len(self.body))}
        headers = {**self.headers, **more}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class Answer(NamedTuple):
    """The bytes of a response, and what follows: ``stream`` yields b"" while it waits."""

    data: bytes
    stream: Iterator[bytes] = iter(())

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])

    @property
    def members(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data.partition(b"\r\n\r\n")[2])
        return found


Respond = Callable[[Request], Answer]


def answer(
    members: dict[str, Any] | None,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    stream: Iterator[bytes] | None = None,
) -> Answer:
    """Return a response with these members, without a body, or with a stream of events."""
    kind = "application/json" if stream is None else "text/event-stream"
    text = b"" if members is None else dumps(members)
    found = {"Content-Type": kind, "Cache-Control": "no-store", "Server": "bucketd"}
    found.update({**(headers or {}), "Connection": "close"})
    if stream is None:
        found["Content-Length"] = str(len(text))
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in found.items()]
    head = "\r\n".join([*lines, "", ""]).encode()
    return Answer(head + text) if stream is None else Answer(head, stream)


def refusal(problem: BucketError) -> Answer:
    members: dict[str, Any] = {"success": False, "error": problem.message, "code": problem.code}
    if problem.details:
        members["details"] = problem.details
    if problem.revision is not None:
        members["revision"] = problem.revision
    later = RETRY_AFTER.get(problem.code)
    headers = {} if later is None else {"Retry-After": later}
    return answer(members, status=STATUS.get(problem.code, 500), headers=headers)


def dumps(value: Any) -> bytes:
    """Return compact JSON, of which the daemon counts the size."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class HttpServer(ThreadingMixIn, UnixStreamServer):
    """Serve a socket in threads until ``close``."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: str, respond: Respond) -> None:
        super().__init__(path, _Handler)
        self.respond = respond
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a peer that has gone; all else is a defect of this server."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def stop_listening(self) -> None:
        self.shutdown()
        self.server_close()

    def close_connections(self) -> None:
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpServer

    def _serve(self) -> None:
        self.close_connection = True
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        if "chunked" in headers.pop("transfer-encoding", ""):
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(headers.get("content-length", "0")))
        request = Request(self.command, self.path, headers, body, self.connection)
        response = self.server.respond(request)
        with contextlib.closing(_chunks_of(response, self.command == "HEAD")) as chunks:
            for chunk in chunks:
                if chunk:
                    self.wfile.write(chunk)
                elif request.is_gone():
                    return

    do_GET = do_HEAD = do_PUT = do_PATCH = do_POST = do_DELETE = do_OPTIONS = _serve  # noqa: N815

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def send_error(self, *_: Any) -> None:
        """Refuse what is no HTTP, and repeat nothing of it."""
        problem = error("invalid_request", "cannot read the request as HTTP/1.1")
        self.close_connection = True
        self.wfile.write(refusal(problem).data)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a test has its own output."""


def _chunks_of(response: Answer, is_head: bool) -> Generator[bytes, None, None]:
    """Yield all of a response; its stream begins before anything is sent, and ends in any case."""
    if is_head:
        yield response.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        return
    try:
        yield response.data + next(response.stream, b"")
        yield from response.stream
    finally:
        if isinstance(response.stream, Generator):
            response.stream.close()


def is_readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], POLL_SECONDS)[0])
