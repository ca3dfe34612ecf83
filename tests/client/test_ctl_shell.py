"""bucketctl for scripts and cron: patch, wait, watch --count, -q; and what a person is told."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from ctl_shell import CTL, Shell, read_terminal, session_leader
from harness import Daemon, pair


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return f"phone-{zlib.crc32(request.node.name.encode())}"


def test_patches(ctl: Shell, device: str) -> None:
    place = f"{device}/j"
    ctl.json("set", place, "--data", '{"user": {"name": "ada", "old": 1}, "log": []}')
    merged = ctl.json("patch", place, "-", stdin='{"user": {"old": null, "new": 2}}')
    assert merged == {"user": {"name": "ada", "new": 2}, "log": []}
    adding = '[{"op": "add", "path": "/log/-", "value": "x"}]'
    assert ctl.json("patch", place, "--json-patch", "--data", adding)["log"] == ["x"]
    refused = ctl("patch", place, "--json-patch", "-", stdin='[{"op": "remove", "path": "/no"}]')
    assert (refused.returncode, refused.stdout) == (1, "")
    for words, data in ((["--json-patch"], "{}"), ([], "[]"), ([], "x"), (["a=1"], "{}")):
        wrong = ctl("patch", place, "-", *words, stdin=data)
        assert (wrong.returncode, wrong.stdout) == (2, ""), words
    assert ctl("patch", place).returncode == 2
    stale = ctl("patch", place, "--if-match", '"x"', "--data", "{}")
    assert stale.returncode == 6


# --- wait


@contextlib.contextmanager
def later(seconds: float, *requests: tuple[Daemon, str, object]) -> Iterator[None]:
    """Patch buckets after some seconds, one after another."""

    def write() -> None:
        for daemon, path, data in requests:
            time.sleep(seconds)
            daemon.request("PATCH", path, data)

    thread = threading.Thread(target=write)
    thread.start()
    yield
    thread.join()


def test_wait_for_a_key_and_for_a_value(ctl: Shell, device: str) -> None:
    path, place = pair(device, "j"), f"{device}/j"
    steps = [{"loggedIn": False}, {"other": 1}, {"loggedIn": True, "sms": {"code": "123 456"}}]
    with later(0.6, *((ctl.daemon, path, step) for step in steps)):
        assert ctl.json("wait", place, "loggedIn", "--for", "20s") is False
        assert ctl("wait", place, "/sms/code", "-r", "--for", "20s").stdout == "123 456\n"
    # At once, since it is so already.
    assert ctl.json("wait", place, "loggedIn=true", "--for", "5s") is True
    assert ctl.json("wait", place, "loggedIn:=true", "--for", "5s") is True
    assert ctl("wait", place, "loggedIn=true", "-q").stdout == ""
    whole = ctl.json("wait", place, "loggedIn", "--json")
    assert whole == {"success": True, "key": "loggedIn", "value": True, "revision": 3}


@pytest.mark.parametrize("condition", ["loggedIn=true", "none", "n=1.0"])
def test_wait_no_longer(ctl: Shell, device: str, condition: str) -> None:
    ctl.json("set", f"{device}/j", "loggedIn:=false", "n:=1")
    began = time.monotonic()
    done = ctl("wait", f"{device}/j", condition, "--for", "700ms")
    assert 0.7 <= time.monotonic() - began < 10
    assert (done.returncode, done.stdout) == (1, "")
    assert "so within 700ms" in done.stderr
    refusal = json.loads(ctl("wait", f"{device}/j", condition, "--for", "0.1s", "--json").stdout)
    assert refusal["code"] == "not_found"


def test_wait_survives_a_restart_and_sees_a_removal(daemon: Daemon) -> None:
    """A value that was set, then removed, is not there."""
    ctl = Shell(daemon)
    daemon.request("PATCH", pair("d", "j"), {"a": 1})
    process = subprocess.Popen(
        [*CTL, "wait", "d/j", "b", "--for", "60s"], env=ctl.environ, stdout=subprocess.PIPE
    )
    time.sleep(1)
    daemon.restart()
    daemon.request("PATCH", pair("d", "j"), {"b": [2]})
    assert process.communicate(timeout=30)[0] == b"[2]\n"
    daemon.request("DELETE", f"{pair('d', 'j')}?key=b")
    assert ctl("wait", "d/j", "b", "--for", "0.5s").returncode == 1


@pytest.mark.parametrize(
    "words",
    [["k", "--for", "soon"], ["k", "--for", "0"], ["k", "--for", "-1s"], ["k", "--for", "1y"],
     ["k=text"], ["k", "l"], []],
)  # fmt: skip
def test_wait_refuses_what_it_cannot_use(ctl: Shell, device: str, words: list[str]) -> None:
    assert ctl("wait", "-d", device, *words).returncode == 2


def test_wait_shows_no_secret_on_a_terminal(ctl: Shell, device: str) -> None:
    schema = '{"fields": [{"name": "token", "type": "string", "secret": true}]}'
    ctl.json("schema", "set", device, "-", stdin=schema)
    ctl.json("set", f"{device}/j", "-a", device, "token=s3cr3t")
    assert ctl.on_terminal("wait", f"{device}/j", "token") == "••••\n"
    assert ctl.on_terminal("wait", f"{device}/j", "token", "--reveal") == '"s3cr3t"\n'
    assert ctl.json("wait", f"{device}/j", 'token="s3cr3t"') == "s3cr3t"


# --- watch --count


def test_watch_ends_after_a_number_of_changes(ctl: Shell, device: str) -> None:
    ctl.json("set", f"{device}/j", "n:=0")
    done = ctl("watch", f"{device}/j", "--snapshot", "--count", "1")
    assert (done.returncode, json.loads(done.stdout)["set"]) == (0, {"n": 0})
    path = pair(device, "j")
    with later(0.5, *((ctl.daemon, path, {"n": n}) for n in range(1, 5))):
        lines = ctl("watch", f"{device}/j", "--snapshot", "--count", "3").stdout.splitlines()
    assert [json.loads(line)["set"]["n"] for line in lines] == [0, 1, 2]
    with later(1.5, (ctl.daemon, path, {"n": 9})):
        shown = ctl.on_terminal("watch", f"{device}/j", "--count", "1")
    assert shown.splitlines()[1:] == ["- /n: 4", "+ /n: 9"]
    assert ctl("watch", f"{device}/j", "--count", "0").returncode == 2
    tabbed = ctl("watch", f"{device}/j", "--snapshot", "--count", "1", "-o", "tsv").stdout
    assert tabbed == f'bucket\t{device}\tj\t6\t{{"n": 9}}\t[]\n'


# --- quiet


def test_quiet_is_silent_for_cron(ctl: Shell, device: str, tmp_path: Path) -> None:
    file = str(tmp_path / "all.ndjson")
    place = f"{device}/j"
    for line in (
        ["set", place, "a=1", "b=2", "-q"],
        ["unset", place, "a", "-q"],
        ["patch", place, "--data", "{}", "-q"],
        ["export", "-d", device, "--output", file, "-q"],
        ["import", file, "-q"],
        ["device", "rename", device, f"{device}-2", "--yes", "-q"],
        ["device", "forget", f"{device}-2", "--yes", "-q"],
        ["sweep", "--days", "900", "-d", device, "--yes", "-q"],
        ["clear", "--all", "-d", device, "--yes", "-q"],
        ["schema", "remove", "nobody", "-q"],
    ):
        done = ctl(*line)
        is_refused = line[0] == "schema"
        assert (done.returncode, done.stdout, bool(done.stderr)) == (is_refused, "", is_refused)
    for line in (["set", place, "a=1", "-q", "--json"], ["import", file, "-q", "-o", "json"]):
        assert ctl(*line).returncode == 2
    assert ctl("export", "-q").returncode == 2
    assert "curl" in ctl("set", place, "a=1", "-q", "--curl").stdout


def test_quiet_doctor_tells_what_is_wrong_alone(daemon: Daemon) -> None:
    ctl = Shell(daemon)
    env = {"PATH": "/nowhere"}
    done = ctl("doctor", "-q", env=env)
    assert done.returncode == 0
    assert not [line for line in done.stdout.splitlines() if line.startswith("ok")]
    ctl.json("set", "d/j", "a=1")
    daemon.restart()
    (daemon.state_dir / "devices" / "d" / "jobs" / "x.json").write_text("{")
    done = ctl("doctor", "--buckets", "-q", env=env)
    assert done.returncode == 1
    assert "problem  bucket" in done.stdout
    assert "ok " not in done.stdout


# --- what a person is told


def test_a_write_tells_which_bucket_it_was(ctl: Shell, device: str) -> None:
    said = ctl.on_terminal("set", f"{device}/login", "a=1").splitlines()
    assert said[-1] == f"bucketctl: bucket of {device}, login, revision 1"
    said = ctl.on_terminal("set", f"{device}/", "a=1").splitlines()
    assert said[-1] == f"bucketctl: device bucket of {device}, revision 1"
    said = ctl.on_terminal("set", "-d", device, "a=2").splitlines()
    assert said[-1].startswith(f"bucketctl: device bucket of {device}, revision 2; no --job was")
    token = {"BUCKETD_TOKEN": ctl.daemon.mint(device, "login")}
    assert ctl.on_terminal("unset", "a", env=token).splitlines()[-1].endswith("revision 2")
    assert "revision" not in ctl.on_terminal("set", f"{device}/", "a=3", "-q")
    assert ctl("set", "-d", device, "a=4").stderr == ""


def in_terminal(ctl: Shell, words: list[str], answer: str) -> tuple[int, str]:
    """Run a command on a terminal of its own, and answer its question."""
    ours, process = session_leader([*CTL, *words], {**ctl.environ, "NO_COLOR": "1"})
    said = read_terminal(ours, "[y/N]")
    os.write(ours, answer.encode())
    said += read_terminal(ours)
    os.close(ours)
    return process.wait(10), said


def test_clear_asks_where_the_job_was_forgotten(ctl: Shell, device: str) -> None:
    ctl.json("set", f"{device}/", "a=1")
    ctl.json("set", f"{device}/login", "a=1")
    status, said = in_terminal(ctl, ["clear", "-d", device], "n\n")
    assert status == 1
    assert f"clear the device bucket of {device}, as no --job is given? [y/N]" in said
    assert "nothing was changed" in said
    assert ctl.json("get", f"{device}/") == {"a": "1"}
    status, _ = in_terminal(ctl, ["clear", "-d", device], "y\n")
    assert (status, ctl.json("get", f"{device}/")) == (0, {})
    # Nobody is asked who has said which bucket it is, or is not there.
    for words in ((f"{device}/",), ("-d", device, "--yes"), ("-d", device, "--device-bucket")):
        ctl.json("set", f"{device}/", "a=1")
        assert "[y/N]" not in ctl.on_terminal("clear", *words)
    ctl.json("set", f"{device}/", "a=1")
    assert ctl.json("clear", "-d", device) == {}
    assert ctl.json("get", f"{device}/login") == {"a": "1"}
