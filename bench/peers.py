"""Servers to compare with: started here, used as their users do, stopped here.

A peer that is not installed raises Missing, and the table names it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .inprocess import Missing, module


@contextmanager
def process(words: list[str], ready: Callable[[], bool], log: Path) -> Iterator[subprocess.Popen]:
    """Start a server, wait until it responds, and stop it at the end of the block."""
    with log.open("wb") as out:
        server = subprocess.Popen(words, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 20
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{words[0]} did not get ready: {log.read_text()[-500:]}")
            time.sleep(0.01)
        yield server
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(path: str | tuple[str, int]) -> Callable[[], bool]:
    def ready() -> bool:
        family = socket.AF_UNIX if isinstance(path, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            return sock.connect_ex(path) == 0

    return ready


def connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return sock


class Bucketd:
    """The daemon of this checkout, with strict durability, on a directory of this run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state, self.socket = home / "state", str(home / "run" / "bucketd.sock")

    @contextmanager
    def running(self, *more: str) -> Iterator[subprocess.Popen]:
        words = [sys.executable, "-m", "bucketd", "--state-dir", str(self.state)]
        words += ["--runtime-dir", str(self.home / "run"), "--log-level", "warning", *more]
        with process(words, answers(self.socket), self.home / "bucketd.log") as server:
            yield server

    def connect(self) -> socket.socket:
        return connected(self.socket)

    def client(self, device: str, job: str = "job", automation: str | None = None) -> Any:
        from bucketd_client import Bucket

        return Bucket(device=device, job=job, automation=automation, socket=self.socket)

    @staticmethod
    def path(device: str, job: str = "job") -> str:
        return f"/v1/devices/{device}/jobs/{job}/bucket"

    @staticmethod
    def get(device: str, job: str = "job") -> bytes:
        return f"GET {Bucketd.path(device, job)} HTTP/1.1\r\nHost: b\r\n\r\n".encode()

    @staticmethod
    def patch(device: str, body: bytes, job: str = "job") -> bytes:
        head = f"PATCH {Bucketd.path(device, job)} HTTP/1.1\r\nHost: b\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@contextmanager
def redis(home: Path) -> Iterator[Any]:
    """Yield redis-py on a unix socket, with a server that fsyncs every write before it responds."""
    if shutil.which("redis-server") is None:
        raise Missing("apt install redis-server")
    found = module("redis", "redis")
    path = str(home / "redis.sock")
    words = ["redis-server", "--port", "0", "--unixsocket", path, "--dir", str(home)]
    words += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    with process(words, answers(path), home / "redis.log"):
        yield found.Redis(unix_socket_path=path)


def redis_benchmark(home: Path, operation: str, connections: int, total: int) -> float:
    """Return Redis' own rate of gets or sets of 1 KiB, by its own load generator."""
    if shutil.which("redis-benchmark") is None:
        raise Missing("apt install redis-tools")
    words = ["redis-benchmark", "-s", str(home / "redis.sock"), "-t", operation, "-d", "1024"]
    words += ["-c", str(connections), "-n", str(total), "-r", str(connections), "--csv"]
    told = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(told.splitlines()[-1].split(",")[1].strip('"'))


class Etcd:
    """etcd through its v3 JSON gateway, over a keep-alive connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    @staticmethod
    def put(key: str, value: bytes) -> bytes:
        pair = {"key": base64.b64encode(key.encode()).decode()}
        body = json.dumps({**pair, "value": base64.b64encode(value).decode()}).encode()
        return Etcd._post("put", body)

    @staticmethod
    def get(key: str) -> bytes:
        name = base64.b64encode(key.encode()).decode()
        return Etcd._post("range", json.dumps({"key": name}).encode())

    @staticmethod
    def _post(what: str, body: bytes) -> bytes:
        head = f"POST /v3/kv/{what} HTTP/1.1\r\nHost: e\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@contextmanager
def etcd(home: Path, size: int = 1) -> Iterator[Etcd]:
    """Start ``size`` nodes, and yield the first."""
    if shutil.which("etcd") is None:
        raise Missing("apt install etcd-server")
    ports = _free_ports(2 * size)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    members = ",".join(f"n{i}={urls[size + i]}" for i in range(size))
    with contextlib.ExitStack() as stack:
        for i in range(size):
            place = home / f"etcd-{size}-{i}"
            words = ["etcd", "--name", f"n{i}", "--data-dir", str(place)]
            words += ["--listen-client-urls", urls[i], "--advertise-client-urls", urls[i]]
            words += ["--listen-peer-urls", urls[size + i], "--initial-cluster", members]
            words += ["--initial-advertise-peer-urls", urls[size + i]]
            stack.enter_context(process(words, lambda: True, place.with_suffix(".log")))
        while not all(answers(("127.0.0.1", port))() for port in ports[:size]):
            time.sleep(0.05)
        # The nodes elect a leader.
        time.sleep(2)
        yield Etcd(("127.0.0.1", ports[0]))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


ECHO = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(sys.argv[1]); server.listen()
while True:
    sock, _ = server.accept()
    while chunk := sock.recv(262144):
        sock.sendall(chunk)
"""

AIOHTTP = """
import sys
from aiohttp import web
body = open(sys.argv[2], "rb").read()
async def get(request):
    return web.Response(body=body, content_type="application/json")
app = web.Application()
app.router.add_get("/{tail:.*}", get)
web.run_app(app, path=sys.argv[1], print=None, access_log=None)
"""


@contextmanager
def echo(home: Path) -> Iterator[socket.socket]:
    """Yield a socket that is connected to an echo server."""
    path = str(home / "echo.sock")
    with (
        process([sys.executable, "-c", ECHO, path], lambda: Path(path).exists(), home / "echo.log"),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
    ):
        while sock.connect_ex(path) != 0:
            time.sleep(0.01)
        yield sock


@contextmanager
def minimal_aiohttp(home: Path, body: bytes) -> Iterator[str]:
    """Yield the socket path of a minimal aiohttp handler with a fixed body, on asyncio's loop."""
    path, file = str(home / "aiohttp.sock"), home / "aiohttp.body"
    file.write_bytes(body)
    words = [sys.executable, "-c", AIOHTTP, path, str(file)]
    with process(words, answers(path), home / "aiohttp.log"):
        yield path


def whole(recv: Callable[[int], bytes], size: int) -> None:
    while size > 0:
        size -= len(recv(262144))


@contextlib.contextmanager
def available(manager: Any, note: Callable[[str], None], name: str) -> Iterator[Any]:
    """Yield the peer; None, with a note in the report, if it is not installed."""
    with contextlib.ExitStack() as stack:
        try:
            peer = stack.enter_context(manager)
        except Missing as cause:
            note(f"{name} is not installed ({cause})")
            peer = None
        yield peer
