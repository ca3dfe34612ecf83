"""Connections that are kept, broken, refused and waited for."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from bucketd_client import (
    Bucket,
    BucketError,
    ConnectionLost,
    DaemonUnreachable,
    InternalError,
    Timeout,
    Unavailable,
    agent,
)
from fake import Seen, answer, fake
from harness import Daemon

OK = {"success": True, "bucket": {"a": 1}, "revision": 1}


def bucket(path: str, timeout: float = 3) -> Bucket:
    return Bucket(device="d", job="j", socket=path, timeout=timeout)


def test_one_connection_serves_many_calls() -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 200, OK)
        return True

    with fake(script) as server:
        for _ in range(5):
            assert bucket(server.path).get() == {"a": 1}
        assert (len(server.seen), server.connections) == (5, 1)


def test_connection_close_is_heeded() -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 200, OK, {"Connection": "close"})
        return False

    with fake(script) as server:
        bucket(server.path).get()
        bucket(server.path).set(a=1)
        assert (len(server.seen), server.connections) == (2, 2)


def test_a_connection_closed_while_idle_makes_no_write_fail() -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 200, OK)
        return False  # closed without a word, as a daemon does that is killed

    with fake(script) as server:
        for _ in range(20):
            bucket(server.path).set(a=1)
        assert len(server.seen) == 20


@pytest.mark.parametrize("call", ["get", "set"])
def test_a_request_that_was_not_read_is_repeated(call: str) -> None:
    """The daemon closes with our request unread: the kernel says ECONNRESET, so it did nothing."""
    listening = socket.socket(socket.AF_UNIX)
    path = f"/tmp/bd-{os.getpid()}-{call}.sock"
    listening.bind(path)
    listening.listen()

    def serve() -> None:
        first, _ = listening.accept()
        time.sleep(0.1)  # the request is in our receive queue now, and stays there
        first.close()
        second, _ = listening.accept()
        with second:
            second.recv(65536)
            answer(second, 200, OK)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        act = bucket(path).get if call == "get" else (lambda: bucket(path).set(a=1))
        assert act() == {"a": 1}
    finally:
        thread.join(5)
        listening.close()
        os.unlink(path)


def ends_without_answer(times: int) -> Any:
    def script(connection: socket.socket, _seen: Seen, number: int) -> bool:
        if number > times:
            answer(connection, 200, OK)
        return number > times

    return script


def test_a_read_without_answer_is_repeated() -> None:
    with fake(ends_without_answer(2)) as server:
        assert bucket(server.path).get() == {"a": 1}
        assert len(server.seen) == 3


def test_a_write_without_answer_is_not_repeated() -> None:
    with fake(ends_without_answer(1)) as server:
        with pytest.raises(ConnectionLost, match="cannot tell whether") as caught:
            bucket(server.path).set(a=1)
        assert caught.value.code == "connection_lost"
        assert len(server.seen) == 1


def test_a_write_that_is_half_answered_is_not_repeated() -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        return False

    with fake(script) as server:
        with pytest.raises(ConnectionLost):
            bucket(server.path).set(a=1)
        assert len(server.seen) == 1


@pytest.mark.parametrize(("status", "code"), [(503, "shutting_down"), (503, "overloaded")])
def test_a_busy_daemon_is_asked_again(status: int, code: str) -> None:
    refusal = {"success": False, "error": "later", "code": code}

    def script(connection: socket.socket, _seen: Seen, number: int) -> bool:
        answer(connection, *((status, refusal) if number < 3 else (200, OK)))
        return True

    with fake(script) as server:
        assert bucket(server.path).set(a=1) == {"a": 1}
        assert len(server.seen) == 3


def test_a_busy_daemon_is_not_asked_for_ever() -> None:
    refusal = {"success": False, "error": "later", "code": "overloaded"}

    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 503, refusal)
        return True

    with fake(script) as server, pytest.raises(Unavailable, match="later"):
        bucket(server.path, timeout=0.3).get()


def test_read_only_is_told_at_once() -> None:
    refusal = {"success": False, "error": "cannot write", "code": "read_only"}

    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 503, refusal)
        return True

    with fake(script) as server:
        with pytest.raises(Unavailable):
            bucket(server.path).set(a=1)
        assert len(server.seen) == 1


def test_no_answer_in_time() -> None:
    def script(_connection: socket.socket, _seen: Seen, _number: int) -> bool:
        time.sleep(1)
        return False

    with fake(script) as server:
        with pytest.raises(Timeout, match=r"within 0\.2 s$"):
            bucket(server.path, timeout=0.2).get()
        with pytest.raises(Timeout, match=r"within 0\.2 s; the outcome is unknown"):
            bucket(server.path, timeout=0.2).set(a=1)


def test_no_time_to_send_it_all(tmp_path: Path) -> None:
    """What was not sent was not done, and is not told as unknown."""
    path = str(tmp_path / "deaf.sock")
    with socket.socket(socket.AF_UNIX) as deaf:  # it reads nothing
        deaf.bind(path)
        deaf.listen()
        for seconds, text in ((1e-6, "x"), (0.2, "x" * 3_000_000)):
            with pytest.raises(Timeout, match=r"it was not sent within .* s; nothing was changed"):
                bucket(path, timeout=seconds).set(a=text)


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
        b"HTTP/1.1 nonsense\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>",
    ],
)
def test_what_is_no_answer_of_bucketd_is_said_so(text: bytes) -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        connection.sendall(text)
        return False

    with fake(script) as server, pytest.raises(InternalError):
        bucket(server.path).get()


def test_no_daemon_says_where_and_asks_whether_it_runs() -> None:
    with pytest.raises(DaemonUnreachable, match=r"/nope/b\.sock.*is bucketd running\?") as caught:
        bucket("/nope/b.sock", timeout=0.2).get()
    assert caught.value.code == "daemon_unreachable"


def test_a_plain_file_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(DaemonUnreachable):
        bucket(str(path), timeout=0.2).set(a=1)
    assert path.read_text() == "mine"


def test_calls_wait_while_the_daemon_restarts(daemon: Daemon) -> None:
    mine = bucket(daemon.socket, timeout=15)
    mine.set(n=0)
    daemon.kill()
    later = threading.Timer(0.7, daemon.start)
    later.start()
    try:
        assert mine.set(m=1) == {"n": 0, "m": 1}
    finally:
        later.join()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restarts_under_load_lose_nothing(daemon: Daemon, how: str) -> None:
    mine, done, unknown = bucket(daemon.socket, timeout=20), 0, 0
    ended = threading.Event()

    def restart() -> None:
        for _ in range(3):
            time.sleep(0.15)
            getattr(daemon, how)()
            daemon.start()
        ended.set()

    thread = threading.Thread(target=restart)
    thread.start()
    while not ended.is_set():
        try:
            assert mine.set({str(done): True})[str(done)]
            done += 1
        except ConnectionLost:
            unknown += 1
    thread.join()
    stored = mine.get()
    assert all(stored.get(str(n)) for n in range(done))
    # SIGTERM answers or leaves unread all that came in; SIGKILL may fall between read and answer.
    assert unknown == 0 if how == "stop" else unknown <= 3
    assert done > 10


def test_threads_share_the_client(shared_daemon: Daemon) -> None:
    mine, errors = Bucket(device="threads", job="j", socket=shared_daemon.socket), []

    def work(number: int) -> None:
        try:
            for turn in range(50):
                value = mine.set({f"k{number}": turn})
                assert value[f"k{number}"] == turn
        except (BucketError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert mine.get() == {f"k{n}": 49 for n in range(8)}


def test_a_forked_child_uses_connections_of_its_own(shared_daemon: Daemon) -> None:
    mine = Bucket(device="fork", job="j", socket=shared_daemon.socket)
    mine.set(who="parent")
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                ok = all(mine.set({f"c{number}": n})[f"c{number}"] == n for n in range(30))
                os._exit(0 if ok else 1)
            except BaseException:
                os._exit(2)
        children.append(pid)
    for turn in range(30):
        assert mine.set(parent=turn)["parent"] == turn
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
    assert mine.get() == {"who": "parent", "parent": 29, **{f"c{n}": 29 for n in range(4)}}


def test_a_large_body_that_is_refused_unread(shared_daemon: Daemon) -> None:
    mine = Bucket(device="large", job="j", socket=shared_daemon.socket)
    with pytest.raises(BucketError) as caught:
        mine.set(x="x" * 20_000_000)
    assert caught.value.code == "too_large"
    assert mine.get() == {}


def test_the_token_is_in_no_message(shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "not-a-token-but-secret"
    monkeypatch.setenv("BUCKETD_TOKEN", secret)
    monkeypatch.setenv("BUCKETD_SOCKET", shared_daemon.socket)
    result = agent.utils.bucket.get()
    assert not result.success
    assert result.code == "no_job_context"
    assert secret not in str(dict(result))
    assert secret not in repr(Bucket(token=secret))


def test_a_reset_before_the_answer_is_told_from_an_end() -> None:
    """SO_LINGER does nothing on a unix socket: an orderly close after reading is an EOF."""

    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    with fake(script) as server, pytest.raises(ConnectionLost):
        bucket(server.path).set(a=1)
