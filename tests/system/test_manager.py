"""Notices, watchdog and socket, on real daemons whose service manager is the test."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ctl_shell import Shell
from harness import pair
from managed import Managed, new_managed

WATCHED = {"WATCHDOG_USEC": "600000"}
SOME = pair("phone", "daily")


@pytest.fixture
def managed() -> Iterator[Managed]:
    """Not started yet."""
    managed = new_managed()
    try:
        yield managed
    finally:
        managed.remove()


def wait_for(daemon: Managed, text: str, times: int = 1) -> None:
    deadline = time.monotonic() + 15
    while daemon.log.count(text) < times:
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.01)


# --- notices


def test_ready_is_said_once_requests_are_served(managed: Managed) -> None:
    managed.spawn()
    notice = managed.notices.next()
    assert notice == {"READY": "1", "STATUS": f"serving {managed.socket}"}
    assert managed.request("GET", "/readyz").status == 200


def test_an_abstract_notify_socket() -> None:
    managed = new_managed(f"@bucketd-test-{os.getpid()}")
    try:
        managed.spawn()
        assert "READY" in managed.notices.next()
    finally:
        managed.remove()


@pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1234", "@", "x" * 200, "é\udcff"])
def test_a_manager_that_cannot_be_told_is_no_obstacle(managed: Managed, address: str) -> None:
    managed.start(env={"NOTIFY_SOCKET": address, **WATCHED})
    time.sleep(0.7)
    assert managed.stop() == 0
    assert managed.log.count("cannot notify the service manager") == 1
    assert "Traceback" not in managed.log


def test_a_reload_is_announced_with_its_time_and_its_end(managed: Managed) -> None:
    managed.config.write_text("[limits]\nmax_bucket_bytes = 1000\n")
    managed.start()
    managed.notices.until("READY")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    managed.config.write_text("[limits]\nmax_bucket_bytes = 10\n")
    os.kill(managed.pid, signal.SIGHUP)
    begun = managed.notices.next()
    assert begun["RELOADING"] == "1"
    assert before <= int(begun["MONOTONIC_USEC"]) <= time.clock_gettime_ns(1) // 1000
    assert managed.notices.next() == {"READY": "1", "STATUS": f"serving {managed.socket}"}
    assert managed.request("PUT", SOME, {"text": "longer than that"}).status == 413


def test_settings_that_cannot_be_used_are_told_in_the_status(managed: Managed) -> None:
    managed.config.write_text("")
    managed.start()
    managed.notices.until("READY")
    managed.config.write_text("[limits]\nmax_bucket = 10\n")
    os.kill(managed.pid, signal.SIGHUP)
    managed.notices.until("RELOADING")
    told = managed.notices.next()
    assert told["READY"] == "1"
    status = managed.request("GET", "/v1/status").json
    problem = status["settings_problem"]
    assert told["STATUS"] == problem
    assert problem.startswith(f"the settings of {status['started_at']} stay in force, since the")
    assert problem.endswith("[limits] has no max_bucket; did you mean max_bucket_bytes?")
    assert problem in managed.log
    found = json.loads(Shell(managed)("doctor").stdout)["findings"]
    (finding,) = [row for row in found if row["about"] == "settings"]
    assert (finding["level"], finding["what"]) == ("problem", problem)
    assert "bucketd --check-config" in finding["fix"]

    managed.config.write_text("[limits]\nmax_bucket_bytes = 10\n")
    os.kill(managed.pid, signal.SIGHUP)
    managed.notices.until("RELOADING")
    assert managed.notices.next()["STATUS"] == f"serving {managed.socket}"
    after = managed.request("GET", "/v1/status").json
    assert after["settings_problem"] is None
    assert after["settings_since"] > status["settings_since"] == status["started_at"]


def test_stopping_is_said_while_a_request_is_still_answered(managed: Managed) -> None:
    managed.start()
    managed.notices.until("READY")
    with managed.connect() as sock:
        sock.sendall(b"PUT " + SOME.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n")
        time.sleep(0.2)
        os.kill(managed.pid, signal.SIGTERM)
        assert managed.notices.next()["STOPPING"] == "1"
        sock.sendall(b'{"a": 1}')
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    assert managed.stop() == 0


# --- the watchdog


def test_the_watchdog_is_fed_at_least_twice_in_its_time(managed: Managed) -> None:
    managed.start(env=WATCHED)
    begun = time.monotonic()
    for _ in range(6):
        managed.notices.until("WATCHDOG", 0.6)
    assert time.monotonic() - begun >= 1.0  # and is not flooded


@pytest.mark.parametrize("env", [{}, {**WATCHED, "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "-5"}])
def test_no_watchdog_is_fed_that_is_not_ours(managed: Managed, env: dict[str, str]) -> None:
    managed.start(env=env)
    time.sleep(0.7)
    assert not any("WATCHDOG" in notice for notice in managed.notices.drop())


def test_a_committer_that_stands_still_starves_the_watchdog(managed: Managed) -> None:
    managed.start(env=WATCHED)
    managed.notices.until("WATCHDOG")
    managed.slow.touch()
    with ThreadPoolExecutor() as pool:
        write = pool.submit(managed.request, "PUT", SOME, {"a": 1})
        wait_for(managed, "the committer has been at one step")
        managed.notices.drop()
        time.sleep(1.0)
        assert not any("WATCHDOG" in notice for notice in managed.notices.drop())
        assert managed.request("GET", "/healthz").status == 200  # the loop is not what stands
        managed.slow.unlink()
        managed.notices.until("WATCHDOG")
        assert write.result().status == 200


def test_a_committer_that_waits_for_the_lock_does_not(managed: Managed) -> None:
    managed.start(env=WATCHED)
    with (managed.state_dir / "write.lock").open() as lock, ThreadPoolExecutor() as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write = pool.submit(managed.request, "PUT", SOME, {"a": 1})
        for _ in range(6):
            managed.notices.until("WATCHDOG", 0.6)
        assert not write.done()
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert write.result().status == 200


def test_a_background_task_that_dies_is_told_and_started_again(managed: Managed) -> None:
    managed.start(env=WATCHED)
    assert managed.request("GET", "/v1/status").json["problems"] == []
    managed.defect.write_text("error")
    cause = "the background task 'clock' has failed (RuntimeError)"
    told = managed.notices.until("STATUS", 5)
    while "clock" not in told["STATUS"]:
        told = managed.notices.until("STATUS", 5)
    assert told["STATUS"].startswith(cause)
    (problem,) = managed.request("GET", "/v1/status").json["problems"]
    assert problem.startswith(cause)
    found = json.loads(Shell(managed)("doctor").stdout)["findings"]
    levels = {row["what"]: row["level"] for row in found if row["what"].startswith(cause)}
    assert list(levels.values()) == ["problem"]
    # It is tried again, so the daemon need not be restarted yet.
    managed.notices.until("WATCHDOG", 1)
    managed.defect.unlink()
    deadline = time.monotonic() + 15
    while "is running again" not in managed.request("GET", "/v1/status").json["problems"][0]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "RuntimeError" in managed.log
    assert managed.stop() == 0


def test_a_background_task_that_is_gone_starves_the_watchdog(managed: Managed) -> None:
    managed.start(env=WATCHED)
    managed.notices.until("WATCHDOG")
    managed.defect.write_text("end")
    wait_for(managed, "so the watchdog is not notified")
    managed.notices.drop()
    time.sleep(1.0)
    assert not any("WATCHDOG" in notice for notice in managed.notices.drop())
    told = ["the background task 'clock' has ended; restart bucketd"]
    assert managed.request("GET", "/v1/status").json["problems"] == told
    done = Shell(managed)("doctor")
    assert (done.returncode, told[0] in done.stdout) == (1, True)
    # What is served is served until the manager has started another.
    assert managed.request("PUT", SOME, {"a": 1}).status == 200


# --- the socket


def test_a_socket_that_is_handed_over_is_served_and_stays(managed: Managed) -> None:
    managed.listen()
    place = Path(managed.socket).stat()
    managed.start()
    assert managed.request("GET", "/v1/status").json["socket"] == managed.socket
    assert managed.stop() == 0
    after = Path(managed.socket).stat()
    assert (after.st_ino, after.st_mode) == (place.st_ino, place.st_mode)


@pytest.mark.parametrize("gone", ["while it serves", "before it starts"])
def test_a_socket_of_the_manager_that_is_removed_is_bound_anew(managed: Managed, gone: str) -> None:
    """Only the manager could make it again, and would when somebody restarts its socket unit."""
    managed.listen()
    if gone == "before it starts":
        os.unlink(managed.socket)
        managed.spawn()
    else:
        managed.start()
        os.unlink(managed.socket)
    wait_for(managed, "the socket was removed, and has been bound again")
    assert managed.request("PUT", SOME, {"a": 1}).status == 200
    assert Path(managed.socket).stat().st_mode & 0o777 == 0o666
    shutil.rmtree(managed.runtime_dir)
    wait_for(managed, "the runtime directory was removed")
    # A socket is there a moment before anybody listens.
    wait_for(managed, "the socket was removed, and has been bound again", times=2)
    assert managed.request("GET", SOME).bucket == {"a": 1}
    assert managed.stop() == 0
    assert not Path(managed.socket).exists()
    assert "Traceback" not in managed.log


def test_the_socket_that_is_handed_over_counts_more_than_the_setting(managed: Managed) -> None:
    managed.listen()
    managed.start("--socket", str(managed.home / "other.sock"))
    assert not (managed.home / "other.sock").exists()
    assert "serving the inherited socket" in managed.log


def test_who_connects_while_nobody_serves_is_answered_by_the_next(managed: Managed) -> None:
    managed.listen()
    managed.start()
    for round_number in range(3):
        assert managed.stop() == 0
        with ThreadPoolExecutor(8) as pool:
            waiting = [
                pool.submit(managed.request, "PUT", pair("phone", str(n)), {"n": round_number})
                for n in range(8)
            ]
            time.sleep(0.2)
            managed.start()
            assert [w.result().status for w in waiting] == [200] * 8


def test_restarts_under_load_refuse_nobody(managed: Managed) -> None:
    """A client that tries again what was not acted upon, as ours do, sees no restart."""
    managed.listen()
    managed.start()
    over, failed, done = threading.Event(), [], []

    def work(job: str) -> None:
        n = 0
        while not over.is_set():
            try:
                answer = managed.request("PUT", pair("phone", job), {"n": n})
            except (ConnectionResetError, BrokenPipeError):
                continue  # never read, so it may be sent again
            except Exception as error:
                failed.append(error)
                return
            if answer.status == 200:
                n += 1
            elif answer.json["code"] != "shutting_down":
                failed.append(answer)
        done.append(n)

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(0.3)
        managed.restart()
    over.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(done) == 6
    assert min(done) > 0


def test_one_that_was_meant_for_another_process_is_left_alone(managed: Managed) -> None:
    managed.start(env={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert managed.request("GET", "/healthz").status == 200


def stream() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def tcp() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def datagram() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


@pytest.mark.parametrize("kind", [stream, tcp, datagram])
def test_what_cannot_be_served_is_refused_with_a_way_out(managed: Managed, kind: type) -> None:
    managed.given.append(kind())
    managed.spawn()
    assert managed.process is not None
    assert managed.process.wait(15) == 1
    assert "cannot use the inherited socket" in managed.log
    assert "ListenStream=" in managed.log


def test_more_than_one_is_refused(managed: Managed) -> None:
    managed.given += [stream(), stream()]
    managed.spawn()
    assert managed.process is not None
    assert managed.process.wait(15) == 1
    assert "LISTEN_FDS is '2'" in managed.log


def test_nothing_of_it_is_left_to_processes_that_the_daemon_might_start(managed: Managed) -> None:
    managed.listen()
    managed.start(env=WATCHED)
    flags = Path(f"/proc/{managed.pid}/fdinfo/3").read_text().split("flags:")[1].split()[0]
    assert int(flags, 8) & os.O_CLOEXEC
