"""``bucketctl run``: the context, the signals, and the exit status of the command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ctl_shell import CTL, Shell, read_terminal, session_leader
from fake import Seen, answer, fake
from harness import Daemon


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def at(request: pytest.FixtureRequest) -> list[str]:
    """Options that name a bucket of this test alone."""
    return ["--device", request.node.name, "--job", "login"]


def test_run_shows_the_child_its_context(ctl: Shell, at: list[str]) -> None:
    done = ctl("run", *at, "--automation", "auto", "--", "env", env={"BUCKETD_TOKEN_FILE": "/x"})
    given = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    ours = {name: value for name, value in given.items() if name.startswith("BUCKETD_")}
    token = ours.pop("BUCKETD_TOKEN")
    assert len(token) >= 43
    assert ours == {
        "BUCKETD_SOCKET": ctl.daemon.socket,
        "BUCKETD_DEVICE": at[1],
        "BUCKETD_JOB": "login",
        "BUCKETD_AUTOMATION": "auto",
        "BUCKETD_RUN": ours["BUCKETD_RUN"],
    }
    assert ctl.daemon.request("GET", "/v1/bucket", token=token).status == 401  # revoked by now


def test_each_run_has_a_label_of_its_own(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    script = tmp_path / "log in.py"
    script.write_text("import os; print(os.environ['BUCKETD_RUN'])")
    labels = [ctl("run", *at, "--", sys.executable, str(script)).stdout for _ in range(2)]
    assert labels[0] != labels[1]
    for label in labels:
        assert re.fullmatch(r"20\d{6}T\d{6}Z-log_in\.py-[0-9a-f]{6}\n", label)
        then = time.mktime(time.strptime(label[:15], "%Y%m%dT%H%M%S")) - time.timezone
        assert abs(then - time.time()) < 60
    shown = ctl("run", *at, "--", *CTL, "context", "list", env={"BUCKETD_RUN": "of outside"})
    assert shown.returncode == 0, shown.stderr
    [row] = [row for row in json.loads(shown.stdout) if row["device"] == at[1]]
    assert re.fullmatch(r"20\d{6}T\d{6}Z-python[.0-9]*-[0-9a-f]{6}", row["label"])


def test_a_label_shows_no_argument_that_is_not_a_file(ctl: Shell, at: list[str]) -> None:
    done = ctl("run", *at, "--", "sh", "-c", "TOKEN=s3cret; echo $BUCKETD_RUN")
    assert re.fullmatch(r"20\d{6}T\d{6}Z-sh-[0-9a-f]{6}\n", done.stdout)


@pytest.mark.parametrize("label", ["nightly 42", "ü✓", "x" * 128])
def test_a_label_that_a_person_gives(ctl: Shell, at: list[str], label: str) -> None:
    done = ctl("run", *at, "--label", label, "--", "sh", "-c", 'echo "$BUCKETD_RUN"')
    assert (done.returncode, done.stdout) == (0, f"{label}\n")


@pytest.mark.parametrize("label", ["", "a\tb", "x" * 129])
def test_a_label_that_is_none(ctl: Shell, at: list[str], label: str) -> None:
    done = ctl("run", *at, "--label", label, "--", "true")
    assert done.returncode == 1
    assert "label" in done.stderr


def test_the_name_of_a_program_fits_into_a_label(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    program = tmp_path / ("é" * 100)
    program.write_text("#!/bin/sh\necho $BUCKETD_RUN\n")
    program.chmod(0o755)
    done = ctl("run", *at, "--", str(program))
    assert (done.returncode, done.stderr) == (0, "")
    assert "é" * 80 in done.stdout


def test_run_on_a_daemon_without_labels(ctl: Shell, at: list[str]) -> None:
    def script(connection: socket.socket, request: Seen, _: int) -> bool:
        if b'"label"' in request.body:
            body = {"success": False, "code": "invalid_request", "error": "'label' is not one"}
            answer(connection, 400, body)
        else:
            names = {"device": at[1], "job": "login", "automation": None}
            answer(connection, 201, {"success": True, "id": "1", "token": "t", **names})
        return True

    with fake(script) as server:
        command = ["--socket", server.path, "--", "sh", "-c", "echo ${BUCKETD_RUN-none}"]
        assert ctl("run", *at, *command).stdout == "none\n"
        assert ctl("run", *at, "--label", "mine", *command).returncode == 1


def test_run_hands_on_the_token_in_a_file(ctl: Shell, at: list[str]) -> None:
    inner = " ".join(CTL)
    script = f'{inner} set a=1 >/dev/null; env; stat -c %a "$BUCKETD_TOKEN_FILE"; {inner} get a'
    done = ctl("run", *at, "--token-file", "--", "sh", "-c", script)
    *lines, mode, value = done.stdout.splitlines()
    given = dict(line.partition("=")[::2] for line in lines)
    assert (mode, value) == ("600", '"1"')
    assert "BUCKETD_TOKEN" not in given
    assert not os.path.exists(os.path.dirname(given["BUCKETD_TOKEN_FILE"]))


def test_run_in_a_job_and_list_after_it(ctl: Shell, at: list[str]) -> None:
    inner = " ".join(CTL)
    done = ctl("run", *at, "--", "sh", "-c", f"{inner} set token=t >/dev/null && {inner} get token")
    assert done.stdout == '"t"\n'
    assert [row["job"] for row in ctl.json("list", *at[:2])] == ["login"]


def test_run_for_a_device_alone(ctl: Shell, at: list[str]) -> None:
    inner = " ".join(CTL)
    done = ctl("run", *at[:2], "--", "sh", "-c", f"{inner} set --device-bucket a=1; {inner} get")
    assert json.loads(done.stdout) == {"a": "1"}
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["no-such-command-here"], 127),
        (["/"], 126),
    ],
)
def test_run_passes_on_the_exit_status(
    ctl: Shell, at: list[str], command: list[str], status: int
) -> None:
    assert ctl("run", *at, "--", *command).returncode == status
    assert not [row for row in ctl.json("context", "list") if row["device"] == at[1]]


@pytest.fixture
def running(ctl: Shell, at: list[str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that says which signal it got."""
    script = "import signal, sys, time\n"
    script += "def got(number, frame): print(signal.Signals(number).name); sys.exit(9)\n"
    script += "for name in sys.argv[1].split(): signal.signal(getattr(signal, name), got)\n"
    # Many short sleeps: a signal just before one is handled at its end.
    script += "print('ready', flush=True)\nfor _ in range(400): time.sleep(0.05)\n"
    names = "SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2"
    process = subprocess.Popen(
        [*CTL, "run", *at, "--", sys.executable, "-c", script, names],
        env=ctl.environ,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_run_passes_on_signals(
    ctl: Shell, at: list[str], running: subprocess.Popen[bytes], name: str
) -> None:
    running.send_signal(getattr(signal, name))
    assert running.wait(10) == 9
    assert running.stdout is not None
    assert running.stdout.read() == f"{name}\n".encode()
    assert not [row for row in ctl.json("context", "list") if row["device"] == at[1]]


def test_run_without_its_daemon_at_the_end(daemon: Daemon) -> None:
    environ = {**os.environ, "BUCKETD_SOCKET": daemon.socket}
    process = subprocess.Popen(
        [
            *CTL,
            "run",
            "--device",
            "d",
            "--timeout",
            "1",
            "--",
            "sh",
            "-c",
            "echo begun; read _; exit 5",
        ],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    daemon.kill()
    _, said = process.communicate(timeout=10)
    assert process.returncode == 5
    assert b"cannot revoke the context" in said


def test_what_follows_the_command_belongs_to_it(ctl: Shell, at: list[str]) -> None:
    assert ctl("run", *at, "echo", "--help", "--", "x").stdout == "--help -- x\n"
    assert ctl("run", *at, "--", "echo", "--", "--json").stdout == "-- --json\n"


def test_run_hands_on_the_signal_masks_as_they_were(ctl: Shell, at: list[str]) -> None:
    show = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    plain = subprocess.run(show, capture_output=True, text=True).stdout
    assert ctl("run", *at, "--", *show).stdout == plain
    deaf = ctl.line(f"trap '' HUP; bucketctl run {' '.join(at)} -- sh -c 'kill -HUP $$; echo on'")
    assert deaf.stdout == "on\n"


def ignore_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def test_run_under_a_parent_that_ignores_its_children(ctl: Shell, at: list[str]) -> None:
    done = subprocess.run(
        [*CTL, "run", *at, "--", "sh", "-c", "sleep 0.2; exit 4"],
        env=ctl.environ,
        preexec_fn=ignore_children,
        timeout=10,
    )
    assert done.returncode == 4


COUNTER = """
import os, signal, sys, time
got = []
for name in ("SIGINT", "SIGHUP"):
    signal.signal(getattr(signal, name), lambda number, frame: got.append(number))
os.write(1, b"ready\\n")
while not got:
    time.sleep(0.02)
time.sleep(0.3)
open(sys.argv[1], "w").write(repr(list(map(int, got))))
sys.exit(9)
"""


@pytest.mark.parametrize(("key", "got"), [(b"\x03", [2]), (None, [1])])
def test_a_terminals_signals_arrive_once(
    ctl: Shell, at: list[str], tmp_path: Path, key: bytes | None, got: list[int]
) -> None:
    """Ctrl-C, which the kernel gives to both; a hang-up, which it gives to bucketctl alone."""
    report = tmp_path / "got"
    words = [*CTL, "run", *at, "--", sys.executable, "-c", COUNTER, str(report)]
    ours, process = session_leader(words, ctl.environ)
    try:
        read_terminal(ours, until="ready\r\n")
        if key is not None:
            os.write(ours, key)
            read_terminal(ours)
    finally:
        os.close(ours)
    assert process.wait(10) == 9
    assert json.loads(report.read_text()) == got
    assert not ctl.contexts_of(at[1])


def test_ctrl_c_ends_the_wait_for_a_daemon(ctl: Shell, at: list[str]) -> None:
    words = ["run", *at, "--socket", "/nope/b.sock", "--timeout", "20", "--", "true"]
    process = subprocess.Popen([*CTL, *words], env=ctl.environ, stderr=subprocess.PIPE)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=5)
    assert (process.returncode, said) == (130, b"")


CONTEXT = {"id": "c1", "token": "t", "device": "d", "job": None, "automation": None}


def test_a_signal_while_the_context_is_made_revokes_it(ctl: Shell, at: list[str]) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def script(connection: socket.socket, seen: Seen, _number: int) -> bool:
        if seen.method == "POST":
            started[0].send_signal(signal.SIGTERM)
            time.sleep(0.2)
        answer(connection, 200, {"success": True, **CONTEXT})
        return True

    with fake(script) as server:
        words = [*CTL, "run", *at, "--socket", server.path, "--", "it-is-not-even-looked-for"]
        with subprocess.Popen(words, env=ctl.environ, stdout=subprocess.PIPE) as process:
            started.append(process)
            said, _ = process.communicate(timeout=10)
    assert (process.returncode, said) == (143, b"")
    assert [seen.method for seen in server.seen] == ["GET", "POST", "DELETE"]


def test_a_revocation_that_is_refused_is_a_warning(ctl: Shell, at: list[str]) -> None:
    def script(connection: socket.socket, seen: Seen, _number: int) -> bool:
        if seen.method == "DELETE":
            refusal = {"success": False, "error": "cannot revoke it: why", "code": "internal"}
            answer(connection, 500, refusal)
        else:
            answer(connection, 201, {"success": True, **CONTEXT})
        return True

    with fake(script) as server:
        done = ctl("run", *at, "--socket", server.path, "--", "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert "cannot revoke the context" in done.stderr
    assert "cannot revoke it: why" in done.stderr


def test_a_context_that_ended_first_is_not_missed(ctl: Shell, at: list[str]) -> None:
    done = ctl("run", *at, "--ttl", "0.3", "--", "sleep", "0.6")
    assert (done.returncode, done.stderr) == (0, "")


def test_run_as_process_1_reaps_orphans(ctl: Shell, at: list[str]) -> None:
    """As in a container, where nobody else takes in what the command leaves behind."""
    space = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*space, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs the right to make a PID namespace")
    # Each inner shell ends at once, and its own child, which goes on, is an orphan then.
    script = (
        "for n in 1 2 3 4 5; do (sleep 0.2 &) ; done; sleep 1; "
        "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l; exit 7"
    )
    done = subprocess.run(
        [*space, *CTL, "run", *at, "--", "sh", "-c", script],
        env=ctl.environ,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (7, "0", "")
