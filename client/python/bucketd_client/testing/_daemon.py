"""bucketd itself, in a directory of its own, as the engine behind a server for tests."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from .._api import call
from .._errors import BucketError, NotFound, error
from ._directory import short_directory
from ._http import Answer, Request, is_readable

START_SECONDS = 30.0
# The shell ends the daemon when its own input ends, so also when the test run is killed.
_GUARD = '"$0" "$@" & read _; kill $!; wait $!'
# Daemons that no server uses, by their limit: the next server of this process starts with one.
_idle: dict[int, list[Daemon]] = {}


def find_bucketd() -> str | None:
    """Return the program: BUCKETD_BIN, beside this Python, or on the PATH; None without one."""
    named = os.environ.get("BUCKETD_BIN")
    if named:
        return named
    beside = os.path.join(os.path.dirname(sys.executable), "bucketd")
    return beside if os.access(beside, os.X_OK) else shutil.which("bucketd")


def take(program: str, max_bytes: int) -> Daemon:
    """Return a daemon without buckets, contexts and schemas: an idle one, or a new one."""
    while idle := _idle.get(max_bytes):
        daemon = idle.pop()
        if daemon.owner == os.getpid() and daemon.program == program:
            return daemon
    return Daemon(program, max_bytes)


class Daemon:
    """A running bucketd, to which requests are passed on as they come."""

    def __init__(self, program: str, max_bytes: int) -> None:
        self.program, self.owner, self._max_bytes = program, os.getpid(), max_bytes
        self._home = short_directory("/bucketd.sock")
        self._socket = f"{self._home}/bucketd.sock"
        # An empty file: the settings of this user are not those of a test.
        self._config = f"{self._home}/bucketd.toml"
        with open(self._config, "w", encoding="utf-8"):
            pass
        atexit.register(self._remove)
        self.start()

    def start(self) -> None:
        """Start, with what was stored before, and wait until it serves."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("BUCKETD_")}
        env["BUCKETD_LIMITS_MAX_BUCKET_BYTES"] = str(self._max_bytes)
        places = {"--config": self._config, "--state-dir": f"{self._home}/state"}
        places.update({"--runtime-dir": f"{self._home}/run", "--socket": self._socket})
        options = [word for pair in places.items() for word in pair]
        with open(f"{self._home}/log", "ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", _GUARD, self.program, "serve", "--unsafe-filesystem",
                 "--log-level", "warning", *options],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if time.monotonic() > until:
                with open(f"{self._home}/log", encoding="utf-8", errors="replace") as log_:
                    said = log_.read()[-2000:]
                self.stop()
                raise RuntimeError(f"cannot start {self.program} for tests: {said or 'no reason'}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End, as by ``systemctl stop``; what is stored stays."""
        assert self._process.stdin is not None  # noqa: S101  (it was started with a pipe)
        self._process.stdin.close()
        self._process.wait(START_SECONDS)

    def respond(self, request: Request) -> Answer:
        """Pass a request on, and return what comes back; leave it when the peer has gone."""
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            upstream.connect(self._socket)
            upstream.sendall(request.encode())
            data = b""
            while b"\r\n\r\n" not in data:
                while not is_readable(upstream):
                    if request.is_gone():
                        raise ConnectionAbortedError
                if not (more := upstream.recv(65536)):
                    raise ConnectionAbortedError
                data += more
            if b"text/event-stream" in data.partition(b"\r\n\r\n")[0]:
                return Answer(data, _relay(upstream))
            while more := upstream.recv(65536):
                data += more
        except BaseException:
            upstream.close()
            raise
        upstream.close()
        return Answer(data)

    def set_schema(self, automation: str, schema: Any) -> None:
        body = json.dumps(schema).encode()
        headers = {"Content-Type": "application/json"}
        target = f"/v1/schemas/{quote(automation, '')}"
        call("PUT", target, path=self._socket, headers=headers, body=body)

    def give_back(self) -> None:
        """Forget all that a test has made, and wait for the next server."""
        try:
            self._forget()
        except (BucketError, OSError):
            # The next server gets a new one.
            self._remove()
        else:
            _idle.setdefault(self._max_bytes, []).append(self)

    def _forget(self) -> None:
        for row in self._rows("/v1/buckets?limit=1000", "buckets"):
            job = "" if row["job"] is None else f"/jobs/{quote(row['job'], '')}"
            self._call("DELETE", f"/v1/devices/{quote(row['device'], '')}{job}/bucket")
        # A daemon before 0.2 has no trash.
        with contextlib.suppress(NotFound):
            for row in self._rows("/v1/trash?limit=1000", "trash"):
                self._call("DELETE", f"/v1/trash/{row['id']}")
        for row in self._rows("/v1/contexts", "contexts"):
            self._call("DELETE", f"/v1/contexts/{row['id']}")
        for row in self._rows("/v1/schemas", "schemas"):
            self._call("DELETE", f"/v1/schemas/{quote(row['automation'], '')}")

    def _rows(self, target: str, name: str) -> list[dict[str, Any]]:
        members = self._call("GET", target)
        if members.get("next_cursor"):
            raise error("internal", "cannot empty the daemon: it has over a thousand buckets")
        rows: list[dict[str, Any]] = members[name]
        return rows

    def _call(self, method: str, target: str) -> dict[str, Any]:
        return call(method, target, path=self._socket, headers={}).members

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self._socket)
            sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200")
        return False

    def _remove(self) -> None:
        # A forked child has no part in it.
        if self.owner == os.getpid() and os.path.isdir(self._home):
            self.stop()
            shutil.rmtree(self._home, ignore_errors=True)


def _relay(upstream: socket.socket) -> Iterator[bytes]:
    """Yield a stream as it comes, to its end."""
    with upstream, contextlib.suppress(ConnectionError):
        while True:
            if not is_readable(upstream):
                yield b""
            elif data := upstream.recv(65536):
                yield data
            else:
                return
