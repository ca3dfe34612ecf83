"""What goes on beside requests: its failure is told, and what disappears is made anew."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from external_edits import replace_file, written
from harness import REPO, Daemon, pair
from sse import Stream

from bucketd import supervisor
from bucketd.supervisor import Supervisor

IMPATIENT = str(Path(__file__).parent / "impatient_daemon.py")
NO_INOTIFY = 'echo 0 > /proc/sys/user/max_inotify_instances; exec "$@"'


def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def problems(daemon: Daemon) -> list[str]:
    found: list[str] = daemon.request("GET", "/v1/status").json["problems"]
    return found


def test_a_task_that_fails_is_told_and_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "MAX_PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "STABLE_SECONDS", 0.2)

    async def run() -> None:
        stop, runs = asyncio.Event(), 0

        async def task(stop: asyncio.Event) -> None:
            nonlocal runs
            runs += 1
            if runs <= 3:
                raise AttributeError("a defect")
            await stop.wait()

        watched = Supervisor(stop)
        watched.start("example", task)
        assert (watched.problems(), watched.healthy) == ([], True)
        while runs < 4:
            await asyncio.sleep(0.01)
        assert "'example' has failed (AttributeError)" in watched.problems()[0]
        assert watched.healthy
        await asyncio.sleep(0.3)
        assert watched.problems() == []
        stop.set()
        await watched.wait()

    asyncio.run(run())


def test_a_task_that_cannot_be_kept_alive_ends_the_watchdog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(supervisor, "MAX_PAUSE", 0.001)

    async def run() -> None:
        async def fails(_stop: asyncio.Event) -> None:
            raise ValueError

        async def is_cancelled(_stop: asyncio.Event) -> None:
            raise asyncio.CancelledError

        for task in (fails, is_cancelled):
            stop = asyncio.Event()
            watched = Supervisor(stop)
            watched.start("example", task)
            while watched.healthy:
                await asyncio.sleep(0.005)
            assert watched.problems()
            stop.set()
            await watched.wait()

    asyncio.run(run())


@pytest.mark.parametrize("gone", ["directory", "socket", "contexts"])
def test_what_disappears_of_the_runtime_directory_is_made_anew(daemon: Daemon, gone: str) -> None:
    token = daemon.mint("d", "j")
    daemon.request("PUT", pair("d", "j"), {"a": 1})
    mode = stat.S_IMODE(os.stat(daemon.socket).st_mode)
    if gone == "directory":
        shutil.rmtree(daemon.runtime_dir)
    elif gone == "socket":
        os.unlink(daemon.socket)
    else:
        shutil.rmtree(daemon.runtime_dir / "contexts")
    eventually(lambda: daemon.request("GET", "/v1/bucket", token=token).bucket == {"a": 1})
    eventually(lambda: len(list((daemon.runtime_dir / "contexts").iterdir())) == 1)
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == mode
    assert problems(daemon) == []
    daemon.restart()
    assert daemon.request("GET", "/v1/bucket", token=token).bucket == {"a": 1}
    assert daemon.stop() == 0
    assert not os.path.exists(daemon.socket)


@pytest.fixture
def without_inotify(stopped_daemon: Daemon) -> Daemon:
    """A daemon whose user has no inotify instances left."""
    command = ["unshare", "-r", "sh", "-c", NO_INOTIFY, "sh"]
    stopped_daemon.extra_args = ("--log-level", "info")
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    daemon = stopped_daemon
    (daemon.home / "schemas").mkdir()
    daemon.config.touch()
    with (daemon.home / "log").open("ab") as log:
        daemon.process = subprocess.Popen(
            [*command, sys.executable, IMPATIENT, "serve", *daemon.options()],
            cwd=REPO, stderr=log, stdout=log, env=daemon.environ(),
        )  # fmt: skip
    daemon.wait_ready()
    return daemon


def test_without_inotify_schema_files_are_polled(without_inotify: Daemon) -> None:
    daemon = without_inotify
    schema = {"fields": [{"name": "n", "type": "number"}]}
    (daemon.home / "schemas" / "a.json").write_text(json.dumps(schema))
    target = pair("d", "j") + "?automation=a"
    eventually(lambda: daemon.request("PUT", target, {"n": "x"}).status == 422)
    (daemon.home / "schemas" / "a.json").unlink()
    eventually(lambda: daemon.request("PUT", target, {"n": "x"}).status == 200)
    assert daemon.log.count("by inotify") == 1
    assert "Traceback" not in daemon.log
    assert problems(daemon) == []


def give_inotify_back(daemon: Daemon) -> None:
    """Let the daemon's user have instances again, which only its own namespace can allow."""
    command = ["nsenter", "--target", str(daemon.pid), "--user", "--preserve-credentials"]
    allow = "echo 128 > /proc/sys/user/max_inotify_instances"
    done = subprocess.run([*command, "sh", "-c", allow], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the namespace cannot be entered: {done.stderr}")


def test_schema_files_are_followed_by_inotify_again(without_inotify: Daemon) -> None:
    daemon = without_inotify
    eventually(lambda: "they are polled every" in daemon.log)
    give_inotify_back(daemon)
    eventually(lambda: "inotify follows the schema files again" in daemon.log)
    schema = {"fields": [{"name": "n", "type": "number"}]}
    (daemon.home / "schemas" / "a.json").write_text(json.dumps(schema))
    target = pair("d", "j") + "?automation=a"
    eventually(lambda: daemon.request("PUT", target, {"n": "x"}).status == 422)
    assert daemon.log.count("they are polled every") == 1
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize("watched", ["/v1/events", f"{pair('d', 'j')}/events"])
def test_edits_by_hand_are_polled_and_then_followed_by_inotify_again(
    without_inotify: Daemon, watched: str
) -> None:
    daemon = without_inotify

    def edit(number: int) -> None:
        replace_file(daemon.bucket_path("d", "j"), written("d", "j", {"n": number}))

    def told() -> list[str]:
        found: list[str] = daemon.request("GET", "/v1/status").json["store"]["problems"]
        return found

    daemon.request("PUT", pair("d", "j"), {"n": 0})
    daemon.request("GET", "/v1/status")
    with Stream(daemon, watched) as stream:
        eventually(lambda: any("so they are polled" in problem for problem in told()))
        edit(1)
        assert stream.next().data["set"] == {"n": 1}
        give_inotify_back(daemon)
        eventually(lambda: told() == [])
        edit(2)
        assert stream.next().data["set"] == {"n": 2}
    assert daemon.log.count("so they are polled") == 1
    assert daemon.log.count("watching for edits of bucket files by inotify again") == 1
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize("obstacle", ["file", "lost link", "link loop", "other daemon"])
def test_a_daemon_that_nobody_can_reach_ends_and_lets_another_start(
    stopped_daemon: Daemon, obstacle: str
) -> None:
    daemon = stopped_daemon
    daemon.program = (IMPATIENT,)
    daemon.start()
    daemon.request("PUT", pair("d", "j"), {"a": 1})
    shutil.rmtree(daemon.runtime_dir)
    other = socket.socket(socket.AF_UNIX)
    if obstacle == "file":
        daemon.runtime_dir.write_text("")
    elif obstacle == "other daemon":
        daemon.runtime_dir.mkdir()
        other.bind(daemon.socket)
        other.listen()
    else:
        daemon.runtime_dir.symlink_to("nowhere" if obstacle == "lost link" else "run")
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1
    assert "stopping, as clients can no longer connect: cannot" in daemon.log
    assert "bucketd: stopped, as clients could no longer connect: cannot" in daemon.log
    assert "Traceback" not in daemon.log
    # What stands in the way belongs to somebody else.
    assert daemon.runtime_dir.is_dir() == (obstacle == "other daemon")
    assert os.path.lexists(daemon.socket) == (obstacle == "other daemon")
    other.close()
    if obstacle == "other daemon":
        shutil.rmtree(daemon.runtime_dir)
    else:
        daemon.runtime_dir.unlink()
    daemon.start()
    assert daemon.request("GET", pair("d", "j")).bucket == {"a": 1}
    assert daemon.stop() == 0


def test_a_schema_behind_a_directory_link(stopped_daemon: Daemon) -> None:
    """The link is re-pointed, as deployments do; neither its target nor its directory changes."""
    daemon = stopped_daemon
    daemon.config.touch()
    (daemon.home / "schemas").mkdir()
    for name, kind in (("one", "number"), ("two", "string")):
        (daemon.home / name).mkdir()
        schema = {"fields": [{"name": "n", "type": kind}]}
        (daemon.home / name / "a.json").write_text(json.dumps(schema))
        os.utime(daemon.home / name / "a.json", (0, 0))
    current = daemon.home / "current"
    current.symlink_to("one")
    (daemon.home / "schemas" / "a.json").symlink_to(current / "a.json")
    daemon.start()
    target = pair("d", "j") + "?automation=a"
    assert daemon.request("PUT", target, {"n": 1}).status == 200
    (daemon.home / "new").symlink_to("two")
    os.rename(daemon.home / "new", current)
    eventually(lambda: daemon.request("PUT", target, {"n": "x"}).status == 200)
    assert daemon.request("PUT", target, {"n": 1}).status == 422


def test_a_reload_loads_schema_files(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.config.touch()
    daemon.start()
    (daemon.home / "schemas").mkdir()
    schema = {"fields": [{"name": "n", "type": "number"}]}
    (daemon.home / "schemas" / "a.json").write_text(json.dumps(schema))
    os.kill(daemon.pid, signal.SIGHUP)
    target = pair("d", "j") + "?automation=a"
    eventually(lambda: daemon.request("PUT", target, {"n": "x"}).status == 422)


def test_schema_files_that_cannot_be_used_are_named(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.config.touch()
    (daemon.home / "schemas").mkdir()
    good = json.dumps({"fields": [{"name": "n", "type": "number"}]})
    (daemon.home / "schemas" / "a.json").write_text(good)
    Path(os.fsdecode(bytes(daemon.home / "schemas") + b"/\xff.json")).write_text(good)
    (daemon.home / "schemas" / "lost.json").symlink_to("nowhere")
    daemon.start()
    told = " ".join(problems(daemon))
    assert "\\xff.json: its name is not UTF-8" in told
    assert "lost.json: the link leads nowhere" in told
    assert daemon.request("GET", "/v1/schemas").status == 200
    assert daemon.request("PUT", pair("d", "j") + "?automation=a", {"n": "x"}).status == 422


def test_of_two_that_start_at_once_one_names_the_other(stopped_daemon: Daemon) -> None:
    code = (
        "import fcntl, os, sys\nfrom bucketd.fs import files, locks\n"
        "root = files.open_root(sys.argv[1])\n"
        "for _ in sys.stdin:\n"
        "    held, holder = locks.hold_daemon_lock(root)\n"
        "    print('held' if held is not None else holder, flush=True)\n"
        "    sys.stdin.readline()\n"
        "    if held is not None:\n"
        "        os.close(held)\n"
        "        fcntl.flock(root, fcntl.LOCK_UN)\n"
        "    print('released', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(stopped_daemon.state_dir)]
    both = [
        subprocess.Popen(
            command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(2)
    ]

    def tell_both() -> list[str]:
        for process in both:
            assert process.stdin is not None
            process.stdin.write("\n")
        return [process.stdout.readline().strip() for process in both if process.stdout]

    for _ in range(20):
        said = tell_both()
        assert said.count("held") == 1
        assert said[1 - said.index("held")] == str(both[said.index("held")].pid)
        assert tell_both() == ["released"] * 2
    for process in both:
        process.communicate()
