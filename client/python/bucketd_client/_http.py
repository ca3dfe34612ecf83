"""HTTP/1.1 as bytes: one request out of its parts, one answer out of a stream."""

from __future__ import annotations

from typing import Callable, NamedTuple

from ._errors import BucketError, error

MAX_HEAD = 64 * 1024
MAX_BODY = 256 * 1024 * 1024


class Answer(NamedTuple):
    """Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def encode(method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    """Head and body in one piece; InvalidRequest for what would not stay in its place there."""
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


class Reader:
    """One answer, read by ``receive``, which gives the next bytes or raises.

    Raises InternalError for what is no answer, or has no bounds.
    """

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def answer(self, method: str) -> tuple[Answer, bool]:
        """The answer, and whether the connection can serve another call."""
        status, headers, keep = self._head()
        while 100 <= status < 200:  # interim; the answer is still to come
            status, headers, keep = self._head()
        body = self._body(method, status, headers)
        return Answer(status, headers, body), keep and not self._buffer

    def _head(self) -> tuple[int, dict[str, str], bool]:
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
            raise _no_answer("it is not HTTP")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return int(rest[:3]), headers, keep

    def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks()
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            raise _no_answer("it does not say how long it is")
        return self._exactly(int(length))

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := self._chunk_size():
            body += self._exactly(size, MAX_BODY - len(body))
            if self._exactly(2) != b"\r\n":
                raise _no_answer("its chunks do not fit")
        while self._until(b"\r\n"):  # trailers
            pass
        return bytes(body)

    def _chunk_size(self) -> int:
        try:
            return int(self._until(b"\r\n").partition(b";")[0], 16)
        except ValueError:
            raise _no_answer("its chunks do not fit") from None

    def _exactly(self, size: int, limit: int = MAX_BODY) -> bytes:
        if not 0 <= size <= limit:
            raise _no_answer(f"it is longer than {MAX_BODY} bytes")
        while len(self._buffer) < size:
            self._buffer += self._receive()
        return self._taken(size)

    def _until(self, mark: bytes) -> bytes:
        """What stands before the mark; the mark is taken too."""
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise _no_answer(f"its head is longer than {MAX_HEAD} bytes")
            self._buffer += self._receive()
        return self._taken(end + len(mark))[:end]

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _no_answer(cause: str) -> BucketError:
    return error("internal", f"cannot read the answer: {cause}, so this is no answer of bucketd")
