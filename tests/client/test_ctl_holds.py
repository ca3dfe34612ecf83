"""``bucketctl run --hold``, ``hold list``, ``hold break``; who holds in ``list`` and ``watch``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from bucketd_client import Bucket, HeldBucket
from ctl_shell import CTL, Shell
from harness import Daemon, pair

INNER = " ".join(CTL)


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def at(request: pytest.FixtureRequest) -> list[str]:
    """Options that name a bucket of this test alone."""
    return ["--device", request.node.name, "--job", "login"]


@pytest.fixture
def other(ctl: Shell, at: list[str]) -> Bucket:
    """The same bucket, for somebody else."""
    return Bucket(device=at[1], job="login", socket=ctl.daemon.socket)


def soon(is_so: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.02)
    return is_so()


def held_rows(ctl: Shell, device: str) -> list[dict[str, object]]:
    rows = ctl.daemon.request("GET", "/v1/holds").json["holds"]
    return [row for row in rows if row["device"] == device]


# --- run


def test_the_command_holds_and_its_writes_carry_the_fence(
    ctl: Shell, at: list[str], other: Bucket
) -> None:
    script = f"{INNER} set a=1 >/dev/null && env && {INNER} hold list --device {at[1]}"
    script += " && ls -l /proc/self/fd"
    done = ctl("run", *at, "--hold", "job", "--exclusive", "--ttl", "60", "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    given = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert given["BUCKETD_HOLD"] == "job"
    (row,) = json.loads(next(line for line in done.stdout.splitlines() if line[:1] == "[") + "]")
    assert (row["exclusive"], row["label"], row["job"]) == (True, "bucketctl run sh", "login")
    # The child has inherited no socket, so it cannot keep the hold.
    assert "socket:" not in done.stdout
    assert not held_rows(ctl, at[1])
    assert other.set(b=1) == {"a": "1", "b": 1}
    names = {"BUCKETD_DEVICE": at[1], "BUCKETD_JOB": "login"}
    late = ctl("set", *at, "c=1", env={"BUCKETD_FENCE": given["BUCKETD_FENCE"], **names})
    assert late.returncode == 6
    assert "cannot change" in late.stderr


def test_a_hold_that_is_not_had_says_who_has_it(ctl: Shell, at: list[str], other: Bucket) -> None:
    with other.hold(label="nightly run") as held:
        done = ctl("run", *at, "--hold", "job", "--wait", "0", "--", "touch", "/nope/x")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"process {os.getpid()}" in done.stderr
        assert held.since in done.stderr
        assert "nightly run" in done.stderr
        # A name is independent of others, and a device is not.
        assert ctl("run", *at, "--hold", "job", "--hold-name", "x", "--", "true").returncode == 0
        assert ctl("run", *at, "--hold", "device", "--wait", "0.1", "--", "true").returncode == 1
    assert not ctl.contexts_of(at[1])


def test_two_runs_at_once_take_turns(ctl: Shell, at: list[str]) -> None:
    script = f"n=$({INNER} get n); sleep 0.3; {INNER} set n:=$((n + 1)) >/dev/null"
    ctl("set", *at, "n:=0")
    words = [*CTL, "run", *at, "--hold", "device", "--", "sh", "-c", script]
    runs = [subprocess.Popen(words, env=ctl.environ) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert ctl.json("get", *at, "n") == 3


def test_a_lost_hold_ends_the_command(ctl: Shell, at: list[str]) -> None:
    script = "import signal, sys, time\n"
    script += "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nprint('ready', flush=True)\n"
    script += "for _ in range(600): time.sleep(0.05)\n"
    words = [*CTL, "run", *at, "--hold", "device", "--", sys.executable, "-c", script]
    process = subprocess.Popen(
        words, env=ctl.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (row,) = held_rows(ctl, at[1])
    assert ctl("hold", "break", str(row["id"])).returncode == 0
    _, said = process.communicate(timeout=20)
    assert process.returncode == 7
    assert "an operator has ended it" in said
    assert "SIGTERM" in said


def test_a_killed_run_holds_nothing(ctl: Shell, at: list[str], other: Bucket) -> None:
    words = [*CTL, "run", *at, "--hold", "job", "--", "sh", "-c", "echo ready; exec sleep 5"]
    process = subprocess.Popen(words, env=ctl.environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert held_rows(ctl, at[1])
    process.kill()
    process.wait()
    # The command lives on, and has no part in the hold.
    with other.hold(wait=5):
        pass
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait(
    ctl: Shell, at: list[str], other: Bucket, number: signal.Signals
) -> None:
    with other.hold():
        words = [*CTL, "run", *at, "--hold", "job", "--", "true"]
        process = subprocess.Popen(words, env=ctl.environ)
        waiting = ctl.daemon.request("GET", "/v1/holds")
        assert soon(lambda: at[1] in str(ctl.daemon.request("GET", "/v1/holds").json["waiting"])), (
            waiting
        )
        process.send_signal(number)
        assert process.wait(10) in (130, -number)
    with other.hold(wait=2):
        pass


def test_signals_reach_the_command_while_it_holds(ctl: Shell, at: list[str]) -> None:
    """The thread that keeps the hold takes none of them."""
    words = [*CTL, "run", *at, "--hold", "job", "--", "sh", "-c",
             "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"]  # fmt: skip
    process = subprocess.Popen(words, env=ctl.environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 9
    process.stdout.close()


def test_a_run_inside_a_run(ctl: Shell, at: list[str]) -> None:
    """The jobs of a device that a script holds: the inner runs send the fence of the outer."""
    one = f"{INNER} run --device {at[1]} --job one -- {INNER} set a=1"
    two = f"{INNER} run --device {at[1]} --job two --hold job --hold-name x -- {INNER} set b=1"
    away = f"{INNER} run --device {at[1]}-2 --job two -- {INNER} set c=1"
    words = ["--hold", "device", "--exclusive", "--", "sh", "-ec", f"{one}; {two}; {away}"]
    done = ctl("run", *at, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"a": "1"}, {"b": "1"}, {"c": "1"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hold", "phone"], "must be job or device"),
        (["--hold", "job"], "name it with --job"),
        (["--wait", "5"], "goes with --hold"),
        (["--exclusive"], "goes with --hold"),
        (["--hold-name", "x"], "goes with --hold"),
        (["--hold", "device", "--wait", "soon"], "number of seconds"),
        (["--hold", "device", "--wait", "-1"], "from 0 to 3600"),
    ],
)
def test_options_that_make_no_sense(ctl: Shell, words: list[str], said: str) -> None:
    done = ctl("run", "--device", "d", *words, "--", "true")
    assert done.returncode == 2
    assert said in done.stderr


# --- list and break


@pytest.fixture
def held(ctl: Shell, other: Bucket) -> Iterator[HeldBucket]:
    other.set(a=1)
    with other.hold(exclusive=True, label="nightly") as held:
        yield held


def test_list_shows_who_holds(ctl: Shell, at: list[str], held: HeldBucket) -> None:
    (row,) = ctl.json("hold", "list", *at)
    assert (row["id"], row["label"], row["by"]["pid"]) == (held.id, "nightly", os.getpid())
    whole = ctl.json("hold", "list", *at, "--json")
    assert [row["id"] for row in whole["holds"]] == [held.id]
    assert ctl.json("hold", "list", "--device", "no-such*") == []
    table = ctl.on_terminal("hold", "list", "--device", f"{at[1][:-2]}*")
    assert "held, exclusive" in table
    assert f"process {os.getpid()}" in table
    assert f"process {os.getpid()}" in ctl.on_terminal("list", *at[:2]).splitlines()[1]


def test_list_without_a_holder_is_as_it_was(ctl: Shell, at: list[str], other: Bucket) -> None:
    other.set(a=1)
    assert "HELD BY" not in ctl.on_terminal("list", *at[:2])


def test_break(ctl: Shell, at: list[str], held: HeldBucket) -> None:
    answer = ctl.json("hold", "break", held.id)
    assert (answer["id"], answer["state"]) == (held.id, "held")
    assert soon(lambda: held.lost)
    again = ctl("hold", "break", held.id)
    assert again.returncode == 1
    assert "no live hold has this id" in again.stderr


def test_completion_offers_the_holds(ctl: Shell, held: HeldBucket) -> None:
    assert held.id in ctl("completion", "words", "--", "hold", "break", "").stdout
    assert ctl("completion", "words", "--", "run", "--hold", "").stdout == "job\ndevice\n"


def test_other_names_are_understood(ctl: Shell) -> None:
    assert "did you mean hold list?" in ctl("locks").stderr
    # A command that ends another's hold is not proposed.
    assert "did you mean" not in ctl("unlock").stderr


def test_watch_tells_of_holds(ctl: Shell, at: list[str], other: Bucket) -> None:
    with other.hold(label="before"):
        process = subprocess.Popen(
            [*CTL, "watch", *at, "--holds", "--json"],
            env=ctl.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["event"], first["data"]["change"]) == ("hold", "taken")
        assert first["data"]["label"] == "before"
    seen = [json.loads(process.stdout.readline())]
    assert seen[0]["data"]["change"] == "released"
    other.set(a=1)
    assert json.loads(process.stdout.readline())["event"] == "bucket"
    process.kill()
    process.communicate()


def test_watch_all_tells_of_holds_that_match(ctl: Shell, at: list[str], other: Bucket) -> None:
    elsewhere = Bucket(device=f"{at[1]}-2", socket=ctl.daemon.socket)
    with other.hold("x", label="mine") as held, elsewhere.hold():
        process = subprocess.Popen(
            [*CTL, "watch", "--all", "--device", at[1], "--holds"],
            env=ctl.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        row = json.loads(process.stdout.readline())
        assert (row["id"], row["change"], row["name"]) == (held.id, "taken", "x")
    assert json.loads(process.stdout.readline())["change"] == "released"
    process.kill()
    process.communicate()


def test_writes_of_an_operator_are_refused_while_it_is_held(
    ctl: Shell, at: list[str], held: HeldBucket
) -> None:
    done = ctl("set", *at, "b=1")
    assert done.returncode == 1
    assert "exclusively" in done.stderr
    assert ctl.daemon.request("GET", pair(at[1], "login")).bucket == {"a": 1}
    assert held.set(b=1) == {"a": 1, "b": 1}
