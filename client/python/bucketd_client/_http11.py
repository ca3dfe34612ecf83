"""HTTP/1.1 as bytes: one request out of its parts, one answer out of a stream."""

from __future__ import annotations

from ._errors import NO_ANSWER, BucketError, error

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Callable

MAX_HEAD = 64 * 1024
MAX_BODY = 256 * 1024 * 1024
_USUAL, _END = b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n"
_LENGTH, _ETAG = b"\r\nContent-Length: ", b"\r\nETag: "  # as the daemon writes them
_UNUSUAL = (b"\r\nConnection:", b"\r\nTransfer-Encoding:")


class Answer:
    """Status, head as it came (latin-1, without the empty line), and body."""

    __slots__ = ("body", "head", "status")

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status, self.head, self.body = status, head, body

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case."""
        return _fields(self.head)

    @property
    def etag(self) -> str | None:
        start = self.head.find(_ETAG)
        if start < 0:
            return self.headers.get("etag")
        return self.head[start + len(_ETAG) :].partition(b"\r\n")[0].decode("latin-1")


def encode(method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    """Head and body in one piece; InvalidRequest for what would not stay in its place there."""
    head = encode_head(method, target, headers)
    return head + (b"\r\n" if body is None else b"Content-Length: %d\r\n\r\n" % len(body) + body)


def encode_head(method: str, target: str, headers: dict[str, str]) -> bytes:
    """The same without length, empty line and body."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bucketd"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise error("invalid_request", "cannot send the request: a header has a line break in it")
    try:
        return "\r\n".join([*lines, ""]).encode("latin-1")
    except UnicodeEncodeError:
        raise error(
            "invalid_request", "cannot send the request: a header is not plain text"
        ) from None


def usual(text: bytes) -> Answer | None:
    """The answer that most calls get, where this is one and all of it; None: read it in full."""
    end = text.find(_END)
    if end < 0 or not text.startswith(_USUAL):
        return None
    start = text.find(_LENGTH, 0, end) + len(_LENGTH)
    length = text[start : text.find(b"\r\n", start)]
    if start < len(_LENGTH) or not length.isdigit() or end + 4 + int(length) != len(text):
        return None
    if any(text.find(mark, 0, end) >= 0 for mark in _UNUSUAL):
        return None
    return Answer(200, text[:end], text[end + 4 :])


def _fields(head: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}


class Reader:
    """One answer, that begins with ``first`` and is read on by ``receive``.

    ``receive`` gives the next bytes, or raises.

    Raises InternalError for what is no answer, or has no bounds.
    """

    def __init__(self, receive: Callable[[], bytes], first: bytes = b"") -> None:
        self._receive = receive
        self._buffer = bytearray(first)

    def answer(self, method: str) -> tuple[Answer, bool]:
        """The answer, and whether the connection can serve another call."""
        status, head, keep = self._head()
        while 100 <= status < 200:  # interim; the answer is still to come
            status, head, keep = self._head()
        body = self._body(method, status, _fields(head))
        return Answer(status, head, body), keep and not self._buffer

    def _head(self) -> tuple[int, bytes, bool]:
        head = self._until(_END)
        version, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
            raise _no_answer("it is not HTTP")
        closes = _fields(head).get("connection", "").lower() == "close"
        return int(rest[:3]), head, version == "HTTP/1.1" and not closes

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
    return error(
        "internal",
        f"cannot read the answer: {cause}, so {NO_ANSWER}",
    )
