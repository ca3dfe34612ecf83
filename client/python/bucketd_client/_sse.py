"""Parse Server-Sent Events from bytes, in whatever pieces they arrive (WHATWG HTML, 9.2.6)."""

from __future__ import annotations

from typing import NamedTuple

from ._errors import error
from ._http11 import MAX_BODY


class Event(NamedTuple):
    """One event; ``id`` is the newest id of the stream, ``data`` is empty if it has only the id."""

    kind: str
    id: str
    data: str


class Parser:
    """Parse events from bytes; a line ends with LF, or CR and LF."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._size = 0
        self._id = self._kind = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that are complete now. Raise InternalError for one that is too long."""
        self._size += len(chunk)
        *lines, rest = chunk.split(b"\n")
        found: list[Event] = []
        for line in lines:
            whole, self._line = bytes(self._line + line), bytearray()
            if event := self._take(whole.rstrip(b"\r").decode("utf-8", "replace")):
                found.append(event)
        self._line += rest
        if self._size > MAX_BODY:
            raise error("internal", f"cannot read the events: one has over {MAX_BODY} bytes")
        return found

    def _take(self, line: str) -> Event | None:
        if not line:
            event = Event(self._kind, self._id, "\n".join(self._data))
            self._forget()
            return event
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "id" and "\0" not in value:
            self._id = value
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        return None

    def _forget(self) -> None:
        self._kind, self._size, self._data = "", 0, []
