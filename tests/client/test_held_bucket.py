"""Holds in Python: one at a time, fences, and what ends a hold. On the daemon and the server for
tests, since authors meet both."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bucketd_client import (
    Bucket,
    DaemonUnreachable,
    Held,
    HeldBucket,
    HoldLost,
    InternalError,
    InvalidRequest,
    NoJobContext,
    Overloaded,
    PreconditionFailed,
    _hold_session,
)
from fake import Script, Seen, answer, fake
from harness import Daemon, escape, new_daemon, pair


@pytest.fixture(scope="module")
def place() -> Iterator[Daemon]:
    """A daemon for the tests of this module, which use names of their own."""
    daemon = new_daemon()
    try:
        yield daemon.start()
    finally:
        daemon.remove()


@pytest.fixture
def bucket(place: Daemon, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(device=request.node.name, job="j", socket=place.socket)


def holds(place: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.request("GET", "/v1/holds").json["holds"]
    return found


def end(place: Daemon, held: HeldBucket) -> None:
    assert place.request("DELETE", f"/v1/holds/{held.id}").status == 200


def soon(is_so: Callable[[], bool], seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)
    return is_so()


# --- taken and released


def test_the_holder_writes_and_another_is_told_who_holds(bucket: Bucket) -> None:
    with bucket.hold(label="nightly") as held:
        assert held.set({"n": 1}) == {"n": 1}
        with pytest.raises(Held, match=rf"process {os.getpid()} ") as refused:
            bucket.hold(wait=0).acquire()
        assert (refused.value.code, refused.value.status) == ("held", 423)
        (row,) = refused.value.details
        assert (row["id"], row["label"], row["since"]) == (held.id, "nightly", held.since)
        assert held.fence not in str(row)
        assert not held.lost
    with bucket.hold(wait=0):
        pass


def test_every_operation_works_on_what_is_held(bucket: Bucket) -> None:
    with bucket.hold(exclusive=True) as held:
        assert held.set(a=1) == {"a": 1}
        assert held.replace({"b": {"c": 1}}) == {"b": {"c": 1}}
        assert held.merge_patch({"b": {"d": 2}}) == {"b": {"c": 1, "d": 2}}
        assert held.json_patch([{"op": "add", "path": "/e", "value": 3}])["e"] == 3
        assert held.update(lambda now: {**now, "n": 1})["n"] == 1
        assert held.remove("b") == {"e": 3, "n": 1}
        assert held.set(a=1, returning=False) is None
        assert held.get("a") == {"a": 1} == bucket.get("a")
        with pytest.raises(PreconditionFailed):
            held.set(a=2, if_match=None)
        held.clear()
        assert held.snapshot().revision == 0
        assert held.context()["job"] == "j"


def test_without_a_block(bucket: Bucket) -> None:
    hold = bucket.hold()
    with pytest.raises(InvalidRequest, match="use with, or acquire"):
        hold.set(a=1)
    with pytest.raises(InvalidRequest, match="not held"):
        _ = hold.fence
    held = hold.acquire()
    first = held.fence
    assert held.set(a=1) == {"a": 1}
    with pytest.raises(InvalidRequest, match="held already"):
        held.acquire()
    held.release()
    held.release()
    for call in (held.get, lambda: held.set(a=2)):
        with pytest.raises(HoldLost, match="was released"):
            call()
    with held:
        assert held.fence != first
    with bucket.hold().acquire() as again:
        # One hold is for one block: another thread that entered it would not be excluded.
        with pytest.raises(InvalidRequest, match="held already"):
            again.__enter__()
        assert again.get() == {"a": 1}
    assert bucket.get() == {"a": 1}


def test_an_exclusive_hold_ends_before_the_next_statement(bucket: Bucket) -> None:
    for number in range(20):
        with bucket.hold(exclusive=True) as held:
            held.set(n=number)
            with pytest.raises(Held, match="exclusively"):
                bucket.set(n=-1)
        assert bucket.set(n=number + 1) == {"n": number + 1}


def test_a_device_with_its_jobs(place: Daemon, bucket: Bucket) -> None:
    device = Bucket(device=bucket.context()["device"], socket=place.socket)
    other = Bucket(device=bucket.context()["device"], job="other", socket=place.socket)
    with device.hold(exclusive=True) as held:
        held.set(a=1)
        for each in (bucket, other):
            with pytest.raises(Held):
                each.hold(wait=0).acquire()
            with pytest.raises(Held):
                each.set(a=1)
        mine = Bucket(
            device=bucket.context()["device"], job="j", socket=place.socket, fence=held.fence
        )
        assert mine.set(a=1) == {"a": 1}
    with bucket.hold(), other.hold(wait=0), pytest.raises(Held):
        device.hold(wait=0).acquire()
    with pytest.raises(HoldLost):
        mine.set(a=2)


def test_names_are_independent_and_nested_holds_send_both_fences(bucket: Bucket) -> None:
    with bucket.hold(exclusive=True) as outer, outer.hold("login") as inner:
        assert inner.set(a=1) == {"a": 1}
        with pytest.raises(Held):
            bucket.hold("login", wait=0).acquire()
        with bucket.hold("other", wait=0) as alone, pytest.raises(Held):
            # A named hold does not open what an exclusive one has closed.
            alone.set(a=2)
    with pytest.raises(HoldLost):
        outer.set(a=3)


def test_threads_take_turns(bucket: Bucket) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            with bucket.hold() as held:
                inside.append(number)
                most.append(len(inside))
                held.set(by=number)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 30
    assert set(most) == {1}


@pytest.mark.parametrize("wait", [-1, 3601, float("nan"), "5", None, True])
def test_a_wait_that_is_none(bucket: Bucket, wait: Any) -> None:
    with pytest.raises(InvalidRequest, match="wait must be a number of seconds"):
        bucket.hold(wait=wait)


def test_what_only_the_daemon_refuses(bucket: Bucket) -> None:
    for options in ({"name": "x", "exclusive": True}, {"name": "\n"}, {"label": "x" * 257}):
        with pytest.raises(InvalidRequest):
            bucket.hold(**options).acquire()  # type: ignore[arg-type]


# --- what ends a hold


def test_a_broken_hold_is_noticed_without_a_write(place: Daemon, bucket: Bucket) -> None:
    told = threading.Event()
    with bucket.hold(on_lost=told.set) as held:
        end(place, held)
        assert told.wait(5)
        assert held.lost
        for call in (lambda: held.set(a=1), held.get, lambda: held.update(lambda now: now)):
            with pytest.raises(HoldLost, match="an operator has ended it") as refused:
                call()
            assert refused.value.code == "hold_lost"
        assert "an operator" in (held.loss or "")
    assert bucket.get() == {}


def test_the_daemon_refuses_what_the_client_does_not_know_yet(
    place: Daemon, bucket: Bucket
) -> None:
    with bucket.hold() as held:
        stale = Bucket(device=bucket.context()["device"], job="j", socket=place.socket,
                       fence=held.fence)  # fmt: skip
        assert stale.set(a=1) == {"a": 1}
    with pytest.raises(HoldLost) as refused:
        stale.update(lambda now: {**now, "a": 2})
    assert refused.value.status == 412
    assert bucket.get() == {"a": 1}


@pytest.mark.parametrize("reason", ["expired", "revoked"])
def test_a_hold_ends_with_its_token(place: Daemon, bucket: Bucket, reason: str) -> None:
    device = bucket.context()["device"] + reason
    seconds = 0.5 if reason == "expired" else 60.0
    body = {"device": device, "job": "j", "ttl_seconds": seconds}
    minted = place.request("POST", "/v1/contexts", body).json
    with Bucket(token=minted["token"], socket=place.socket).hold() as held:
        held.set(a=1)
        if reason == "revoked":
            place.request("DELETE", f"/v1/contexts/{minted['id']}")
        assert soon(lambda: held.lost)
        assert reason in (held.loss or "")
        with pytest.raises(HoldLost):
            held.set(a=2)
    with Bucket(device=device, job="j", socket=place.socket).hold(wait=1):
        pass


def test_a_waiter_whose_token_ends(place: Daemon, bucket: Bucket) -> None:
    device = bucket.context()["device"]
    token = place.mint(device, "j", ttl_seconds=0.5)
    with bucket.hold(), pytest.raises(NoJobContext):
        Bucket(token=token, socket=place.socket).hold(wait=20).acquire()


def test_a_forgotten_hold_is_released_with_a_warning(place: Daemon, bucket: Bucket) -> None:
    held = [bucket.hold().acquire()]
    with pytest.warns(ResourceWarning, match="unreleased hold of HeldBucket"):
        held.clear()
    with bucket.hold(wait=5):
        pass


def test_an_error_in_the_block_releases(bucket: Bucket) -> None:
    with pytest.raises(ZeroDivisionError), bucket.hold():
        _ = 1 / 0
    with bucket.hold(wait=0):
        pass


PROGRAM = """
import os, signal, sys, threading, time
from bucketd_client import Bucket, HoldLost
device, what = sys.argv[1:]
bucket = Bucket(device=device, job="j")
if what == "wait":
    print("ready", flush=True)
if what == "wait and fork":
    threading.Thread(target=bucket.hold(wait=60).acquire, daemon=True).start()
    time.sleep(0.5)
    if os.fork() != 0:
        print("ready", flush=True)
    time.sleep(60)
with bucket.hold(wait=30) as held:
    if what == "fork" and os.fork() == 0:
        try:
            held.set(child=1)
        except HoldLost as lost:
            print("child:", lost, flush=True)
        time.sleep(60)
    if what != "wait":
        print("ready", flush=True)
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            held.set(stopped=1)
        except HoldLost as lost:
            print("lost:", lost, flush=True)
        sys.exit(3)
    time.sleep(60)
"""


class Holder:
    """A process that holds, or waits."""

    def __init__(self, bucket: Bucket, socket: str, what: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("BUCKETD_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, bucket.context()["device"], what],
            env={**clean, "BUCKETD_SOCKET": socket},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.lines = self.process.stdout

    def line(self) -> str:
        return self.lines.readline().rstrip("\n")


@pytest.fixture
def start(place: Daemon, bucket: Bucket) -> Iterator[Callable[[str], Holder]]:
    started: list[Holder] = []

    def begin(what: str) -> Holder:
        started.append(Holder(bucket, place.socket, what))
        return started[-1]

    yield begin
    for holder in started:
        # The group is that of a session which this test started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder.process.pid, signal.SIGKILL)
        holder.process.communicate()


def test_a_killed_holder_holds_nothing(bucket: Bucket, start: Callable[[str], Holder]) -> None:
    holder = start("hold")
    assert holder.line() == "ready"
    with pytest.raises(Held):
        bucket.hold(wait=0).acquire()
    holder.process.kill()
    with bucket.hold(wait=5):
        pass


def test_a_fork_that_outlives_its_parent_has_no_part_in_the_hold(
    bucket: Bucket, start: Callable[[str], Holder]
) -> None:
    holder = start("fork")
    lines = {holder.line(), holder.line()}
    (told,) = lines - {"ready"}
    assert f"process {holder.process.pid} has its hold" in told
    with pytest.raises(Held):
        bucket.hold(wait=0).acquire()
    holder.process.kill()
    holder.process.wait()
    # The child lives, and has the standard output open.
    with bucket.hold(wait=5) as held:
        assert held.get() == {}


def test_a_fork_of_a_waiter_does_not_wait(
    place: Daemon, bucket: Bucket, start: Callable[[str], Holder]
) -> None:
    def waiting() -> list[Any]:
        device = f"?device={escape(bucket.context()['device'])}"
        rows: list[Any] = place.request("GET", f"/v1/holds{device}").json["waiting"]
        return rows

    with bucket.hold():
        holder = start("wait and fork")
        assert holder.line() == "ready"
        assert [row["by"]["pid"] for row in waiting()] == [holder.process.pid]
        holder.process.kill()
        assert soon(lambda: waiting() == [])


def test_a_child_neither_keeps_nor_releases(place: Daemon, bucket: Bucket) -> None:
    with bucket.hold() as held:
        pid = os.fork()
        if pid == 0:
            # The end of the block, and of the process, in the child.
            held.__exit__(None, None, None)
            with contextlib.suppress(HoldLost):
                held.set(child=1)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert held.set(parent=1) == {"parent": 1}
        assert held.id in [row["id"] for row in holds(place)]


def test_a_stopped_holder_keeps_its_hold_until_it_is_broken(
    place: Daemon, bucket: Bucket, start: Callable[[str], Holder]
) -> None:
    holder = start("stop")
    assert holder.line() == "ready"
    # It is stopped, so it can do nothing about its hold.
    assert soon(lambda: ") T " in Path(f"/proc/{holder.process.pid}/stat").read_text())
    with pytest.raises(Held) as refused:
        bucket.hold(wait=0.3).acquire()
    place.request("DELETE", f"/v1/holds/{refused.value.details[0]['id']}")
    with bucket.hold(wait=5) as held:
        assert held.set(mine=1) == {"mine": 1}
        holder.process.send_signal(signal.SIGCONT)
        assert "hold" in holder.line()
        assert holder.process.wait(10) == 3
    assert bucket.get() == {"mine": 1}


@pytest.mark.parametrize("what", ["hold", "wait"])
def test_ctrl_c(bucket: Bucket, start: Callable[[str], Holder], what: str) -> None:
    """Inside the block, and while it waits: then it leaves the queue."""
    with bucket.hold() if what == "wait" else contextlib.nullcontext():
        holder = start(what)
        assert holder.line() == "ready"
        time.sleep(0.3 if what == "wait" else 0)
        holder.process.send_signal(signal.SIGINT)
        assert holder.process.wait(10) in (130, -signal.SIGINT)
    with bucket.hold(wait=1):
        pass


# --- a daemon that restarts


@pytest.fixture
def own() -> Iterator[Daemon]:
    """A daemon of this test alone."""
    daemon = new_daemon()
    try:
        yield daemon.start()
    finally:
        daemon.remove()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_hold_outlasts_a_restart_of_the_daemon(
    own: Daemon, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A daemon takes long to start on a busy machine.
    monkeypatch.setattr(_hold_session, "RETURN_SECONDS", 60.0)
    with Bucket(device="d", job="j", socket=own.socket).hold(exclusive=True) as held:
        (own.kill if how == "kill" else own.stop)()
        time.sleep(0.5)
        own.start()
        # Nobody else has had it, from the first moment on.
        with pytest.raises(Held):
            Bucket(device="d", job="j", socket=own.socket).hold(wait=0).acquire()
        fence = held.fence
        assert held.set(a=1) == {"a": 1}
        assert soon(lambda: bool(holds(own)) and holds(own)[0]["connected"])
        # The daemon does not wait any longer for somebody to come back.
        time.sleep(5.5)
        assert (held.lost, held.fence) == (False, fence)
        assert held.set(b=1) == {"a": 1, "b": 1}
    with Bucket(device="d", job="j", socket=own.socket).hold(wait=1):
        pass


def test_a_daemon_that_is_not_back_in_time(own: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hold_session, "RETURN_SECONDS", 0.5)
    told = threading.Event()
    with Bucket(device="d", job="j", socket=own.socket).hold(on_lost=told.set) as held:
        own.kill()
        assert told.wait(30)
        with pytest.raises(HoldLost, match="was not back within"):
            held.set(a=1)


def test_a_waiter_outlasts_a_daemon_that_is_killed(
    own: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hold_session, "RETURN_SECONDS", 60.0)
    bucket = Bucket(device="d", job="j", socket=own.socket)
    had = threading.Event()

    def wait() -> None:
        with bucket.hold(wait=60):
            had.set()

    with bucket.hold() as held:
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        own.kill()
        own.start()
        assert not had.wait(0.5)
        held.set(a=1)
    assert had.wait(30)
    thread.join()


def test_a_release_while_the_daemon_is_away(own: Daemon) -> None:
    hold = Bucket(device="d", job="j", socket=own.socket).hold().acquire()
    own.kill()
    time.sleep(0.2)
    began = time.monotonic()
    hold.release()
    assert time.monotonic() - began < 2
    own.start()
    # The daemon waits for the holder, who does not come.
    with Bucket(device="d", job="j", socket=own.socket).hold(wait=8):
        pass


# --- servers that misbehave


def test_nobody_serves(tmp_path: Any) -> None:
    nobody = Bucket(device="d", job="j", socket=str(tmp_path / "none"), timeout=0.3)
    began = time.monotonic()
    with pytest.raises(DaemonUnreachable):
        nobody.hold(wait=60).acquire()
    assert time.monotonic() - began < 3


def test_a_busy_daemon_is_asked_again_and_not_for_ever() -> None:
    refusal = {"success": False, "error": "later", "code": "too_many_requests"}

    def busy(connection: Any, _seen: Seen, _number: int) -> bool:
        answer(connection, 429, refusal, {"Retry-After": "0"})
        return True

    with fake(busy) as server:
        bucket = Bucket(device="d", job="j", socket=server.path, timeout=0.5)
        with pytest.raises(Overloaded, match="later"):
            bucket.hold(wait=60).acquire()
        assert len(server.seen) > 1


def test_a_connection_that_is_reset_is_tried_again(tmp_path: Path) -> None:
    """As by a daemon that is killed before it has read the request."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            for _ in range(3):
                connection, _ = listening.accept()
                select.select([connection], [], [], 5)
                # With unread bytes the kernel resets the connection.
                connection.close()
            connection, _ = listening.accept()
            with connection:
                connection.sendall(HEAD + EVENT)
                connection.recv(65536)
                connection.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        with Bucket(device="d", job="j", socket=path).hold() as held:
            assert held.fence == "f"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b'event: hold\ndata: {"id": "i", "fence": "f", "name": "", "since": "s"}\n\n'


def streaming(*pieces: bytes) -> Script:
    def script(connection: Any, seen: Seen, _number: int) -> bool:
        if seen.method == "POST":
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.05)
            connection.recv(1)
        else:
            answer(connection, 200, {"success": True, "bucket": {}, "revision": 1})
        return seen.method != "POST"

    return script


def test_a_response_in_pieces_and_a_fence_with_each_write() -> None:
    with fake(streaming(HEAD[:20], HEAD[20:] + EVENT[:30], EVENT[30:], b":\n\n")) as server:
        with Bucket(token="t", socket=server.path).hold("x", label="l") as held:
            held.set(a=1)
            held.get()
            held.remove("a")
        take, *calls = server.seen
        assert take.target == "/v1/hold"
        assert take.headers["authorization"] == "Bearer t"
        assert b'"name":"x"' in take.body
        assert [call.headers.get("bucketd-fence") for call in calls] == ["f", None, "f"]


@pytest.mark.parametrize("data", [b"event: hold\ndata: [1]\n\n", b"event: hold\ndata: {\n\n"])
def test_an_event_that_is_none(data: bytes) -> None:
    with fake(streaming(HEAD + data)) as server:
        hold = Bucket(device="d", job="j", socket=server.path).hold()
        with pytest.raises(InternalError, match="cannot read an event of the hold"):
            hold.acquire()


def test_a_hold_that_is_lost_with_the_first_bytes() -> None:
    lost = b'event: lost\ndata: {"id": "i", "reason": "no such thing"}\n\n'
    with fake(streaming(HEAD + EVENT + lost)) as server:
        hold = Bucket(device="d", job="j", socket=server.path).hold()
        with pytest.raises(HoldLost, match="no such thing"):
            hold.acquire()


# --- the fence of the environment


def test_the_fence_of_the_environment(
    place: Daemon, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = bucket.context()["device"]
    with bucket.hold(exclusive=True) as held:
        monkeypatch.setenv("BUCKETD_SOCKET", place.socket)
        monkeypatch.setenv("BUCKETD_DEVICE", device)
        monkeypatch.setenv("BUCKETD_JOB", "j")
        monkeypatch.setenv("BUCKETD_FENCE", held.fence)
        # The context of the environment, and the same names given by the program.
        assert Bucket().set(a=1) == {"a": 1}
        assert bucket.set(a=2) == {"a": 2}
        assert Bucket(device_bucket=True).set(a=1) == {"a": 1}
        # What the hold is not of is written without it.
        assert Bucket(device=device, job="other").set(a=1) == {"a": 1}
        # A hold of one's own inside sends both.
        with Bucket().hold("login") as login:
            assert login.set(a=3) == {"a": 3}
    with pytest.raises(HoldLost):
        Bucket().set(a=4)


def test_the_fence_of_a_device_is_sent_for_its_jobs(
    place: Daemon, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = bucket.context()["device"]
    with Bucket(device=device, socket=place.socket).hold(exclusive=True) as held:
        monkeypatch.setenv("BUCKETD_DEVICE", device)
        monkeypatch.setenv("BUCKETD_FENCE", held.fence)
        monkeypatch.setenv("BUCKETD_HOLD", "device")
        assert bucket.set(a=1) == {"a": 1}


def test_a_token_sends_the_fence_that_belongs_to_it(
    place: Daemon, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = place.mint(bucket.context()["device"], "j")
    monkeypatch.setenv("BUCKETD_TOKEN", token)
    with Bucket(token=token, socket=place.socket).hold(exclusive=True) as held:
        monkeypatch.setenv("BUCKETD_FENCE", held.fence)
        assert Bucket(token=token, socket=place.socket).set(a=1) == {"a": 1}
        assert Bucket(socket=place.socket).set(a=1) == {"a": 1}
        assert place.request("PUT", pair(bucket.context()["device"], "j"), {}).status == 423
