"""bucketctl with standard streams that are closed, or that nobody reads any more."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from ctl_shell import CTL, Shell
from harness import Daemon

SECONDS = 10


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


READERS = [
    "import",
    "import -",
    "import --dry-run",
    "schema set a -",
    "schema check a -",
    "diff --device d --job j -",
    "api PATCH /v1/devices/d/jobs/j/bucket -",
    "api PATCH /v1/devices/d/jobs/j/bucket --data -",
    "set --device d --job j -",
    "replace --device d --job j -",
    "edit --device d --from -",
]


@pytest.mark.parametrize("line", READERS)
def test_a_closed_standard_input_is_a_usage_error(ctl: Shell, line: str) -> None:
    done = ctl.line(f"bucketctl {line} <&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bucketctl: cannot read the data: standard input is closed")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("line", READERS)
def test_a_standard_input_that_cannot_be_read(ctl: Shell, line: str) -> None:
    done = ctl.line(f"bucketctl {line} 0>/dev/null")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot read" in done.stderr
    assert "Bad file descriptor" in done.stderr


@pytest.mark.parametrize(
    "line",
    ["clear --all --device nobody", "device forget nobody", "sweep --days 1", "edit --device d"],
)
@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_what_asks_a_person_with_streams_closed(ctl: Shell, line: str, closed: str) -> None:
    ctl.json("set", "--device", "d", "a=1")
    done = ctl.line(f"EDITOR=false bucketctl {line} {closed}")
    assert done.returncode in (0, 2)
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize("line", ["get --device d", "list", "export", "status", "doctor", "usage"])
def test_closed_error_output_changes_nothing(ctl: Shell, line: str) -> None:
    ctl.json("set", "--device", "d", "a=1")
    done, closed = ctl.line(f"bucketctl {line}"), ctl.line(f"bucketctl {line} 2>&-")
    assert (closed.returncode, bool(closed.stdout)) == (done.returncode, bool(done.stdout))


@pytest.mark.parametrize("words", [[], ["--all"], ["--json"]])
def test_watch_ends_when_nobody_reads_it(ctl: Shell, words: list[str]) -> None:
    """At once, and not with the next change, which may never come."""
    at = ["--device", "read-once", *(["--job", "j"] if words != ["--all"] else [])]
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*CTL, "watch", *at, *words], env=ctl.environ, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    deadline = time.monotonic() + SECONDS
    while not select_readable(reading):
        assert time.monotonic() < deadline
        ctl("set", "--device", "read-once", "--job", "j", f"n:={time.monotonic_ns()}")
    assert os.read(reading, 65536)
    assert process.poll() is None
    os.close(reading)
    _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (141, b"")


def select_readable(descriptor: int) -> bool:
    import select

    return bool(select.select([descriptor], [], [], 0.1)[0])


@pytest.mark.parametrize("line", ["watch --device d --snapshot", "list", "export"])
def test_the_first_line_is_enough(ctl: Shell, line: str) -> None:
    ctl.json("set", "--device", "d", "a=1")
    done = ctl.line(f"bucketctl {line} | head -1")
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")


@pytest.mark.parametrize("words", [["list"], ["export"]])
def test_a_wait_for_the_daemon_ends_when_nobody_reads(words: list[str]) -> None:
    """A daemon that does not answer holds nobody who has no reader."""
    import socket
    import tempfile

    with tempfile.TemporaryDirectory() as home, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{home}/s")
        silent.listen()
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [*CTL, *words, "--socket", f"{home}/s"], stdout=writing, stderr=subprocess.PIPE
        )
        os.close(writing)
        connection, _ = silent.accept()
        os.close(reading)
        _, said = process.communicate(timeout=SECONDS)
        assert (process.returncode, said) == (141, b"")
        connection.close()


def test_an_unexpected_error_shows_no_value() -> None:
    script = (
        "from bucketd_client import ctl\n"
        "def broken(argv): raise KeyError('hunter2')\n"
        "ctl._run = broken\n"
        "raise SystemExit(ctl.main(['get']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "unexpected error (KeyError in broken, line 2)" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["set", "hunter2"],
        ["set", "a:=hunter2"],
        ["set", "--data", "hunter2"],
        ["set", "a:=1" + "9" * 400 + ".0"],
        ["replace", "-", "hunter2"],
        ["clear", "token=hunter2"],
        ["api", "PATCH", "/v1/devices/d/bucket", "hunter2"],
        ["api", "PATCH", "/v1/devices/d/bucket", "--header", "hunter2"],
        ["api", "PATCH", "/v1/devices/d/bucket", "a:=hunter2"],
    ],
)
def test_a_usage_error_shows_no_value(ctl: Shell, words: list[str]) -> None:
    done = ctl(words[0], *words[1:], *([] if words[0] == "api" else ["--device", "d"]))
    assert done.returncode == 2
    assert "hunter2" not in done.stderr
    assert "99999" not in done.stderr


def test_a_lone_surrogate_is_named_by_its_place(ctl: Shell) -> None:
    state = '{"origins": [{"localStorage": [{"name": "lz", "value": "x\\ud800y"}]}]}'
    for words in (["set"], ["replace"]):
        done = ctl(*words, "--device", "d", "-", stdin=state)
        assert (done.returncode, done.stdout) == (2, "")
        assert "at /origins/0/localStorage/0/value has a lone surrogate" in done.stderr
        assert "store it escaped" in done.stderr
    done = ctl("set", "--device", "d", 'a~/b:={"k\\udc00": 1}')
    assert (done.returncode, "at /k\\udc00 (its key)" in done.stderr) == (2, True)
