"""``bucketctl console`` as a process, and raw requests to it, as another user would send them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from bucketd_client.ctl.console import pages
from ctl_shell import CTL, Shell
from harness import Daemon, Response

LINK = re.compile(r"http://127\.0\.0\.1:(\d+)/#ticket=([\w-]+)")


@dataclass
class Console:
    """A console of one daemon. ``token`` is that of the page that the first ticket opened."""

    process: subprocess.Popen[str]
    port: int
    ticket: str
    token: str = ""

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def raw(self, data: bytes) -> bytes:
        """Send bytes, and return all that comes until the console closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as peer:
            peer.sendall(data)
            pieces = []
            while piece := peer.recv(65536):
                pieces.append(piece)
        return b"".join(pieces)

    def request(
        self, method: str, target: str, body: bytes | None = None, **fields: str | None
    ) -> Response:
        """Send a request as the page does; ``fields`` replace its fields, None leaves one out.

        Names of fields have underscores in place of hyphens.
        """
        given: dict[str, str | None] = {
            "Host": self.authority,
            "Sec-Fetch-Site": "same-origin",
            "Authorization": f"Bearer {self.token}",
        }
        for name, value in fields.items():
            given[name.replace("_", "-")] = value
        if body is not None:
            given["Content-Length"] = str(len(body))
        lines = [f"{name}: {value}" for name, value in given.items() if value is not None]
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
        return parsed(self.raw(head.encode("latin-1") + (body or b"")))

    def json(self, method: str, target: str, value: Any) -> Response:
        return self.request(method, target, json.dumps(value).encode())

    def redeem(self, ticket: str) -> Response:
        body = json.dumps({"ticket": ticket}).encode()
        return self.request("POST", "/console/session", body, Authorization=None)

    def unlock(self) -> None:
        assert self.request("POST", "/console/unlock", b"").status == 200

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


def parsed(data: bytes) -> Response:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    fields = {name.lower(): value for name, _, value in pairs}
    if fields.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    return Response(int(first.split(" ")[1]), fields, body)


def unchunked(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        found, data = found + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return found


def start(daemon: Daemon, *options: str, env: dict[str, str] | None = None) -> Console:
    """Start a console without a browser; skip where its page is not built."""
    try:
        pages.load()
    except pages.NotBuilt:
        pytest.skip("the page is not built: make console, which needs Node 18 or newer")
    process = subprocess.Popen(
        [*CTL, "console", "--no-browser", *options],
        env={**Shell(daemon).environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := LINK.search(line):
            return Console(process, int(found[1]), found[2])
    raise AssertionError(process.communicate()[1])


def opened(daemon: Daemon, *options: str) -> Iterator[Console]:
    """Yield a console of which a page is open."""
    console = start(daemon, *options)
    try:
        console.token = console.redeem(console.ticket).json["token"]
        yield console
    finally:
        console.stop()
        console.process.communicate()
