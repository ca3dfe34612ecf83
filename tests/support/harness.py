"""A real daemon in its own directory, and raw requests to it, without mocks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0


@dataclass(frozen=True)
class Response:
    """One HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def etag(self) -> str | None:
        return self.headers.get("etag")

    @property
    def bucket(self) -> Any:
        """The bucket of a result that must be a success."""
        assert self.status in (200, 201), self
        return self.json["bucket"] if "bucket" in self.json else self.json["deviceBucket"]


@dataclass
class Daemon:
    """``bucketd`` as a subprocess; ``home`` holds its state, runtime and log."""

    home: Path
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    program: tuple[str, ...] = ("-m", "bucketd")

    @property
    def state_dir(self) -> Path:
        return self.home / "state"

    @property
    def runtime_dir(self) -> Path:
        return self.home / "run"

    @property
    def config(self) -> Path:
        return self.home / "bucketd.toml"

    @property
    def socket(self) -> str:
        return str(self.runtime_dir / "bucketd.sock")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        path = self.home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def spawn(self, *args: str, env: dict[str, str] | None = None) -> None:
        """Start the process, without waiting until it serves."""
        command = [sys.executable, *self.program, "serve", *self.options(), *args]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=REPO, stderr=log, stdout=log, env=self.environ(env)
            )

    def options(self) -> list[str]:
        options = ["--state-dir", str(self.state_dir), "--runtime-dir", str(self.runtime_dir)]
        options += ["--socket", self.socket, "--log-level", "warning", *self.extra_args]
        return [*options, "--config", str(self.config)] if self.config.exists() else options

    def environ(self, env: dict[str, str] | None = None) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("BUCKETD_")}
        # /tmp may be in memory, which these tests accept.
        clean["BUCKETD_STORE_UNSAFE_FILESYSTEM"] = "true"
        return {**clean, **self.env, **(env or {})}

    def start(self, *args: str, env: dict[str, str] | None = None) -> Daemon:
        self.spawn(*args, env=env)
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.request("GET", "/readyz").status == 200:
                    return
            assert self.process is not None
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the daemon did not get ready: {self.log}")

    def stop(self, timeout: float = 15.0) -> int:
        """Stop the daemon with SIGTERM, and return its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Kill the daemon with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def restart(self) -> None:
        assert self.stop() == 0, self.log
        self.start()

    def connect(self, timeout: float = 15.0) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(self.socket)
        except BaseException:
            sock.close()
            raise
        return sock

    def raw(self, text: bytes, timeout: float = 15.0) -> bytes:
        """Send bytes, and return all that the daemon sends until it closes the connection."""
        with self.connect(timeout) as sock, contextlib.suppress(ConnectionError):
            with contextlib.suppress(ConnectionError):
                sock.sendall(text)
            return receive_all(sock)
        return b""

    def request(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        token: str | None = None,
        sock: socket.socket | None = None,
    ) -> Response:
        """Send one request and return its response; ``sock`` stays open, if given."""
        text = encode_request(method, target, body, headers, token, close=sock is None)
        if sock is not None:
            sock.sendall(text)
            return read_response(sock, method)
        with self.connect() as fresh:
            with contextlib.suppress(ConnectionError):
                fresh.sendall(text)
            return read_response(fresh, method)

    def mint(
        self,
        device: str,
        job: str | None = None,
        automation: str | None = None,
        ttl_seconds: float | None = None,
        label: str | None = None,
    ) -> str:
        """Mint a context, and return its token."""
        body = {"device": device, "job": job, "automation": automation, "ttl_seconds": ttl_seconds}
        body["label"] = label
        given = {name: value for name, value in body.items() if value is not None}
        response = self.request("POST", "/v1/contexts", given)
        assert response.status == 201, response
        return str(response.json["token"])

    def bucket_path(self, device: str, job: str | None = None) -> Path:
        """Return the expected path of a bucket's file."""
        home = self.state_dir / "devices" / encode_name(device)
        return home / ("device.json" if job is None else f"jobs/{encode_name(job)}.json")

    def files(self) -> dict[str, bytes]:
        """Return the content of all bucket files by path; directories have none."""
        with (self.state_dir / "write.lock").open() as lock:
            # While the lock is free, the files are current.
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = (self.state_dir / "devices").rglob("*")
            return {str(path): path.read_bytes() if path.is_file() else b"" for path in found}

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.home, ignore_errors=True)


def new_daemon(**options: Any) -> Daemon:
    """Return a daemon, not started yet; its directory has a path short enough for sockets."""
    return Daemon(Path(tempfile.mkdtemp(prefix="bd-")), **options)


def encode_name(name: str) -> str:
    """Encode a name for a bucket file, independently of the daemon's code."""
    raw = name.encode()
    out = ""
    for index, byte in enumerate(raw):
        char = chr(byte)
        inner_dot = char == "." and index not in (0, len(raw) - 1)
        out += char if re.match(r"[A-Za-z0-9_-]", char) or inner_dot else f"%{byte:02X}"
    if len(out) <= 200:
        return out
    cut = out[:160]
    for tail in (1, 2):
        if cut[-tail] == "%":
            cut = cut[:-tail]
            break
    return cut + "~" + hashlib.sha256(raw).hexdigest()[:32]


def pair(device: str, job: str | None = None) -> str:
    """Return the operator's path of a bucket; all bytes but letters and digits are escaped."""
    device = escape(device)
    return (
        f"/v1/devices/{device}/bucket"
        if job is None
        else f"/v1/devices/{device}/jobs/{escape(job)}/bucket"
    )


def escape(name: str) -> str:
    return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"%{b:02X}" for b in name.encode())


def encode_request(
    method: str,
    target: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    token: str | None = None,
    close: bool = True,
) -> bytes:
    """Return a request's bytes. A ``bytes`` body is sent as it is, any other as JSON."""
    given = {"Host": "bucketd"}
    if body is not None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    if close:
        given["Connection"] = "close"
    given |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b"")


def read_response(sock: socket.socket, method: str = "GET") -> Response:
    """Read one response; the daemon's responses have a Content-Length or no body."""
    text = b""
    while b"\r\n\r\n" not in text:
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError(f"the daemon closed the connection after {text!r}")
        text += chunk
    head, _, body = text.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
    status = int(lines[0].split()[1])
    if status == 100:
        raise AssertionError("an interim response, which was not asked for")
    wanted = 0 if method == "HEAD" or status == 304 else int(headers.get("content-length", 0))
    while len(body) < wanted:
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError("the daemon closed the connection in the middle of a body")
        body += chunk
    return Response(status, headers, body)


def receive_all(sock: socket.socket) -> bytes:
    text = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(65536):
            text += chunk
    return text
