"""How long a hold lives: restarts, kills, stopped holders, tokens that end, full queues."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleet import wait_until
from harness import REPO, Daemon, encode_request, pair, read_response
from holders import Holder, hold_path, refused

HOLDING = str(REPO / "tests/support/holding.py")
NOBODY = 65534
MANY = 1000
PHONE, JOB = hold_path("phone"), hold_path("phone", "login")


@contextlib.contextmanager
def holding(daemon: Daemon, path: str) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """A process that holds, and what it was told."""
    command = [sys.executable, HOLDING, str(daemon.home), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def write(daemon: Daemon, fence: str | None = None) -> Any:
    headers = None if fence is None else {"Bucketd-Fence": fence}
    return daemon.request("PATCH", pair("phone", "login"), {"at": time.time()}, headers)


def listed(daemon: Daemon) -> Any:
    return daemon.request("GET", "/v1/holds").json


def counts(daemon: Daemon) -> tuple[int, int]:
    found = daemon.request("GET", "/v1/status").json["counts"]
    return found["holds"], found["hold_waiters"]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_holder_comes_back_after_a_restart(daemon: Daemon, end: str) -> None:
    holder = Holder(daemon, JOB, {"label": "run 7", "exclusive": True}).taken()
    getattr(daemon, end)()
    assert holder.has_ended()
    holder.close()
    daemon.start()
    (row,) = listed(daemon)["holds"]
    assert (row["id"], row["connected"], row["since"]) == (holder.id, False, holder.hold["since"])
    with Holder(daemon, PHONE, {"wait_seconds": 20}) as waiter:
        wait_until(lambda: counts(daemon) == (1, 1))
        assert write(daemon, holder.hold["fence"]).status == 200
        refused(write(daemon), 423, "held")
        with Holder(daemon, PHONE, {"fence": holder.hold["fence"]}) as elsewhere:
            refused(elsewhere.response(), 412, "hold_lost")
        with Holder(daemon, JOB, {"fence": holder.hold["fence"], "label": "x"}) as again:
            assert again.taken().hold == holder.hold
            (row,) = listed(daemon)["holds"]
            assert (row["connected"], row["by"]["pid"]) == (True, os.getpid())
            with Holder(daemon, JOB, {"fence": holder.hold["fence"]}) as twice:
                refused(twice.response(), 412, "hold_lost")
            time.sleep(5.2)  # longer than holders are waited for
            assert counts(daemon) == (1, 1)
            assert write(daemon, holder.hold["fence"]).status == 200
        waiter.taken()
        refused(write(daemon, holder.hold["fence"]), 412, "hold_lost")


def test_a_holder_that_does_not_come_back_loses_its_hold(daemon: Daemon) -> None:
    holder = Holder(daemon, JOB).taken()
    daemon.kill()
    daemon.start()
    began = time.monotonic()
    with Holder(daemon, JOB, {"wait_seconds": 20}) as waiter:
        waiter.taken()
        assert 3.0 < time.monotonic() - began < 10.0
        with Holder(daemon, JOB, {"fence": holder.hold["fence"]}) as late:
            refused(late.response(), 412, "hold_lost")
        refused(write(daemon, holder.hold["fence"]), 412, "hold_lost")
    holder.close()


def test_a_released_hold_does_not_come_back(daemon: Daemon) -> None:
    holder = Holder(daemon, JOB).taken()
    holder.release()
    daemon.kill()
    daemon.start()
    with Holder(daemon, JOB, {"fence": holder.hold["fence"]}) as again:
        refused(again.response(), 412, "hold_lost")
    assert listed(daemon)["holds"] == []


def test_of_two_files_that_exclude_each_other_the_later_one_is_right(daemon: Daemon) -> None:
    """A crash may come before the file of a released hold is removed."""
    first = Holder(daemon, JOB).taken()
    stored = daemon.runtime_dir / "holds" / f"{first.id}.json"
    kept = daemon.home / "kept"
    assert stored.stat().st_mode & 0o777 == 0o600
    shutil.copy(stored, kept)
    first.release()
    second = Holder(daemon, PHONE).taken()
    wait_until(lambda: not stored.exists())
    daemon.kill()
    shutil.copy(kept, stored)
    daemon.start()
    assert [row["id"] for row in listed(daemon)["holds"]] == [second.id]
    assert not stored.exists()
    second.close()


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"id": 5}', b"\xff"])
def test_a_file_that_is_no_hold_is_reported(daemon: Daemon, text: bytes) -> None:
    with Holder(daemon, JOB).taken():
        pass
    assert daemon.stop() == 0
    (daemon.runtime_dir / "holds" / "x.json").write_bytes(text)
    daemon.start()
    (problem,) = daemon.request("GET", "/v1/status").json["problems"]
    assert "holds/x.json" in problem
    Holder(daemon, JOB).taken().close()


def test_a_killed_holder_holds_no_more(daemon: Daemon) -> None:
    with (
        holding(daemon, JOB) as (process, hold),
        Holder(daemon, JOB, {"wait_seconds": 20}) as next_,
    ):
        wait_until(lambda: counts(daemon) == (1, 1))
        began = time.monotonic()
        process.kill()
        next_.taken()
        assert time.monotonic() - began < 10.0
        refused(write(daemon, hold["fence"]), 412, "hold_lost")


def test_holder_and_daemon_are_killed(daemon: Daemon) -> None:
    with holding(daemon, JOB) as (process, hold):
        process.kill()
        daemon.kill()
        daemon.start()
        with Holder(daemon, JOB) as early:
            refused(early.response(), 423, "held")
        with Holder(daemon, JOB, {"wait_seconds": 20}) as waiter:
            waiter.taken()
            refused(write(daemon, hold["fence"]), 412, "hold_lost")


def test_a_stopped_holder_keeps_its_hold_until_it_is_broken(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start(env={"BUCKETD_LIMITS_HEARTBEAT_SECONDS": "0.05"})
    with holding(daemon, JOB) as (process, hold):
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        assert [row["id"] for row in listed(daemon)["holds"]] == [hold["id"]]
        with Holder(daemon, JOB, {"wait_seconds": 20}) as waiter:
            wait_until(lambda: counts(daemon) == (1, 1))
            assert daemon.request("DELETE", f"/v1/holds/{hold['id']}").status == 200
            waiter.taken()
        refused(write(daemon, hold["fence"]), 412, "hold_lost")


def test_heartbeats_come_at_their_interval(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start(env={"BUCKETD_LIMITS_HEARTBEAT_SECONDS": "0.05"})
    with Holder(daemon, JOB).taken() as holder:
        for _ in range(5):
            assert holder.event() == ("", None)


def test_a_hold_ends_with_its_token(daemon: Daemon) -> None:
    short = daemon.mint("phone", "login", ttl_seconds=1.0)
    holder = Holder(daemon, "/v1/hold", token=short).taken()
    with Holder(daemon, "/v1/device/hold", {"wait_seconds": 20}, token=short) as waiter:
        refused(waiter.response(), 401, "no_job_context")
    assert holder.lost() == "expired"
    made = daemon.request("POST", "/v1/contexts", {"device": "phone", "job": "login"}).json
    with (
        Holder(daemon, "/v1/device/hold", token=made["token"]).taken() as holder,
        Holder(daemon, "/v1/hold", {"wait_seconds": 20}, token=made["token"]) as waiter,
    ):
        (row,) = listed(daemon)["holds"]
        assert row["by"]["context"] == made["id"]
        assert daemon.request("DELETE", f"/v1/contexts/{made['id']}").status == 200
        assert holder.lost() == "revoked"
        refused(waiter.response(), 401, "no_job_context")
    assert counts(daemon) == (0, 0)


def test_a_token_of_a_device_holds_the_device_alone(daemon: Daemon) -> None:
    token = daemon.mint("phone")
    with Holder(daemon, "/v1/hold", token=token) as holder:
        refused(holder.response(), 401, "no_job_context")
    with Holder(daemon, "/v1/device/hold", token=token).taken() as holder:
        assert (holder.hold["device"], holder.hold["job"]) == ("phone", None)


def test_a_stop_refuses_waiters_at_once(daemon: Daemon) -> None:
    holder = Holder(daemon, PHONE).taken()
    with Holder(daemon, PHONE, {"wait_seconds": 60}) as waiter:
        wait_until(lambda: counts(daemon) == (1, 1))
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5.0
        refused(waiter.response(), 503, "shutting_down")
    assert holder.has_ended()
    holder.close()


def test_who_sends_nothing_more_waits_and_holds(daemon: Daemon) -> None:
    """As ``nc -N`` does, which shuts down its sending half behind the request."""
    with (
        Holder(daemon, PHONE).taken() as first,
        Holder(daemon, PHONE, {"wait_seconds": 20}) as half,
    ):
        half.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: counts(daemon) == (1, 1))
        first.close()
        half.taken()
        time.sleep(0.6)
        assert counts(daemon) == (1, 0)
        with Holder(daemon, PHONE, {"wait_seconds": 20}) as waiter:
            half.close()
            waiter.taken()


def test_a_waiter_that_sent_more_is_noticed_when_it_goes(daemon: Daemon) -> None:
    with Holder(daemon, PHONE).taken(), Holder(daemon, PHONE, {"wait_seconds": 60}) as waiter:
        waiter.sock.sendall(encode_request("GET", "/v1/holds"))
        wait_until(lambda: counts(daemon) == (1, 1))
        waiter.close()
        wait_until(lambda: counts(daemon) == (1, 0))


def test_a_half_closed_waiter_is_noticed_when_it_goes(daemon: Daemon) -> None:
    with Holder(daemon, PHONE).taken(), Holder(daemon, PHONE, {"wait_seconds": 60}) as waiter:
        waiter.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: counts(daemon) == (1, 1))
        waiter.close()
        wait_until(lambda: counts(daemon) == (1, 0))


def test_a_thousand_waiters(daemon: Daemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Holder(daemon, PHONE).taken())
        body = {"wait_seconds": 600}
        waiting = [stack.enter_context(Holder(daemon, PHONE, body)) for _ in range(MANY)]
        wait_until(lambda: counts(daemon) == (1, MANY), 60)
        began = time.monotonic()
        assert daemon.request("PATCH", pair("other"), {"n": 1}).status == 200
        assert time.monotonic() - began < 10.0
        for next_ in waiting[:20]:
            first.close()
            first = next_.taken()
        for waiter in waiting[20:]:
            waiter.close()
        wait_until(lambda: counts(daemon) == (1, 0), 60)
    wait_until(lambda: counts(daemon) == (0, 0))


def test_holds_and_waiters_are_bounded(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start(env={"BUCKETD_LIMITS_MAX_HOLDS": "4"})
    with contextlib.ExitStack() as stack:
        for number in range(2):
            stack.enter_context(Holder(daemon, hold_path(f"phone-{number}")).taken())
        for _ in range(2):
            stack.enter_context(Holder(daemon, hold_path("phone-0"), {"wait_seconds": 60}))
        wait_until(lambda: counts(daemon) == (2, 2))
        with Holder(daemon, hold_path("phone-9")) as one_more:
            response = one_more.response()
            refused(response, 429, "too_many_requests")
            assert response.headers["retry-after"]
    wait_until(lambda: counts(daemon) == (0, 0))
    Holder(daemon, hold_path("phone-9")).taken().close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_user_who_is_no_operator_has_a_quarter(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start(env={"BUCKETD_LIMITS_MAX_HOLDS": "8"})
    daemon.home.chmod(0o755)
    tokens = [daemon.mint(f"phone-{number}", "login") for number in range(3)]
    assert sorted(_statuses_as(NOBODY, daemon, tokens)) == [200, 200, 429]
    wait_until(lambda: counts(daemon) == (0, 0))
    assert _statuses_as(0, daemon, tokens) == [200, 200, 200]


def _statuses_as(uid: int, daemon: Daemon, tokens: list[str]) -> list[int]:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(())
            os.setgid(uid)
            os.setuid(uid)
            holders = [Holder(daemon, "/v1/hold", token=token) for token in tokens]
            os.write(theirs, json.dumps([one.response().status for one in holders]).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    found: list[int] = json.loads(text)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_an_operator_no_more_has_lost_its_holds(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.config.write_text(f'[access]\noperator_users = ["{NOBODY}"]\n')
    daemon.start()
    daemon.home.chmod(0o755)
    with Holder(daemon, PHONE).taken() as ours:
        child = os.fork()
        if child == 0:
            os.setgroups(())
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            holder = Holder(daemon, hold_path("other")).taken()
            os._exit(0 if holder.lost() == "forbidden" else 1)
        wait_until(lambda: counts(daemon) == (2, 0))
        daemon.config.write_text("")
        os.kill(daemon.pid, signal.SIGHUP)
        assert os.waitpid(child, 0)[1] == 0
        assert [row["id"] for row in listed(daemon)["holds"]] == [ours.id]


def test_files_that_were_removed_are_written_again(daemon: Daemon) -> None:
    with Holder(daemon, JOB).taken() as holder:
        directory = daemon.runtime_dir / "holds"
        shutil.rmtree(directory)
        wait_until((directory / f"{holder.id}.json").exists)


def test_an_exclusive_hold_is_had_once_no_other_write_is_under_way(daemon: Daemon) -> None:
    assert write(daemon).status == 200
    with daemon.connect() as writer, (daemon.state_dir / "write.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer.sendall(encode_request("PATCH", pair("phone", "login"), {"n": 1}, close=False))
        time.sleep(0.2)
        with Holder(daemon, PHONE, {"exclusive": True}) as holder:
            time.sleep(0.2)
            fcntl.flock(lock, fcntl.LOCK_UN)
            holder.taken()
            read = daemon.request("GET", pair("phone", "login")).bucket
            status = read_response(writer).status
            assert (status, "n" in read) in ((200, True), (423, False))


def test_metrics_count_holds(daemon: Daemon) -> None:
    def value(name: str) -> float:
        text = daemon.request("GET", "/metrics").body.decode()
        return next(
            float(line.split()[1]) for line in text.split("\n") if line.startswith(name + " ")
        )

    holder = Holder(daemon, JOB).taken()
    with Holder(daemon, JOB, {"wait_seconds": 20}) as waiter:
        wait_until(lambda: counts(daemon) == (1, 1))
        assert value("bucketd_holds") == 1
        assert value("bucketd_hold_waiters") == 1
        holder.release()
        waiter.taken()
    refused(write(daemon, holder.hold["fence"]), 412, "hold_lost")
    assert value("bucketd_fences_refused_total") == 1
    assert value("bucketd_hold_wait_seconds_count") == 2
