"""Holds over raw sockets: whoever asks for one, waits, holds, and goes away."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from harness import Daemon, Response, encode_request, escape


def hold_path(device: str, job: str | None = None) -> str:
    """Return the operator's route for a hold of a device, or of a pair."""
    of_job = "" if job is None else f"/jobs/{escape(job)}"
    return f"/v1/devices/{escape(device)}{of_job}/hold"


class Holder:
    """One request for a hold, on a connection of its own, and what comes back."""

    def __init__(
        self,
        daemon: Daemon,
        path: str,
        body: Any = None,
        token: str | None = None,
        timeout: float = 20.0,
    ) -> None:
        self.sock = daemon.connect(timeout)
        body = {} if body is None else body
        self.sock.sendall(encode_request("POST", path, body, token=token, close=False))
        self._buffer = b""
        self.hold: dict[str, Any] = {}

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def response(self) -> Response:
        """Wait for the response; if the hold was had, ``hold`` is what it said."""
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        response = Response(int(head[0].split()[1]), headers)
        if response.status != 200:
            size = int(headers["content-length"])
            while len(self._buffer) < size:
                self._buffer += self._receive()
            return Response(response.status, headers, self._buffer[:size])
        assert headers["content-type"] == "text/event-stream"
        assert headers["connection"] == "close"
        kind, self.hold = self.event()
        assert kind == "hold"
        return response

    def taken(self) -> Holder:
        """Wait until the hold is had, and return this holder."""
        response = self.response()
        assert response.status == 200, response
        return self

    @property
    def id(self) -> str:
        return str(self.hold["id"])

    @property
    def fence(self) -> dict[str, str]:
        """Return the header of writes under this hold."""
        return {"Bucketd-Fence": self.hold["fence"]}

    def event(self) -> tuple[str, Any]:
        """Return the next event, or a comment as ``("", None)``; raise EOFError at the end."""
        fields = dict(
            line.split(": ", 1)
            for line in self._until(b"\n\n").decode().split("\n")
            if ": " in line
        )
        data = fields.get("data")
        return fields.get("event", ""), None if data is None else json.loads(data)

    def lost(self) -> str:
        """Return why the hold is lost; the stream has to end with that."""
        while True:
            kind, data = self.event()
            if kind:
                assert (kind, data["id"]) == ("lost", self.id)
                assert self.has_ended()
                self.close()
                return str(data["reason"])

    def has_ended(self) -> bool:
        """Wait for the end of the stream; return False if something else comes."""
        with contextlib.suppress(ConnectionError):
            return self.sock.recv(65536) == b""
        return True

    def release(self) -> None:
        """End the hold, and wait until it has ended."""
        self.sock.shutdown(socket.SHUT_WR)
        assert self.has_ended()
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._buffer += self._receive()
        text, _, self._buffer = self._buffer.partition(end)
        return text

    def _receive(self) -> bytes:
        chunk = self.sock.recv(65536)
        if not chunk:
            raise EOFError
        return chunk


def refused(response: Response, status: int, code: str) -> Any:
    """Return the body of a response, which has to be this refusal."""
    assert (response.status, response.json["code"]) == (status, code), response
    assert response.json["success"] is False
    return response.json
