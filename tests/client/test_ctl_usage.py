"""bucketctl when something is wrong: exit status, message, never a traceback; and its help."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bucketd_client import Bucket, BucketError
from bucketd_client.ctl.table.all import every
from ctl_shell import CTL, Shell
from fake import Seen, answer, fake
from harness import REPO, Daemon


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def at(request: pytest.FixtureRequest) -> list[str]:
    """Options that name a bucket of this test alone."""
    return ["--device", request.node.originalname, "--job", "login"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 0, ""),
        (["gte"], 2, "did you mean get?"),
        (["exprot"], 2, "did you mean export?"),
        (["device", "renmae", "x"], 2, "did you mean device rename?"),
        (["rm", "x"], 2, "bucketctl --help for those that remove"),
        (["contexts"], 2, "did you mean context list?"),
        (["usage", "--curl"], 2, "bucketctl api METHOD PATH --curl"),
        (["list", "extra"], 2, "it takes no 'extra'"),
        (["context", "revoke", "a", "b"], 2, "it takes no 'b'"),
        (["get", "--devcie", "x"], 2, "did you mean --device?"),
        (["get", "--device"], 2, "needs a value"),
        (["get", "--json=1"], 2, "takes no value"),
        (["get", "--job", "j"], 2, "need --device"),
        (["get", "-x"], 2, "put -- before"),
        (["--json", "get"], 2, "the command comes first"),
        (["context", "crate"], 2, "did you mean context create?"),
        (["get"], 3, "bucketctl run --device"),
        (["get", "--device", "d", "--job", "j", "none"], 1, "no such key"),
        (["get", "--device", "d", "--raw"], 2, "exactly one KEY"),
        (["get", "--device", "d", "--timeout", "soon"], 2, "number of seconds"),
        (["set", "--device", "d", "--job", "j"], 2, "KEY=TEXT"),
        (["set", "--device", "d", "--job", "j", "word"], 2, "KEY=TEXT"),
        (["set", "--device", "d", "--job", "j", "n:=NaN"], 2, "NaN is not JSON"),
        (
            ["set", "--device", "d", "--job", "j", "n:=1e400"],
            2,
            "a number of 5 characters is too large",
        ),
        (["set", "--device", "d", "--job", "j", "n:=" + "[" * 99999], 2, "nested too deep"),
        (["set", "--device", "d", "--job", "j", "n:=18446744073709551616"], 1, "outside"),
        (["set", "--device", "d", "--job", "j", "x:=yes"], 2, "; a string is x=TEXT\n"),
        (["set", "--device", "d", "--job", "j", "a b:=s3cr3t"], 2, "; a string is 'a b=TEXT'\n"),
        (["set", "--device", "d", "--job", "j", "x:={a:1}"], 2, """such as 'x:={"a": 1}'\n"""),
        (["set", "--device", "d", "--data", "{'a':1}"], 2, """such as --data '{"a": 1}'\n"""),
        (["set", "--device", "d", "--data", '{"a":1,}'], 2, "line 1 column"),
        (["set", "--device", "d", "--job", "j", "--data", "{}", "-"], 2, "data twice"),
        (["set", "--device", "d", "--job", "j", "--if-match", "", "a=1"], 1, "If-Match"),
        (["set", "--device", "d", "--job", "j", "--if-match", "a\nb", "a=1"], 2, "line break"),
        (["set", "--device", "d", "--job", "j", "--data", "[1]"], 2, "JSON object"),
        (["replace", "--device", "d", "--job", "j"], 2, "--data OBJ"),
        (["unset", "--device", "d", "--job", "j"], 2, "usage: bucketctl unset"),
        (["set", "--device", "", "--job", "j", "a=1"], 1, "device name"),
        (["set", "--device", "d\n", "--job", "j", "a=1"], 1, "control character"),
        (["context"], 2, "context create"),
        (["context", "create"], 2, "--device D"),
        (["context", "revoke", "none"], 1, "no live context has this id"),
        (["list", "--limit", "0"], 2, "whole number"),
        (["sweep"], 2, "cannot sweep: give the age of the buckets to remove with --days N"),
        (["run", "--", "true"], 2, "--device D"),
        (["run", "--device", "d", "--job", "j"], 2, "usage: bucketctl run"),
    ],
)
def test_exit_status_and_message(ctl: Shell, words: list[str], status: int, said: str) -> None:
    done = ctl(*words)
    assert done.returncode == status, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if status:
        assert done.stdout == ""
        assert done.stderr.startswith("bucketctl: ")


ON_A_BUCKET = ["clear", "get", "set a=1", "unset a", "replace --data {}"]
OPERATORS = ["list", "status", "context list", "context create --device d", "context revoke x"]
RUN = "run --device d --socket /nope/b.sock --timeout 0.5 -- true"


@pytest.mark.parametrize("command", [f"{c} --device d" for c in ON_A_BUCKET] + [*OPERATORS, RUN])
def test_no_daemon_is_status_4(ctl: Shell, command: str) -> None:
    done = ctl(*command.split(), "--socket", "/nope/b.sock", "--timeout", "0.5")
    assert (done.returncode, done.stdout) == (4, "")
    assert "is bucketd running?" in done.stderr


@pytest.mark.parametrize("command", ON_A_BUCKET)
def test_no_context_is_status_3(ctl: Shell, command: str) -> None:
    assert ctl(*command.split()).returncode == 3
    for token in ("none", "no\nne"):
        assert ctl(*command.split(), env={"BUCKETD_TOKEN": token}).returncode == 3


@pytest.mark.files
def test_what_the_log_knows_more_of_has_its_request_id(daemon: Daemon) -> None:
    path = daemon.state_dir / "devices" / "d" / "jobs" / "j.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{")
    done = Shell(daemon)("get", "--device", "d", "--job", "j")
    said = re.search(r"\(request ([0-9a-f]{12}) in its log\)$", done.stderr.strip())
    assert said
    assert f"request {said[1]}: bucket_corrupt" in daemon.log
    with pytest.raises(BucketError) as caught:
        Bucket(device="d", job="j", socket=daemon.socket).get()
    assert f"request {caught.value.request_id}: bucket_corrupt" in daemon.log


@pytest.mark.parametrize("words", [["get"], ["get", "a"], ["set", "b:=1"], ["diff"]])
def test_a_bucket_that_was_recovered_is_said_to_be(
    daemon: Daemon, tmp_path: Path, words: list[str]
) -> None:
    ctl, at = Shell(daemon), ["--device", "d", "--job", "j"]
    ctl("set", *at, "a:=1")
    path = daemon.bucket_path("d", "j")
    ctl("list")  # once the files are current
    (tmp_path / "damaged").write_text("{")
    (tmp_path / "damaged").replace(path)
    (tmp_path / "same.json").write_text('{"a": 1}')
    more = [str(tmp_path / "same.json")] if words == ["diff"] else []
    done = ctl(*words, *at, *more)
    assert done.returncode == 0
    assert done.stderr.startswith(
        "bucketctl: revision 1 has replaced a damaged file, and may lack changes: "
    )
    assert str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_too_large_is_said_once(stopped_daemon: Daemon) -> None:
    stopped_daemon.env["BUCKETD_LIMITS_MAX_DEVICE_BYTES"] = "60"
    stopped_daemon.env["BUCKETD_LIMITS_MAX_BUCKET_BYTES"] = "55"
    ctl = Shell(stopped_daemon.start())
    assert ctl("set", "--device", "d", "--job", "a", f"x={'y' * 40}").returncode == 0
    for words in (["--job", "a", "z=12345678"], ["--job", "b", "z=12345678"]):
        (line,) = ctl("set", "--device", "d", *words).stderr.splitlines()
        assert "bytes)" in line


def test_schema_violation_is_status_5_and_lists_them(ctl: Shell, at: list[str]) -> None:
    refusal = {
        "success": False,
        "error": "cannot set the bucket",
        "code": "schema_violation",
        "details": [{"path": "/n", "message": "must be a number", "keyword": "type"}],
    }

    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 422, refusal)
        return True

    with fake(script) as server:
        done = ctl("set", *at, "n=x", "--socket", server.path)
    assert done.returncode == 5
    assert done.stderr == "bucketctl: cannot set the bucket\n  /n must be a number\n"


def test_a_schema_that_stored_buckets_violate_is_status_5_set_or_checked(
    ctl: Shell, at: list[str]
) -> None:
    ctl.json("set", *at, "--automation", at[1], "n=x")
    for verb in ("set", "check"):
        done = ctl("schema", verb, at[1], "-", stdin='{"properties": {"n": {"type": "number"}}}')
        assert done.returncode == 5, done
    assert at[1] not in ctl("schema", "list").stdout


def test_arguments_that_are_no_utf8(ctl: Shell) -> None:
    done = subprocess.run(
        [*map(str.encode, CTL), b"get", b"--device", b"\xff", b"--job", b"j"],
        env=ctl.environ,
        capture_output=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"bucketctl: cannot")


@pytest.mark.parametrize("words", [["get", "--device", "d"], ["list"], ["--help"]])
def test_a_reader_that_has_gone_is_told_nothing(ctl: Shell, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*CTL, *words], env=ctl.environ, stdout=writing, stderr=subprocess.PIPE, timeout=10
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    "command",
    ["", *(command.name for command in every())],
)
def test_help(ctl: Shell, command: str) -> None:
    done = ctl(*command.split(), "--help")
    assert ctl("help", *command.split()).stdout == done.stdout == ctl(*command.split(), "-h").stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: bucketctl")
    if command:
        assert "\nexample" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("command", ["run", "context create"])
def test_help_tells_what_a_context_without_a_job_is(ctl: Shell, command: str) -> None:
    assert "no_job_context" in ctl(*command.split(), "--help").stdout


@pytest.mark.parametrize("command", ["doctor", "apply", "schema list", "device forget"])
def test_help_promises_no_etag_where_there_is_no_bucket(ctl: Shell, command: str) -> None:
    assert "etag" not in ctl(*command.split(), "--help").stdout


def test_version(ctl: Shell) -> None:
    assert ctl("--version").stdout.startswith("bucketctl 0.")


def test_get_imports_nothing_heavy(ctl: Shell, at: list[str]) -> None:
    """Without site, which may import anything: a virtual environment's own, for one."""
    script = REPO / "client" / "python" / "bucketctl"
    done = subprocess.run(
        [sys.executable, "-S", "-X", "importtime", script, "get", *at],
        env=ctl.environ,
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert (done.returncode, "bucketd_client._transport" in imported) == (0, True)
    assert not imported & {"argparse", "asyncio", "collections", "enum", "http.client", "json"}
    assert not imported & {"re", "socket", "subprocess", "threading", "typing", "urllib.request"}


def test_the_installed_command(ctl: Shell) -> None:
    command = Path(sys.executable).with_name("bucketctl")
    done = subprocess.run([command, "status"], env=ctl.environ, capture_output=True, cwd=REPO)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("set AT - <&-", 2, "standard input is closed"),
        ("get AT >&-", 1, "cannot write to standard output: it is closed\n"),
        ("get AT >/dev/full", 1, "cannot write to standard output: No space left on device\n"),
        ("list --json >/dev/full", 1, "to standard output: No space left on device\n"),
        ("--help >/dev/full", 1, "cannot write to standard output: No space left on device\n"),
        ("export --format tar >/dev/full", 1, "standard output: No space left on device\n"),
        ("export --format tar >&-", 1, "cannot write to standard output: it is closed\n"),
        ("api GET /v1/bucket >/dev/full", 3, "no job context"),
        ("set AT a=1 >/dev/full", 1, "left on device; the daemon has done what was asked\n"),
        ("clear AT >&-", 1, "it is closed; the daemon has done what was asked\n"),
        ("api PUT /v1/devices/d/bucket a=1 >&-", 1, "the daemon has done what was asked\n"),
        ("schema check a - >&- <<E\n{}\nE", 1, "standard output: it is closed\n"),
        ("get AT none 2>&-", 1, ""),
        ("get AT none 2>/dev/full", 1, ""),
        ("set AT n=$(printf '\\377')", 2, "lone surrogate"),
        ('set AT --data "{\\"$(printf \'\\377\')\\":1}"', 2, "lone surrogate"),
        ("$(printf '\\377')", 2, "no such command"),
        ("get AT --timeout 1e300", 2, "number of seconds"),
    ],
)
def test_odd_surroundings(ctl: Shell, at: list[str], line: str, status: int, said: str) -> None:
    done = ctl.line("bucketctl " + line.replace("AT", shlex.join(at)))
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == (1 if said else 0)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"success": true}', b'{"success": true, "bucket": 1}']
)
def test_an_answer_of_something_else(ctl: Shell, at: list[str], body: bytes) -> None:
    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        answer(connection, 200, body)
        return True

    with fake(script) as server:
        done = ctl("get", *at, "key", "--socket", server.path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bucketctl: ")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_is_status_130(ctl: Shell, at: list[str]) -> None:
    words = ["get", *at, "--socket", "/nope/b.sock", "--timeout", "20"]
    process = subprocess.Popen([*CTL, *words], env=ctl.environ, stderr=subprocess.PIPE)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=5)
    assert (process.returncode, said) == (130, b"")


def test_stdin_that_is_no_utf8(ctl: Shell, at: list[str]) -> None:
    done = ctl.line(f'printf \'{{"a": "\\377"}}\' | bucketctl set {shlex.join(at)} -')
    assert (done.returncode, done.stdout) == (2, "")
    assert "not valid UTF-8" in done.stderr
    assert ctl.json("get", *at) == {}
