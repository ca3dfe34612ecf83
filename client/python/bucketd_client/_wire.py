"""HTTP/1.1 over a unix socket, on a bare ``socket``: one write, one read, a kept connection.

What may be repeated when a connection breaks follows from what the other end
has seen. Nothing was sent, or sending ended in EPIPE, or the answer is
ECONNRESET before its first byte: on a unix socket the kernel says that when
the other end closed with unread bytes, and the daemon acts only on a request
that it has read to the end. So even a write is repeated then. An orderly end
without an answer leaves the outcome open: reads are repeated, a write fails.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from typing import NamedTuple, NoReturn

from ._errors import error

MAX_ANSWER = 256 * 1024 * 1024
REACH_SECONDS, ANSWER_SECONDS = 5.0, 30.0
KEPT = 8  # idle connections for each socket path
_CHUNK = 65536
_AGAIN = (503, 429)
_SAFE_AGAIN = (b'"shutting_down"', b'"overloaded"', b'"too_many_requests"')


class Answer(NamedTuple):
    """Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _NotTaken(Exception):
    """The daemon has not read the whole request, so it did not act on it."""


class _Lost(Exception):
    """The connection ended in good order, and without an answer."""


class _Pool:
    """Idle connections by path. A fork leaves the child none of its parent's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[socket.socket]] = {}
        self._pid = os.getpid()

    def take(self, path: str) -> socket.socket | None:
        if self._pid != os.getpid():
            self.forget()
        with self._lock:
            idle = self._idle.get(path, [])
            while idle:
                sock = idle.pop()
                if _is_open(sock):
                    return sock
                sock.close()
        return None

    def give(self, path: str, sock: socket.socket) -> None:
        with self._lock:
            idle = self._idle.setdefault(path, [])
            if self._pid == os.getpid() and len(idle) < KEPT:
                idle.append(sock)
                return
        sock.close()

    def forget(self) -> None:
        """In a forked child: the connections are the parent's, and so may be the lock."""
        theirs, self._idle = self._idle, {}
        self._lock, self._pid = threading.Lock(), os.getpid()
        for sockets in theirs.values():
            for sock in sockets:
                sock.close()  # our copy of the descriptor; the parent's stays open


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.forget)


def _is_open(sock: socket.socket) -> bool:
    """Whether an idle connection has neither been closed by the daemon nor sent anything."""
    try:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return not poll.poll(0)
    except (OSError, ValueError):
        return False


def request(
    method: str,
    target: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    path: str,
    timeout: float | None = None,
) -> Answer:
    """One answer of the daemon.

    While nobody serves the socket, or the daemon says that it is busy or
    stopping, it is tried again for ``timeout`` seconds (5); an answer may take
    as long (30). Raises DaemonUnreachable, Timeout, or for a write whose
    outcome is open ConnectionLost.
    """
    text = _encode(method, target, body, headers or {})
    began = time.monotonic()
    deadline = began + (REACH_SECONDS if timeout is None else timeout)
    answer_by = began + (ANSWER_SECONDS if timeout is None else timeout)
    waited = deadline - began
    pause = 0.005
    while True:
        try:
            answer = _exchange(text, method, path, answer_by)
            if not _says_again(answer) or time.monotonic() + pause >= deadline:
                return answer
        except (FileNotFoundError, ConnectionRefusedError, _NotTaken) as cause:
            if time.monotonic() + pause >= deadline:
                _unreachable(path, waited, cause)
        except _Lost:
            if method not in ("GET", "HEAD"):
                raise error(
                    "connection_lost",
                    f"cannot tell whether the {method} was done: the daemon closed the connection "
                    "without an answer; read the bucket before you repeat it",
                ) from None
            if time.monotonic() + pause >= deadline:
                _unreachable(path, waited, None)
        except (TimeoutError, socket.timeout):
            raise _too_slow(method, answer_by - began) from None
        except OSError as cause:
            _unreachable(path, 0, cause)
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _exchange(text: bytes, method: str, path: str, deadline: float) -> Answer:
    sock = _pool.take(path) or _connect(path, deadline)
    keep = False
    try:
        _send(sock, text, deadline)
        answer, keep = _receive(sock, method, deadline)
    finally:
        if not keep:
            sock.close()
    _pool.give(path, sock)
    return answer


def _connect(path: str, deadline: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_left(deadline))
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _send(sock: socket.socket, text: bytes, deadline: float) -> None:
    sock.settimeout(_left(deadline))
    try:
        sock.sendall(text)
    except ConnectionError:
        # The daemon may have answered before it closed: 413 to a body it would not read.
        sock.settimeout(0.0)
        try:
            if sock.recv(1, socket.MSG_PEEK):
                return
        except OSError:
            pass
        raise _NotTaken from None


def _receive(sock: socket.socket, method: str, deadline: float) -> tuple[Answer, bool]:
    buffer = b""
    while True:
        end = buffer.find(b"\r\n\r\n")
        if end >= 0:
            status, headers = _parse_head(buffer[:end])
            buffer = buffer[end + 4 :]
            if status != 100:
                break
            continue
        chunk = _recv(sock, deadline, first=not buffer)
        buffer += chunk
    keep = headers.get("connection", "").lower() != "close"
    if method == "HEAD" or status in (204, 304):
        return Answer(status, headers, b""), keep
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MAX_ANSWER:
        raise error("internal", "cannot read the answer: this is no answer of bucketd")
    parts, have = [buffer], len(buffer)
    while have < int(length):
        chunk = _recv(sock, deadline, first=False)
        parts.append(chunk)
        have += len(chunk)
    body = b"".join(parts)
    return Answer(status, headers, body[: int(length)]), keep and have == int(length)


def _recv(sock: socket.socket, deadline: float, first: bool) -> bytes:
    sock.settimeout(_left(deadline))
    try:
        chunk = sock.recv(_CHUNK)
    except ConnectionResetError:
        raise (_NotTaken if first else _Lost) from None
    if not chunk:
        raise _Lost
    return chunk


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    try:
        status = int(lines[0].split(" ", 2)[1])
    except (IndexError, ValueError):
        raise error("internal", "cannot read the answer: this is no HTTP server") from None
    pairs = (line.partition(":") for line in lines[1:])
    return status, {name.lower(): value.strip() for name, _, value in pairs}


def _encode(method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: bucketd"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise error("invalid_request", "cannot send the request: a header has a line break in it")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
    except UnicodeEncodeError:
        raise error(
            "invalid_request", "cannot send the request: a header is not plain text"
        ) from None


def _says_again(answer: Answer) -> bool:
    """A refusal that promises that nothing was done, and that a later try may be better."""
    return answer.status in _AGAIN and any(code in answer.body for code in _SAFE_AGAIN)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left


def _too_slow(method: str, timeout: float) -> Exception:
    known = "" if method in ("GET", "HEAD") else "; whether it was done is not known"
    return error("timeout", f"cannot finish the {method}: no answer within {timeout:g} s{known}")


def _unreachable(path: str, waited: float, cause: Exception | None) -> NoReturn:
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else "no answer"
    how_long = f" for {waited:g} s" if waited else ""
    raise error(
        "daemon_unreachable",
        f"cannot reach bucketd on {path}: {reason.lower()}{how_long}; is bucketd running?",
    ) from None
