"""SIGHUP, SIGTERM and SIGINT, with nothing much going on."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from external_edits import lock_held_elsewhere, write_lock
from harness import Daemon, pair, read_response

TARGET = pair("phone", "job")


def reload(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    time.sleep(0.3)


def test_reload_takes_over_limits(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.config.write_text("[limits]\nmax_bucket_bytes = 100000\n")
    daemon.start()
    big = {"text": "x" * 5000}
    with daemon.connect() as kept:
        assert daemon.request("PUT", TARGET, big, sock=kept).status == 200
        daemon.config.write_text("[limits]\nmax_bucket_bytes = 1000\n")
        reload(daemon)
        assert daemon.request("PUT", TARGET, {"text": "y" * 5000}, sock=kept).status == 413
        assert daemon.request("GET", TARGET, sock=kept).bucket == big
        for broken in ("[limits\n", "[limits]\nmax_bucket_bytes = 'x'\n", "[limit]\na = 1\n"):
            daemon.config.write_text(broken)
            reload(daemon)
            assert daemon.request("PUT", TARGET, {"text": "y" * 5000}, sock=kept).status == 413
            assert daemon.request("PUT", TARGET, {"n": 1}, sock=kept).status == 200
        daemon.config.unlink()
        reload(daemon)
        assert daemon.request("PUT", TARGET, {"text": "y" * 5000}, sock=kept).status == 413
        daemon.config.write_text("")
        reload(daemon)
        assert daemon.request("PUT", TARGET, big, sock=kept).status == 200
    assert str(daemon.config) in daemon.log


AS_ANOTHER = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[2]))
import socket
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[3])
sock.sendall(b"GET /v1/buckets HTTP/1.1\\r\\nHost: b\\r\\nConnection: close\\r\\n\\r\\n")
print(sock.recv(100).split()[1].decode())
"""


def status_for(daemon: Daemon, uid: int, gid: int) -> int:
    """What another user gets on an operator route."""
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    command = [python, "-c", AS_ANOTHER, str(gid), str(uid), daemon.socket]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return int(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("how", ["user", "group"])
def test_reload_takes_over_operators(stopped_daemon: Daemon, how: str) -> None:
    daemon = stopped_daemon
    user, group = pwd.getpwnam("daemon"), grp.getgrnam("daemon")
    daemon.config.write_text("")
    daemon.home.chmod(0o755)
    daemon.start()
    assert status_for(daemon, user.pw_uid, group.gr_gid) == 403
    setting = 'operator_users = ["daemon"]' if how == "user" else 'operator_groups = ["daemon"]'
    daemon.config.write_text(f"[access]\n{setting}\n")
    reload(daemon)
    assert status_for(daemon, user.pw_uid, group.gr_gid) == 200
    daemon.config.write_text("[access]\noperator_users = ['no-such-user-']\n")
    reload(daemon)
    assert status_for(daemon, user.pw_uid, group.gr_gid) == 200
    daemon.config.write_text("")
    reload(daemon)
    assert status_for(daemon, user.pw_uid, group.gr_gid) == 403


def test_reload_keeps_what_needs_a_restart_and_says_so(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.config.write_text("")
    daemon.start()
    daemon.config.write_text("[store]\nlock_timeout_seconds = 2\n")
    reload(daemon)
    assert "[store]" in daemon.log
    assert daemon.request("PUT", TARGET, {"n": 1}).status == 200


def test_many_reloads_do_no_harm(stopped_daemon: Daemon) -> None:
    stopped_daemon.config.write_text("")
    stopped_daemon.start()
    for number in range(30):
        assert stopped_daemon.process is not None
        stopped_daemon.process.send_signal(signal.SIGHUP)
        assert stopped_daemon.request("PATCH", TARGET, {"n": number}).status == 200


# --- stopping


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_with_status_0(daemon: Daemon, which: signal.Signals) -> None:
    daemon.request("PUT", TARGET, {"n": 1})
    assert daemon.process is not None
    daemon.process.send_signal(which)
    assert daemon.process.wait(10) == 0
    assert "Traceback" not in daemon.log


def test_idle_connections_do_not_delay_the_end(daemon: Daemon) -> None:
    fresh = [daemon.connect() for _ in range(20)]
    used = [daemon.connect() for _ in range(20)]
    for sock in used:
        assert daemon.request("GET", TARGET, sock=sock).status == 200
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begun < 3
    for sock in fresh + used:
        sock.close()


def test_half_a_request_does_not_delay_the_end_for_ever(stopped_daemon: Daemon) -> None:
    stopped_daemon.config.write_text("[limits]\ndrain_timeout_seconds = 1\n")
    daemon = stopped_daemon.start()
    with daemon.connect() as head, daemon.connect() as body:
        head.sendall(f"PUT {TARGET} HTTP/1.1\r\nHost: b\r\n".encode())
        body.sendall(f"PUT {TARGET} HTTP/1.1\r\nHost: b\r\nContent-Length: 9\r\n\r\n{{".encode())
        time.sleep(0.2)
        begun = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - begun < 4
    daemon.start()
    assert daemon.request("GET", TARGET).bucket == {}


def test_a_body_that_comes_while_it_drains_is_answered(daemon: Daemon) -> None:
    """A request that had begun is carried out, or refused and then not carried out."""
    with daemon.connect() as sock:
        sock.sendall(f"PUT {TARGET} HTTP/1.1\r\nHost: b\r\nContent-Length: 7\r\n\r\n".encode())
        time.sleep(0.2)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        sock.sendall(b'{"n":1}')
        answer = read_response(sock)
        assert answer.status in (200, 503)
    assert daemon.process.wait(15) == 0
    daemon.start()
    assert daemon.request("GET", TARGET).bucket == ({"n": 1} if answer.status == 200 else {})


def test_a_write_that_waits_for_the_lock_is_answered_at_the_end(daemon: Daemon) -> None:
    daemon.request("PUT", TARGET, {"n": 1})
    with daemon.connect() as sock:
        with write_lock(daemon):
            sock.sendall(
                f"PATCH {TARGET} HTTP/1.1\r\nHost: b\r\nContent-Length: 7\r\n\r\n".encode()
                + b'{"n":2}'
            )
            time.sleep(0.2)
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        answer = read_response(sock)
        assert answer.status in (200, 503)
    assert daemon.process.wait(15) == 0
    daemon.start()
    assert daemon.request("GET", TARGET).bucket == {"n": 2 if answer.status == 200 else 1}


def test_a_lock_held_for_ever_does_not_hold_up_the_end(daemon: Daemon) -> None:
    daemon.request("PUT", TARGET, {"n": 1})
    with lock_held_elsewhere(daemon):
        begun = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - begun < 15
    daemon.start()
    assert daemon.request("GET", TARGET).bucket == {"n": 1}


def test_a_lock_held_for_ever_does_not_hold_up_the_next_start(daemon: Daemon) -> None:
    """A clean stop leaves nothing to do, and so nothing to wait for."""
    for number in range(3):  # the files of the last one are durable only later
        daemon.request("PUT", TARGET, {"n": number})
        time.sleep(0.1)
    with lock_held_elsewhere(daemon):
        assert daemon.stop() == 0
        daemon.start()
        assert daemon.request("GET", TARGET).bucket == {"n": 2}
    assert "ERROR" not in daemon.log


def test_two_terms_are_one(daemon: Daemon) -> None:
    daemon.request("PUT", TARGET, {"n": 1})
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(10) == 0


def test_a_state_directory_removed_while_it_runs(daemon: Daemon) -> None:
    """No write is acknowledged into the void, and none is served as if it were empty."""
    daemon.request("PUT", TARGET, {"n": 1})
    time.sleep(0.3)
    shutil.rmtree(daemon.state_dir)
    answer = daemon.request("PUT", TARGET, {"n": 2})
    if answer.status == 200:
        time.sleep(0.3)
        answer = daemon.request("PUT", TARGET, {"n": 3})
    assert answer.status >= 500, answer
