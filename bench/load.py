"""Load generators for all peers: a closed loop over raw connections, h2load, and threads."""

from __future__ import annotations

import re
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .inprocess import Missing
from .timing import Samples

Connect = Callable[[], socket.socket]
Request = Callable[[int, int], bytes]
Run = Callable[[Samples], None]


def over_connections(connect: Connect, request: Request, connections: int, total: int) -> Run:
    """Return a run that sends ``total`` requests, each once its connection has its last response.

    ``request(connection, number)`` returns the bytes. Responses are HTTP with a Content-Length. The
    run shares the cores with the server, so it does as little work as possible.
    """
    socks = [connect() for _ in range(connections)]
    indices = {sock.fileno(): index for index, sock in enumerate(socks)}
    events = _watched(socks)
    counter = iter(range(10**9))

    def run(samples: Samples) -> None:
        begun, buffers = [0.0] * connections, [b""] * connections
        left, waiting, usual = total, connections, 0

        def send(index: int) -> None:
            begun[index] = time.perf_counter()
            socks[index].sendall(request(index, next(counter)))

        start = time.perf_counter()
        for index in range(connections):
            send(index)
        while waiting:
            for number, _ in events.poll():
                index = indices[number]
                text = buffers[index] + socks[index].recv(262144)
                if not is_whole(text, usual):
                    buffers[index] = text
                    continue
                buffers[index], usual = b"", len(text)
                samples.seconds.append(time.perf_counter() - begun[index])
                left -= 1
                if left >= waiting:
                    send(index)
                else:
                    waiting -= 1
        samples.rates.append(total / (time.perf_counter() - start))

    return run


def _watched(socks: list[socket.socket]) -> select.epoll:
    events = select.epoll()
    for sock in socks:
        sock.setblocking(False)
        events.register(sock, select.EPOLLIN)
    return events


SUCCESS = b"HTTP/1.1 200"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def is_whole(text: bytes, usual: int) -> bool:
    """Report whether a response is complete; raise RuntimeError unless it is a success.

    A response of the ``usual`` length, that of the last complete one, is not parsed.
    """
    if len(text) == usual and text.startswith(SUCCESS):
        return True
    end = text.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not text.startswith(SUCCESS):
        raise RuntimeError(f"not a success: {text[:300]!r}")
    length = _LENGTH.search(text, 0, end)
    if length is None:
        return text.endswith(b"0\r\n\r\n")
    return len(text) >= end + 4 + int(length[1])


def by_h2load(path: str, target: str, connections: int, total: int, log: Path) -> Run:
    """Return a run that GETs ``target`` by h2load of nghttp2; raise Missing if not installed.

    h2load is compiled, and needs a third of the time of ``over_connections`` for a request. The
    latter is slower than the daemon in those rounds in which each write has to wake the daemon up.
    """
    if shutil.which("h2load") is None:
        raise Missing("apt install nghttp2-client")
    words = ["h2load", "--h1", "-c", str(connections), "-n", str(total), "-B", f"unix:{path}"]
    words += ["--log-file", str(log), f"http://b{target}"]

    def run(samples: Samples) -> None:
        # h2load appends to its log.
        log.unlink(missing_ok=True)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        told = done.stdout
        if f"{total} succeeded" not in told:
            raise RuntimeError(f"not all were a success: {told[-500:]}{done.stderr[-500:]}")
        # A line of the log has the time of the request, its status, and its microseconds.
        lines = log.read_text().splitlines()
        samples.seconds.extend(int(line.split("\t")[2]) / 1e6 for line in lines)
        samples.rates.append(float(_RATE.search(told)[1]))  # type: ignore[index]

    return run


_RATE = re.compile(r"([\d.]+) req/s")


def over_threads(make: Callable[[int], Callable[[int], object]], threads: int, total: int) -> Run:
    """Return a run of ``threads`` threads, which share ``total`` calls of ``make(thread)``."""
    calls = [make(index) for index in range(threads)]
    counter = iter(range(10**9))

    def run(samples: Samples) -> None:
        def work(call: Callable[[int], object]) -> None:
            for _ in range(total // threads):
                start = time.perf_counter()
                call(next(counter))
                samples.seconds.append(time.perf_counter() - start)

        workers = [threading.Thread(target=work, args=(call,)) for call in calls]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        samples.rates.append(total // threads * threads / (time.perf_counter() - start))

    return run
