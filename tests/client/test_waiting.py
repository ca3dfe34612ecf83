"""What is waited for, how long, and what is not worth waiting for."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucketd_client import Bucket, BucketError, DaemonUnreachable, Overloaded, ShuttingDown
from fake import Script, Seen, answer, fake

OK = {"success": True, "bucket": {"a": 1}, "revision": 1}


def bucket(path: str, timeout: float | None = 3) -> Bucket:
    return Bucket(device="d", job="j", socket=path, timeout=timeout)


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, because a socket's path is."""
    with tempfile.TemporaryDirectory(prefix="bd-") as path:
        yield Path(path)


def seconds_of(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def busy_once(code: str, retry_after: str) -> Script:
    refusal = {"success": False, "error": "later", "code": code}

    def script(connection: socket.socket, _seen: Seen, number: int) -> bool:
        if number == 1:
            answer(connection, 503, refusal, {"Retry-After": retry_after})
        else:
            answer(connection, 200, OK)
        return True

    return script


def test_an_overloaded_daemon_is_given_the_time_it_asks_for() -> None:
    with fake(busy_once("overloaded", "1")) as server:
        assert 1 <= seconds_of(lambda: bucket(server.path).set(a=1)) < 2


def test_a_wait_that_would_take_too_long_is_not_begun() -> None:
    with fake(busy_once("overloaded", "60")) as server:
        with pytest.raises(Overloaded, match="later"):
            bucket(server.path).set(a=1)
        assert len(server.seen) == 1


def test_the_successor_of_a_stopping_daemon_is_found_at_once() -> None:
    with fake(busy_once("shutting_down", "1")) as server:
        assert seconds_of(lambda: bucket(server.path).set(a=1)) < 0.5


def test_a_daemon_that_goes_on_stopping_is_told_as_such() -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 503, {"success": False, "error": "stopping", "code": "shutting_down"})
        return True

    with fake(script) as server, pytest.raises(ShuttingDown):
        bucket(server.path, 0.2).set(a=1)


def test_a_full_queue_of_connections_is_waited_out(home: Path) -> None:
    path = str(home / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(0)
        waiting = fill(path)

        def serve() -> None:
            time.sleep(0.3)
            for _ in waiting:
                listening.accept()[0].close()
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                answer(connection, 200, OK)

        thread = threading.Thread(target=serve)
        thread.start()
        assert bucket(path).set(a=1) == {"a": 1}
        thread.join(5)
        for each in waiting:
            each.close()


def fill(path: str) -> list[socket.socket]:
    """Connections that nobody accepts, until the kernel takes no more."""
    made: list[socket.socket] = []
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            sock.close()
            return made
        made.append(sock)


def test_a_full_queue_is_not_waited_for_for_ever(home: Path) -> None:
    path = str(home / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(0)
        waiting = fill(path)
        with pytest.raises(DaemonUnreachable, match=r"accepts no further connections for 0\.2 s"):
            bucket(path, 0.2).get()
        for each in waiting:
            each.close()


def test_a_pause_that_outlasts_the_time_does_not_hide_the_cause(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine, where a sleep takes longer than was asked for."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds + 0.3))
    with pytest.raises(DaemonUnreachable, match=r"for 0\.2 s; is bucketd running"):
        bucket(str(home / "s"), 0.2).get()


@pytest.mark.parametrize("kind", ["file", "directory", "long", "under a file"])
def test_where_no_daemon_can_ever_be_is_told_at_once(home: Path, kind: str) -> None:
    path = home / ("x" * 200 if kind == "long" else "here")
    if kind == "directory":
        path.mkdir()
    elif kind != "long":
        path.write_text("mine")
    path = path / "deeper" if kind == "under a file" else path

    def call() -> None:
        with pytest.raises(DaemonUnreachable) as caught:
            bucket(str(path), 30).get()
        assert f"cannot reach bucketd on {path}: " in str(caught.value)
        assert "for 30 s" not in str(caught.value)

    assert seconds_of(call) < 15


def test_a_daemon_that_is_late_is_waited_for(home: Path) -> None:
    path = str(home / "s")

    def serve() -> None:
        time.sleep(0.3)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                answer(connection, 200, OK)

    thread = threading.Thread(target=serve)
    thread.start()
    assert bucket(path).set(a=1) == {"a": 1}
    thread.join(5)


def test_a_closed_descriptor_limit_is_an_error_of_ours(home: Path) -> None:
    """Whatever the system refuses comes as a BucketError, and not as an OSError."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                kept.append(os.open(home, os.O_RDONLY))
        with pytest.raises(BucketError, match="too many open files"):
            bucket(str(home / "s"), 0.2).get()
    finally:
        for descriptor in kept:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
