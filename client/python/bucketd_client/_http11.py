"""HTTP/1.1 as bytes: encode a request, parse a response."""

from __future__ import annotations

from ._errors import NOT_BUCKETD, BucketError, error

MAX_HEAD = 64 * 1024
MAX_BODY = 256 * 1024 * 1024
_LINE_END, _HEAD_END = b"\r\n", b"\r\n\r\n"


class Response:
    """Status, head (latin-1, without the empty line) and body of one response."""

    __slots__ = ("body", "head", "status")

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status, self.head, self.body = status, head, body

    @property
    def headers(self) -> dict[str, str]:
        """Return the header fields by name in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines)
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def etag(self) -> str | None:
        return self.headers.get("etag")


def encode(method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    """Return the request as bytes. Raise InvalidRequest for a header that HTTP cannot hold."""
    return with_body(encode_head(method, target, headers), body)


def encode_head(method: str, target: str, headers: dict[str, str]) -> bytes:
    """Return the request line and the headers, without Content-Length and the empty line."""
    lines = [f"{method} {target} HTTP/1.1", "Host: bucketd"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise error("invalid_request", "cannot send the request: a header contains a line break")
    try:
        return "\r\n".join([*lines, ""]).encode("latin-1")
    except UnicodeEncodeError:
        raise error(
            "invalid_request", "cannot send the request: a header contains a non-latin character"
        ) from None


def with_body(head: bytes, body: bytes | None) -> bytes:
    """Complete a head from ``encode_head`` with the length and the body."""
    if body is None:
        return head + _LINE_END
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class ResponseParser:
    """Parse one response from the bytes of a connection, in whatever pieces they arrive."""

    def __init__(self, method: str) -> None:
        self._without_body = method == "HEAD"
        self._pieces: list[bytes] = []
        self._size = self._needed = 0
        self._head: bytes | None = None
        self._decoded: bytearray | None = None
        self.keeps_alive = False

    def feed(self, data: bytes) -> Response | None:
        """Return the response once it is complete, None before.

        ``keeps_alive`` then says whether the connection can serve another request. Raise
        InternalError for bytes that are not a response of bucketd, or a response without a length.
        """
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return None
        if len(self._pieces) > 1:
            data = b"".join(self._pieces)
            self._pieces = [data]
        if self._decoded is not None:
            return self._parse_chunks(data)
        return self._parse(data)

    def _parse(self, data: bytes) -> Response | None:
        end = data.find(_HEAD_END)
        if end < 0:
            _check_head_size(data)
            return None
        head = data[:end]
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise _not_a_response("it is not HTTP")
        status = int(head[9:12])
        if 100 <= status < 200:
            # An interim response precedes the response.
            return self._parse(self._drop(data, end + 4))
        fields = head.lower()
        self.keeps_alive = (
            head.startswith(b"HTTP/1.1") and _field(fields, b"connection") != b"close"
        )
        if self._without_body or status in (204, 304):
            return self._complete(status, head, b"", len(data) > end + 4)
        if _field(fields, b"transfer-encoding") == b"chunked":
            self._head, self._decoded = head, bytearray()
            return self._parse_chunks(self._drop(data, end + 4))
        length = _field(fields, b"content-length")
        if not length.isdigit():
            raise _not_a_response("it does not say how long it is")
        size = int(length)
        if size > MAX_BODY:
            raise _not_a_response(f"it is longer than {MAX_BODY} bytes")
        self._needed = end + 4 + size
        if len(data) < self._needed:
            return None
        return self._complete(status, head, data[end + 4 : self._needed], len(data) > self._needed)

    def _parse_chunks(self, data: bytes) -> Response | None:
        head, decoded = self._head, self._decoded
        assert head is not None  # noqa: S101  (for type checkers)
        assert decoded is not None  # noqa: S101
        while (line_end := data.find(_LINE_END)) >= 0:
            try:
                size = int(data[:line_end].partition(b";")[0], 16)
            except ValueError:
                raise _not_a_response("its chunks are malformed") from None
            if size == 0:
                # Trailers may precede the empty line.
                end = data.find(_HEAD_END, line_end)
                if end < 0:
                    break
                return self._complete(int(head[9:12]), head, bytes(decoded), len(data) > end + 4)
            if not 0 < size <= MAX_BODY - len(decoded):
                raise _not_a_response(f"it is longer than {MAX_BODY} bytes")
            end = line_end + 2 + size
            self._needed = end + 2
            if len(data) < self._needed:
                return None
            if data[end : end + 2] != _LINE_END:
                raise _not_a_response("its chunks are malformed")
            decoded += data[line_end + 2 : end]
            data = self._drop(data, end + 2)
        _check_head_size(data)
        return None

    def _drop(self, data: bytes, size: int) -> bytes:
        data = data[size:]
        self._pieces, self._size, self._needed = [data], len(data), 0
        return data

    def _complete(self, status: int, head: bytes, body: bytes, surplus: bool) -> Response:
        self.keeps_alive = self.keeps_alive and not surplus
        return Response(status, head, body)


def _check_head_size(data: bytes) -> None:
    if len(data) > MAX_HEAD:
        raise _not_a_response(f"its head is longer than {MAX_HEAD} bytes")


def _field(head: bytes, name: bytes) -> bytes:
    """Return the value of a field in a lower-case head; empty if there is none."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(_LINE_END, start)
    return head[start : len(head) if end < 0 else end].strip()


def _not_a_response(cause: str) -> BucketError:
    return error("internal", f"cannot read the response: {cause}, so {NOT_BUCKETD}")
