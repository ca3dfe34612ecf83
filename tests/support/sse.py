"""A minimal reader of Server-Sent Events."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from harness import Daemon, encode_request


class Event(NamedTuple):
    """One event; ``kind`` is ``""`` for a block without data, such as a heartbeat."""

    kind: str
    id: str | None
    data: Any


class Stream:
    """One event stream; iterate over its events, or take them one by one."""

    def __init__(
        self,
        daemon: Daemon,
        target: str,
        token: str | None = None,
        since: str | None = None,
        timeout: float = 15.0,
    ) -> None:
        self.sock = daemon.connect(timeout)
        headers = {} if since is None else {"Last-Event-ID": since}
        self.sock.sendall(encode_request("GET", target, None, headers, token))
        self.buffer = b""
        head = self._until(b"\r\n\r\n")
        self.status = int(head.split()[1])
        self.head = head.decode("latin-1")
        self.last_id = since
        if self.status == 200:
            assert "Content-Type: text/event-stream" in self.head
            first = self._until(b"\n")
            assert first == b"retry: 1000", first
            if since is None:
                self.block()
        self.begun = self.last_id

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def block(self) -> Event:
        """Return the next block of fields; raise EOFError at the end of the stream."""
        fields: dict[str, str] = {}
        for line in self._until(b"\n\n").decode().split("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        self.last_id = fields.get("id", self.last_id)
        data = json.loads(fields["data"]) if "data" in fields else None
        kind = fields.get("event", "message") if data is not None else ""
        return Event(kind, fields.get("id"), data)

    def next(self) -> Event:
        """Return the next event."""
        while True:
            event = self.block()
            if event.kind:
                return event

    def rest(self) -> list[Event]:
        """Return all events up to the end of the stream."""
        found = []
        try:
            while True:
                found.append(self.next())
        except (EOFError, ConnectionError):
            return found

    def next_within(self, seconds: float) -> Event | None:
        """Return the next event; None if none comes in time."""
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            return self.next()
        except TimeoutError:
            return None
        finally:
            self.sock.settimeout(before)

    def _until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise EOFError
            self.buffer += chunk
        text, _, self.buffer = self.buffer.partition(end)
        return text


def apply_event(bucket: dict[str, Any], event: Event) -> dict[str, Any]:
    """Return a subscriber's copy of the bucket after an event."""
    kept = {k: v for k, v in bucket.items() if k not in event.data["removed"]}
    return {**kept, **event.data["set"]}
