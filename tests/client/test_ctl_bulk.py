"""bucketctl on many buckets: clear --all, device forget and device rename."""

from __future__ import annotations

import os

import pytest
from ctl_shell import CTL, Shell, read_terminal, session_leader
from harness import Daemon

FULL = {("a 1", None), ("a 1", "login"), ("a 1", "x/y"), ("a 2", "login"), ("b", "login")}


@pytest.fixture
def ctl(daemon: Daemon) -> Shell:
    shell = Shell(daemon)
    for device, job in FULL:
        words = ["--device", device] if job is None else ["--device", device, "--job", job]
        shell.json("set", *words, f"whose={device}, {job}", "n:=[1]")
    return shell


def left(ctl: Shell) -> set[tuple[str, str | None]]:
    return {(row["device"], row["job"]) for row in ctl.json("list")}


def test_clear_by_pattern(ctl: Shell) -> None:
    words = ["clear", "--all", "--device", "a*", "--job", "login"]
    shown = ctl.json(*words, "--dry-run")
    assert {(row["device"], row["job"]) for row in shown} == {("a 1", "login"), ("a 2", "login")}
    refused = ctl(*words)
    assert (refused.returncode, left(ctl)) == (2, FULL)
    assert "--yes" in refused.stderr
    assert ctl.json(*words, "--yes") == {"cleared": 2}
    assert left(ctl) == FULL - {("a 1", "login"), ("a 2", "login")}
    assert ctl.json("clear", "--all", "--yes") == {"cleared": 3}
    assert left(ctl) == set()
    for nothing in (["clear", "--all"], ["device", "forget", "a 1"]):  # nobody need be asked
        assert ctl.json(*nothing)["cleared"] == 0
        assert ctl.json(*nothing, "--dry-run") == []
        assert ctl.on_terminal(*nothing) == "there is nothing to clear\n"


@pytest.mark.parametrize("words", ["--dry-run", "--all --if-match x", "--all --curl"])
def test_options_that_do_not_go_together(ctl: Shell, words: str) -> None:
    assert ctl("clear", "--device", "b", "--job", "login", *words.split()).returncode == 2
    assert left(ctl) == FULL


@pytest.mark.parametrize(
    ("said", "gone", "status"), [("y", {("b", "login")}, 0), ("n", set(), 1), ("", set(), 1)]
)
def test_a_person_is_asked(
    ctl: Shell, said: str, gone: set[tuple[str, str | None]], status: int
) -> None:
    ours, process = session_leader([*CTL, "device", "forget", "b"], ctl.environ)
    assert "clear 1 bucket and revoke 0 contexts of b?" in read_terminal(ours, until="[y/N]")
    os.write(ours, f"{said}\n".encode())
    told = read_terminal(ours)
    os.close(ours)
    assert (process.wait(10), left(ctl)) == (status, FULL - gone)
    assert ("bucketctl: nothing was changed" in told) == (not gone)


def test_forget(ctl: Shell) -> None:
    token = ctl.json("context", "create", "--device", "a 1", "--job", "login")["token"]
    other = ctl.json("context", "create", "--device", "b", "--job", "login")["token"]
    assert len(ctl.json("device", "forget", "a 1", "--dry-run")) == 3
    assert left(ctl) == FULL
    assert ctl.json("device", "forget", "a 1", "--yes") == {"cleared": 3, "revoked": 1}
    assert left(ctl) == {("a 2", "login"), ("b", "login")}
    assert ctl("set", "a=1", env={"BUCKETD_TOKEN": token}).returncode == 3
    assert ctl("get", env={"BUCKETD_TOKEN": other}).returncode == 0


def test_rename(ctl: Shell) -> None:
    assert ctl.json("device", "rename", "a 1", "ä/..", "--yes") == {"moved": 3}
    assert left(ctl) == {("ä/..", job) for _, job in FULL} | {("a 2", "login"), ("b", "login")}
    moved = ctl.json("get", "--device", "ä/..", "--job", "x/y")
    assert moved == {"whose": "a 1, x/y", "n": [1]}
    assert ctl("device", "rename", "a 1", "new", "--yes").returncode == 1
    assert ctl("device", "rename", "b", "b", "--yes").returncode == 2


def test_rename_overwrites_nothing_and_goes_on_where_it_stopped(ctl: Shell) -> None:
    ctl.json("set", "--device", "new", "--job", "login", "mine=1")
    done = ctl("device", "rename", "a 1", "new", "--yes")
    assert done.returncode == 6
    assert ctl.json("get", "--device", "new", "--job", "login") == {"mine": "1"}
    assert ("a 1", "login") in left(ctl)
    # As after a crash between the copy and the removal:
    ctl.json("replace", "--device", "new", "--job", "login", "-",
             stdin=ctl("get", "--device", "a 1", "--job", "login").stdout)  # fmt: skip
    ctl.json("device", "rename", "a 1", "new", "--yes")
    assert left(ctl) == {("new", job) for d, job in FULL if d == "a 1"} | {
        ("a 2", "login"),
        ("b", "login"),
    }


def test_a_device_with_live_jobs_is_not_renamed(ctl: Shell) -> None:
    ctl.json("context", "create", "--device", "b", "--job", "login")
    done = ctl("device", "rename", "b", "c", "--yes")
    assert (done.returncode, left(ctl)) == (1, FULL)
    assert "1 live context;" in done.stderr


def test_the_schema_goes_with_a_renamed_device(ctl: Shell) -> None:
    ctl("schema", "set", "strict", "-", stdin='{"fields": [{"name": "n", "type": "array"}]}')
    ctl.json("set", "--device", "b", "--job", "login", "--automation", "strict", "m=1")
    ctl.json("device", "rename", "b", "c", "--yes")
    assert ctl("set", "--device", "c", "--job", "login", "n=text").returncode == 5
