"""A real unix socket that gives canned answers, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Seen:
    """One request as it came; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[socket.socket, Seen, int], bool]


@dataclass
class Fake:
    """Hands each request to ``script(connection, request, number)``; False ends the connection."""

    path: str
    script: Script
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0

    def serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                self.connections += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            while True:
                request = _read(connection)
                self.seen.append(request)
                if not self.script(connection, request, len(self.seen)):
                    return


def _read(connection: socket.socket) -> Seen:
    text = b""
    while b"\r\n\r\n" not in text:
        chunk = connection.recv(65536)
        if not chunk:
            raise ValueError("closed")
        text += chunk
    head, _, body = text.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Seen(method, target, headers, body)


def answer(
    connection: socket.socket, status: int, body: Any, headers: dict[str, str] | None = None
) -> None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Canned", f"Content-Length: {len(text)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + text)


@contextlib.contextmanager
def fake(script: Script) -> Iterator[Fake]:
    with tempfile.TemporaryDirectory(prefix="bd-") as home:
        path = str(Path(home, "s.sock"))
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()
        server = Fake(path, script)
        thread = threading.Thread(target=server.serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            # Only a shutdown wakes a thread that waits in accept().
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            thread.join(5)
