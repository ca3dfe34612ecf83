"""Programs and systems that differ: frozen clocks, greenlets, no ``select.poll``, long paths."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bucketd_client import (
    AsyncBucket,
    Bucket,
    BucketError,
    ConnectionLost,
    DaemonUnreachable,
    InvalidRequest,
    _connections,
    agent,
)
from bucketd_client.testing import Server
from fake import Seen, answer, fake
from harness import Daemon

OK = {"success": True, "bucket": {"a": 1}, "revision": 1}
SECRET = "hunter2-secret"


@pytest.fixture
def nobody(tmp_path: Path) -> str:
    return str(tmp_path / "none.sock")


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name of ``time`` that a test tool freezes stands still."""
    for name in ("time", "monotonic", "perf_counter"):
        now = getattr(time, name)()
        monkeypatch.setattr(time, name, lambda now=now: now)


def run(program: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_call_ends_while_the_clock_is_frozen(frozen: None, nobody: str) -> None:
    with pytest.raises(DaemonUnreachable):
        Bucket(device="d", job="j", socket=nobody, timeout=0.3).get()
    with pytest.raises(DaemonUnreachable):
        Bucket(device="d", job="j", socket=nobody, timeout=0.3).watch()


def test_asyncio_calls_end_while_the_clock_is_frozen(frozen: None, nobody: str) -> None:
    """The clock of the loop is frozen too, so its own timers never fire."""

    async def play() -> None:
        bucket = AsyncBucket(device="d", job="j", socket=nobody, timeout=0.3)
        with pytest.raises(DaemonUnreachable):
            await bucket.get()
        with pytest.raises(DaemonUnreachable):
            await bucket.watch().__anext__()

    asyncio.run(play())


def test_a_daemon_that_hangs_is_given_up_while_the_clock_is_frozen(frozen: None) -> None:
    done = threading.Event()

    def script(_connection: socket.socket, _seen: Seen, _number: int) -> bool:
        done.wait(5)
        return False

    with fake(script) as server:
        with pytest.raises(BucketError, match="no response within"):
            Bucket(device="d", job="j", socket=server.path, timeout=0.3).get()
        call = AsyncBucket(device="d", job="j", socket=server.path, timeout=0.3).get()
        with pytest.raises(BucketError, match="no response within"):
            asyncio.run(call)
        done.set()


GREENLETS = """
    import os, sys
    if os.environ["GREENLETS"] == "gevent":
        import gevent.monkey
        gevent.monkey.patch_all()
        from gevent import sleep, spawn
    else:
        import eventlet
        eventlet.monkey_patch()
        from eventlet import sleep, spawn
    from bucketd_client import Bucket

    bucket, seen, ticks = Bucket(device="greenlets", job=os.environ["GREENLETS"]), [], []

    def watch():
        for change in bucket.watch():
            seen.append(change.set)

    def tick():
        while True:
            ticks.append(1)
            sleep(0.01)

    spawn(watch)
    spawn(tick)
    sleep(0.3)
    for n in range(3):
        bucket.set(n=n)
        sleep(0.05)
    print(bucket.get(), seen, len(ticks) > 20, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_a_watching_greenlet_does_not_stop_its_program(kind: str, shared_daemon: Daemon) -> None:
    pytest.importorskip(kind)
    env = {"GREENLETS": kind, "BUCKETD_SOCKET": shared_daemon.socket}
    assert run(GREENLETS, **env) == "{'n': 2} [{'n': 0}, {'n': 1}, {'n': 2}] True"


def test_the_class_of_sockets_that_a_program_has_put_in_place_is_used(
    shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is how gevent and eventlet patch a program."""
    made = []

    class Cooperative(socket.socket):
        def __init__(self, *args: Any) -> None:
            made.append(args)
            super().__init__(*args)

    monkeypatch.setattr(socket, "socket", Cooperative)
    bucket = Bucket(device="cooperative", job="j", socket=shared_daemon.socket)
    assert bucket.set(a=1) == {"a": 1}
    changes = bucket.watch(snapshot=True)
    assert next(changes).set == {"a": 1}
    changes.close()
    assert len(made) >= 1


def test_without_select_poll(shared_daemon: Daemon) -> None:
    program = """
        import select
        del select.poll
        from bucketd_client import agent
        print([agent.utils.bucket.get().success for _ in range(3)])
    """
    context = {"BUCKETD_DEVICE": "poll", "BUCKETD_JOB": "j", "BUCKETD_SOCKET": shared_daemon.socket}
    assert run(program, **context) == "[True, True, True]"


def test_a_failure_after_sending_leaves_the_outcome_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the system refuses then, nobody knows whether a write was done."""

    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 200, OK)
        return True

    with fake(script) as server:
        bucket = Bucket(device="d", job="j", socket=server.path, timeout=0.5)

        def refuse(*_: object) -> None:
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(_connections.Connection, "receive", refuse)
        with pytest.raises(ConnectionLost, match="cannot tell whether the PATCH was done"):
            bucket.set(a=1)
        until = time.monotonic() + 5
        while not server.seen and time.monotonic() < until:
            time.sleep(0.01)
        assert len(server.seen) == 1


def test_no_structure_of_the_kernel_is_made_by_hand() -> None:
    """The size of a timeval differs between systems, so only Python's own functions make one."""
    package = Path(_connections.__file__).parent
    for module in package.rglob("*.py"):
        text = module.read_text()
        for name in ("setsockopt", "SO_RCVTIMEO", "SO_SNDTIMEO", "struct", "ioctl", "ctypes"):
            assert not re.search(rf"\b{name}\b\s*[(.]|import {name}\b", text), (module, name)
        # Only the sockets of holds need it; an ordinary call must not register anything.
        assert ("register_at_fork" in text) == (module.name == "_unshared.py"), module


def test_a_long_wait_is_one_that_the_kernel_takes(shared_daemon: Daemon) -> None:
    bucket = Bucket(device="long", job="j", socket=shared_daemon.socket, timeout=1e9)
    assert bucket.get() == {}


def test_servers_below_a_long_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("y" * 100)
    long.mkdir()
    program = """
        from bucketd_client import Bucket
        from bucketd_client.testing import Server
        with Server(in_memory=True) as one, Server() as other:
            Bucket(device="d", job="j", socket=one.socket).set(a=1)
            print(one.socket != other.socket, other.bucket("d", "j").data)
    """
    assert run(program, TMPDIR=str(long)) == "True {}"
    assert list(long.iterdir()) == []


def test_no_directory_for_a_socket_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr("bucketd_client.testing._directory.tempfile.mkdtemp", refuse)
    with pytest.raises(OSError, match=r"cannot make a socket below .*; set TMPDIR to a short one"):
        Server(in_memory=True).__enter__()


class Leaky(Mapping[str, Any]):
    """A mapping whose own errors show what it holds."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(SECRET)

    def __iter__(self) -> Any:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


WITHOUT_JSON: dict[str, Any] = {
    "lone surrogate": {"state": [{"value": f"{SECRET}\ud800"}]},
    "set": {"state": {SECRET}},
    "bytes": {"state": SECRET.encode()},
    "not finite": {"other": SECRET, "state": float("nan")},
    "key": {"state": {b"k": SECRET}},
    "mapping": Leaky(),
    "text": SECRET,
    "list": [SECRET],
}


@pytest.mark.parametrize("name", WITHOUT_JSON)
def test_no_refusal_of_the_client_shows_a_value(name: str, shared_daemon: Daemon) -> None:
    bucket = Bucket(device="values", job="j", socket=shared_daemon.socket)
    data = WITHOUT_JSON[name]
    for act in (bucket.set, bucket.replace, bucket.merge_patch, lambda d: bucket.json_patch([d])):
        with pytest.raises(InvalidRequest) as caught:
            act(data)
        assert SECRET not in str(caught.value)
    result = agent.utils.bucket.set(data)
    assert SECRET not in str(dict(result))


def test_a_lone_surrogate_is_refused_with_its_place_and_what_to_do() -> None:
    storage = {"origins": [{"localStorage": [{"name": "lz", "value": "abc\udc00"}]}]}
    with pytest.raises(InvalidRequest) as caught:
        Bucket(device="d", job="j", socket="/nowhere").set({"a/b~": storage})
    said = str(caught.value)
    assert "'/a~1b~0/origins/0/localStorage/0/value'" in said
    assert "lone surrogate" in said
    assert "json.dumps" in said
    with pytest.raises(InvalidRequest, match=r"the key '/a/.ud800'"):
        Bucket(device="d", job="j").set({"a": {"\ud800": 1}})


REFUSED_BODIES = [
    b'{"a": "%b", "b": 1e999}',
    b'{"a": "%b", "b": 99999999999999999999999}',
    b'{"a": "%b", "b": 18446744073709551617}',
    b'{"a": "%b\\ud800"}',
    b'{"a": "%b", "b": NaN}',
    b'{"a": "%b"',
    b'["%b"]',
    b'"%b"',
    b'{"a": "%b\xff"}',
    b'{"a": "%b\x01"}',
]


@pytest.mark.parametrize("kind", ["application/json", "application/merge-patch+json",
                                  "application/json-patch+json"])  # fmt: skip
@pytest.mark.parametrize("body", REFUSED_BODIES)
def test_no_refusal_of_the_testing_server_shows_a_value(kind: str, body: bytes) -> None:
    with Server(in_memory=True) as server:
        said = ask(server.socket, kind, body.replace(b"%b", SECRET.encode()))
    assert b'"success":false' in said
    for value in (SECRET.encode(), b"999999", b"18446744", b"1e999"):
        assert value not in said


def test_a_line_that_is_no_http_is_not_repeated() -> None:
    with Server(in_memory=True) as server:
        for line in (SECRET, f"GET / {SECRET}", f"{SECRET} / HTTP/1.1", f"GET / HTTP/{SECRET}"):
            assert SECRET not in raw(server.socket, f"{line}\r\n\r\n".encode()).decode()


def ask(path: str, kind: str, body: bytes) -> bytes:
    head = f"PATCH /v1/devices/d/jobs/j/bucket HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    length = f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return raw(path, (head + length).encode() + body)


def raw(path: str, data: bytes) -> bytes:
    received = b""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(data)
        sock.settimeout(2)
        while chunk := sock.recv(65536):
            received += chunk
    return received


@pytest.fixture(params=["daemon", "testing"])
def both(request: pytest.FixtureRequest, shared_daemon: Daemon) -> Any:
    if request.param == "daemon":
        yield shared_daemon.socket
        return
    with Server(in_memory=True) as server:
        yield server.socket


def test_writes_that_return_no_bucket(both: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that ignores the preference makes no difference."""
    bucket = Bucket(device="minimal", job="j", socket=both)
    large = {"state": "x" * 1000}
    assert bucket.replace(large, returning=False) is None
    assert bucket.set(n=1, returning=False) is None
    assert bucket.merge_patch({"m": 1}, returning=False) is None
    assert bucket.json_patch([{"op": "remove", "path": "/m"}], returning=False) is None
    assert bucket.remove("state", returning=False) is None
    assert bucket.get() == {"n": 1}
    monkeypatch.setenv("BUCKETD_SOCKET", both)
    monkeypatch.setenv("BUCKETD_DEVICE", "minimal")
    monkeypatch.setenv("BUCKETD_JOB", "j")
    result = agent.utils.bucket.set({"n": 2}, returning=False)
    assert result.success
    assert dict(result) == {"success": True, "revision": 6}
    assert agent.utils.deviceBucket.set({"n": 2}, returning=False)["success"]

    async def play() -> None:
        mine = AsyncBucket(device="minimal", job="j", socket=both)
        assert await mine.set(n=3, returning=False) is None
        assert await mine.get() == {"n": 3}

    asyncio.run(play())
    with pytest.raises(BucketError):
        bucket.set({"n": 4}, if_match='"other"', returning=False)
