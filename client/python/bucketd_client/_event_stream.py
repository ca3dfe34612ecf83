"""The response to a request for events: its head, then events; or a refusal."""

from __future__ import annotations

from . import _api, _retry
from ._errors import BucketError, error
from ._http11 import MAX_HEAD, Response
from ._sse import Event, Parser

_END = b"\r\n\r\n"


class Busy(Exception):
    """The daemon asks for another attempt, ``seconds`` from now."""

    def __init__(self, refusal: BucketError, seconds: float) -> None:
        super().__init__(refusal.message)
        self.refusal, self.seconds = refusal, seconds


class EventStream:
    """Parse one response, in whatever pieces it arrives."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._parser: Parser | None = None

    @property
    def has_begun(self) -> bool:
        """Report whether the daemon has accepted the request."""
        return self._parser is not None

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that are complete now; an empty ``chunk`` is the end of the connection.

        Raise Lost at the end, Busy or BucketError for a refusal.
        """
        if not chunk:
            raise _retry.Lost
        if self._parser is None:
            chunk = self._parse_head(chunk)
        return [] if self._parser is None else self._parser.feed(chunk)

    def _parse_head(self, chunk: bytes) -> bytes:
        """Return the bytes after the head of the stream, once the head is complete."""
        self._head += chunk
        head, end, rest = bytes(self._head).partition(_END)
        if not end:
            if len(head) > MAX_HEAD:
                raise error(
                    "internal",
                    f"cannot read the response: its head is longer than {MAX_HEAD} bytes",
                )
            return b""
        response = Response(_status(head), head, rest)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if "transfer-encoding" in response.headers:
            raise error(
                "internal", "cannot read the events: they are chunked, so this is not bucketd"
            )
        if response.status != 200 or kind != "text/event-stream":
            _raise_refusal(response)
            return b""
        self._parser = Parser()
        return rest


def _raise_refusal(response: Response) -> None:
    """Raise the error in the response, once it is complete."""
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdecimal() and len(response.body) < int(length):
        return
    if (seconds := _retry.retry_after(response)) is not None:
        try:
            _api.checked(response)
        except BucketError as refusal:
            raise Busy(refusal, seconds) from None
    _api.checked(response)
    raise error("internal", "cannot read the response: it is not a stream of events")


def _status(head: bytes) -> int:
    version, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise error("internal", "cannot read the response: it is not HTTP, so this is not bucketd")
    return int(rest[:3])
