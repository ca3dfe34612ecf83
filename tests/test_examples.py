"""The examples, run as their readers run them: twice with a kill in between, and outside."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import wait_until
from harness import REPO, Daemon, pair

sys.path.insert(0, str(REPO / "examples"))

import demo_tools

BIN = Path(sys.executable).parent
TYPESCRIPT_PROBLEM = demo_tools.typescript_problem()
COMMANDS = {
    "python": [sys.executable, "examples/login_session.py"],
    "sh": ["sh", "examples/login-session.sh"],
    "curl": ["sh", "examples/login-session-curl.sh"],
    "typescript": ["node", "client/node/scripts/example.mjs"],
}
LOGGED_IN = (
    "login: no session stored, logging in as demo-user\nlogin: session stored (revision {})\n"
)
needs_etcd = pytest.mark.skipif(
    shutil.which("etcd") is None, reason="etcd is not installed: apt install etcd-server"
)
RESUMED = "login: resuming the stored session, no login needed\n"


@pytest.fixture(params=COMMANDS)
def example(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "typescript" and TYPESCRIPT_PROBLEM:
        pytest.skip(TYPESCRIPT_PROBLEM)
    return COMMANDS[request.param]


def run(
    command: list[str], daemon: Daemon, token: str | None = None, path: str = ""
) -> subprocess.CompletedProcess[str]:
    environ = daemon.environ({"BUCKETD_SOCKET": daemon.socket})
    environ["PATH"] = f"{path}:{BIN}:{environ['PATH']}"
    if token is not None:
        environ["BUCKETD_TOKEN"] = token
    return subprocess.run(
        command, cwd=REPO, env=environ, capture_output=True, text=True, timeout=60
    )


def bucket_on_disk(daemon: Daemon, device: str, job: str) -> Any:
    """With write.lock: when that is free, the file holds the newest state."""
    with (daemon.state_dir / "write.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return json.loads(daemon.bucket_path(device, job).read_text())["bucket"]


def test_logs_in_once_and_resumes_after_the_daemon_was_killed(
    daemon: Daemon, example: list[str]
) -> None:
    token = daemon.mint("phone 1", "login/daily")
    before = time.time() * 1000
    first = run(example, daemon, token)
    assert (first.returncode, first.stdout, first.stderr) == (0, LOGGED_IN.format(1), "")
    stored = bucket_on_disk(daemon, "phone 1", "login/daily")
    assert set(stored) == {"sessionToken", "loggedIn", "loginTimestamp"}
    assert stored["sessionToken"].startswith("demo-user:")
    assert stored["loggedIn"] is True
    assert before - 1000 <= stored["loginTimestamp"] <= time.time() * 1000

    daemon.kill()
    daemon.start()
    second = run(example, daemon, token)
    assert (second.returncode, second.stdout, second.stderr) == (0, RESUMED, "")
    assert bucket_on_disk(daemon, "phone 1", "login/daily") == stored


def test_two_logins_are_two_sessions(daemon: Daemon, example: list[str]) -> None:
    for job in ("one", "two"):
        assert run(example, daemon, daemon.mint("d", job)).returncode == 0
    one, two = (bucket_on_disk(daemon, "d", job) for job in ("one", "two"))
    assert one["sessionToken"] != two["sessionToken"]


OTHERS = {
    "note": 'a "sessionToken": "demo-user:x", "loggedIn": true',
    'k"sessionToken": "demo-user:y': {"sessionToken": "demo-user:z", "loggedIn": True},
    "revision": 99,
    "error": "none",
    "n": None,
}


@pytest.mark.parametrize("state", [{}, {"loggedIn": False, "sessionToken": "demo-user:old"}])
def test_logs_in_beside_what_others_keep_in_the_bucket(
    daemon: Daemon, example: list[str], state: dict[str, Any]
) -> None:
    daemon.request("PUT", pair("d", "j"), {**OTHERS, **state})
    done = run(example, daemon, daemon.mint("d", "j"))
    assert (done.returncode, done.stdout, done.stderr) == (0, LOGGED_IN.format(2), "")
    now = bucket_on_disk(daemon, "d", "j")
    assert {k: now[k] for k in OTHERS} == OTHERS
    assert now["loggedIn"] is True
    assert now["sessionToken"] not in ("demo-user:old", "")


def test_says_so_outside_a_job_context(daemon: Daemon, example: list[str]) -> None:
    done = run(example, daemon)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"login: cannot use the bucket: .*bucketctl run.*\n", done.stderr)


def test_says_so_with_a_token_that_opens_nothing(daemon: Daemon, example: list[str]) -> None:
    done = run(example, daemon, "no-such-token")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"login: cannot use the bucket: .*unknown, revoked or expired.*\n", done.stderr
    )


def test_says_so_when_its_bucket_is_damaged(daemon: Daemon, example: list[str]) -> None:
    token = daemon.mint("d", "j")
    file = daemon.bucket_path("d", "j")
    file.parent.mkdir(parents=True)
    file.write_text('{"half')
    done = run(example, daemon, token)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"login: cannot use the bucket: .*damaged.*\n", done.stderr)


@pytest.mark.parametrize("name", ["sh", "curl"])
def test_no_secret_is_in_the_arguments_of_a_process(
    daemon: Daemon, tmp_path: Path, name: str
) -> None:
    """A curl that writes its arguments down before it does its work; bucketctl likewise."""
    program = {"sh": "bucketctl", "curl": "curl"}[name]
    real = shutil.which(program, path=f"{BIN}:{os.environ['PATH']}")
    spy, seen = tmp_path / program, tmp_path / "seen"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{seen}\nexec {real} "$@"\n')
    spy.chmod(0o755)
    token = daemon.mint("d", "j")
    assert run(COMMANDS[name], daemon, token, path=str(tmp_path)).returncode == 0
    arguments = seen.read_text()
    assert arguments
    assert token not in arguments
    assert bucket_on_disk(daemon, "d", "j")["sessionToken"] not in arguments


@pytest.mark.parametrize("name", ["login-session.sh", "login-session-curl.sh"])
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_scripts_are_read_by_any_sh(name: str, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    argv = [shell, *(["sh"] if shell == "busybox" else []), "-n", f"examples/{name}"]
    assert subprocess.run(argv, cwd=REPO, capture_output=True).stderr == b""


# --- the demo


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where the demo makes its scratch directory (short, or no socket would fit in)."""
    home = Path(tempfile.mkdtemp(prefix="bd-"))
    yield home
    shutil.rmtree(home)


def start_demo(scratch: Path, *arguments: str, name: str = "demo.py") -> subprocess.Popen[str]:
    environ = {**os.environ, "TMPDIR": str(scratch), "BUCKETD_TOKEN": "of another daemon"}
    command = [sys.executable, f"examples/{name}", *arguments]
    return subprocess.Popen(
        command, cwd=REPO, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_the_demo_shows_all_it_should(scratch: Path) -> None:
    with start_demo(scratch) as demo:
        said, error = demo.communicate(timeout=60)
    assert (demo.returncode, error) == (0, ""), said
    assert "All 10 steps succeeded." in said
    assert said.count(LOGGED_IN.split("\n")[0]) == said.count(RESUMED.strip()) == 2
    assert said.index(LOGGED_IN.split("\n")[0]) < said.index(RESUMED.strip())
    assert "curl --silent --unix-socket" in said
    assert "\033" not in said
    assert max(len(line) for line in said.splitlines()) <= 100
    assert list(scratch.iterdir()) == []


@needs_etcd
def test_the_demo_of_a_fleet_shows_all_it_should(scratch: Path) -> None:
    with start_demo(scratch, name="fleet/demo.py") as demo:
        said, error = demo.communicate(timeout=120)
    assert (demo.returncode, error) == (0, ""), said
    assert "All 8 steps succeeded." in said
    host_a, host_b = said.index("3. Host A"), said.index("5. Host B")
    assert host_a < said.index(LOGGED_IN.split("\n")[0]) < host_b < said.index(RESUMED.strip())
    assert said.count("kill -KILL") == 2
    assert max(len(line) for line in said.splitlines()) <= 100
    assert list(scratch.iterdir()) == []


@needs_etcd
def test_the_demo_of_a_fleet_leaves_nothing_behind_when_it_is_stopped(scratch: Path) -> None:
    with start_demo(scratch, name="fleet/demo.py") as demo:
        assert demo.stdout is not None
        while "host B answers" not in demo.stdout.readline():
            assert demo.poll() is None
        started = descendants(demo.pid)
        assert len(started) >= 5  # three nodes and two daemons
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=30)
    assert demo.returncode == 143
    assert list(scratch.iterdir()) == []
    wait_until(lambda: not [pid for pid in started if is_running(pid)], 5)


SAYS_LOGGED_IN = "printf '%s' '" + LOGGED_IN.format(1) + "'"
STORES_TOO = "bucketctl set sessionToken=x loggedIn:=true >/dev/null; " + SAYS_LOGGED_IN


@pytest.mark.parametrize(
    ("automation", "step", "message"),
    [
        ("true", 2, "expected was"),
        ("false", 2, "ended with status 1"),
        ("no-such-program", 2, "ended with status"),
        (f'sh -c "{SAYS_LOGGED_IN}"', 2, "there is no session in the bucket"),
        (f'sh -c "{STORES_TOO}"', 5, "expected was"),
    ],
)
def test_the_demo_fails_with_an_automation_that_is_broken(
    scratch: Path, automation: str, step: int, message: str
) -> None:
    with start_demo(scratch, "--automation", automation) as demo:
        said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1, said
    assert re.findall(r"^(\d)\. ", said, re.M)[-1] == str(step)
    assert message in said
    assert "Where to go next" not in said
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_demo_leaves_nothing_behind_when_it_is_stopped(
    scratch: Path, number: int, status: int
) -> None:
    with start_demo(scratch, "--automation", "sleep 300") as demo:
        assert demo.stdout is not None
        while "bucketctl run" not in demo.stdout.readline():
            assert demo.poll() is None
        time.sleep(0.5)
        started = descendants(demo.pid)
        assert len(started) >= 2  # the daemon and bucketctl
        demo.send_signal(number)
        demo.communicate(timeout=30)
    assert demo.returncode == status
    assert list(scratch.iterdir()) == []
    wait_until(lambda: not [pid for pid in started if is_running(pid)], 5)


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    parents = {
        int(p.name): stat_of(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()
    }
    found = [pid]
    for ancestor in found:
        found += [child for child, (_, parent) in parents.items() if parent == ancestor]
    return found[1:]


def is_running(pid: int) -> bool:
    return stat_of(pid)[0] not in ("", "Z")


def stat_of(pid: int) -> tuple[str, int]:
    """State and parent of a process; none where it has gone."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return state, int(parent)
