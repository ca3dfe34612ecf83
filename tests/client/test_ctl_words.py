"""The words of a command line: short options, DEVICE/JOB, keys, pointers, files, suggestions."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from bucketd_client.ctl import help
from bucketd_client.ctl.help import GROUPS, group_of
from bucketd_client.ctl.suggestions import REMOVING, RISKY, SYNONYMS
from bucketd_client.ctl.table.all import every
from bucketd_client.ctl.table.daily import Command
from ctl_shell import CTL, Shell, read_terminal
from harness import Daemon


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("[", ".").replace("]", "").replace("_", "")


def test_short_options_with_their_values_apart_attached_and_together(
    ctl: Shell, device: str
) -> None:
    ctl("set", "-d", device, "-j", "login", "token=s t", "-q", "-a", "auto")
    for words in (
        ["-d", device, "-j", "login", "-r"],
        [f"-d{device}", "-jlogin", "-r"],
        [f"-d={device}", "-j=login", "-r"],
        ["-rd", device, "-j", "login"],
        [f"-rd{device}", "-jlogin"],
    ):
        assert ctl("get", *words, "token").stdout == "s t\n", words
    assert ctl.json("list", "-d", device, "-a", "auto")[0]["job"] == "login"
    assert ctl("get", "-d", device, "-j", "login", "-q", "token").stdout == ""
    missing = ctl("get", "-d", device, "-j")
    assert (missing.returncode, "-j needs a value, -j J" in missing.stderr) == (2, True)
    assert "there is no option -x" in ctl("get", f"-rx{device}").stderr


@pytest.mark.parametrize(
    ("words", "job"),
    [(["set", "{}/login", "a=1"], "login"), (["set", "{}/", "a=1"], None),
     (["replace", "{}/login", "--data", '{"a": "1"}'], "login")],
)  # fmt: skip
def test_the_first_argument_names_the_bucket(
    ctl: Shell, device: str, words: list[str], job: str | None
) -> None:
    assert ctl.json(
        *(word.replace("{}", device, 1) if word[:2] == "{}" else word for word in words)
    ) == {"a": "1"}
    assert [row["job"] for row in ctl.json("list", "-d", device)] == [job]
    place = f"{device}/{job or ''}"
    assert ctl("get", place, "a", "-r").stdout == "1\n"
    assert ctl.json("unset", place, "a") == {}
    assert ctl.json("clear", place) == {}
    assert ctl.json("list", "-d", device) == []


def test_run_and_contexts_take_it_too(ctl: Shell, device: str) -> None:
    ran = ctl("run", f"{device}/login", "--", *CTL, "set", "a/b=1", "a=2")
    assert json.loads(ran.stdout) == {"a/b": "1", "a": "2"}
    made = ctl.json("context", "create", f"{device}/login")
    assert (made["device"], made["job"]) == (device, "login")
    compared = ctl.json("diff", f"{device}/login", "--to-job", "x", "--json")
    assert [change["path"] for change in compared["changes"]] == ["/a~1b", "/a"]
    # Behind a --device it is a command, as before.
    assert ctl("run", "-d", device, f"{device}/login", "--", "a").returncode == 127


def test_in_a_context_every_argument_is_a_key(ctl: Shell, device: str) -> None:
    ctl("set", f"{device}/login", "a=1", "-q", "--data", '{"x/y": 5}')
    for environ in (
        {"BUCKETD_TOKEN": ctl.daemon.mint(device, "login")},
        {"BUCKETD_DEVICE": device, "BUCKETD_JOB": "login"},
    ):
        assert ctl.json("get", "x/y", env=environ) == 5
        wrong = ctl("get", f"{device}/login", env=environ)
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert "in a job context each argument is a key" in wrong.stderr
        # A word that cannot be an assignment is a bucket everywhere.
        assert ctl.json("set", f"{device}/other", "b=1", env=environ) == {"b": "1"}


def test_what_an_unknown_word_was_taken_for(ctl: Shell, device: str) -> None:
    wrong = ctl("get", "sessionToken")
    assert wrong.returncode == 3
    assert "or put DEVICE/JOB before the key 'sessionToken'" in wrong.stderr
    wrong = ctl("get", f"{device}/lgoin", "k")
    assert wrong.returncode == 1
    assert f"'{device}/lgoin' was taken for device '{device}', job 'lgoin'" in wrong.stderr
    wrong = ctl("get", "a/b/c", "k")
    assert (wrong.returncode, "more than one slash" in wrong.stderr) == (2, True)
    # A value is never shown.
    assert "hunter2" not in ctl("set", "hunter2/x/y", "a=1").stderr


def test_a_default_and_a_quiet_get(ctl: Shell, device: str) -> None:
    place = f"{device}/j"
    ctl.json("set", place, "a:=null")
    assert ctl.json("get", place, "a", "--default", "5") is None
    assert ctl.json("get", place, "b", "--default", '{"x": [1]}') == {"x": [1]}
    assert ctl("get", place, "b", "--default", '"t"', "-r").stdout == "t\n"
    assert [ctl("get", place, key, "-q").returncode for key in "ab"] == [0, 1]
    assert ctl("get", place, "b", "-q").stderr == ""
    bad = ctl("get", place, "b", "--default", "text")
    assert (bad.returncode, "a string is --default '\"TEXT\"'" in bad.stderr) == (2, True)
    assert ctl("get", place, "a", "b", "--default", "1").returncode == 2
    assert ctl("get", place, "b", "--default", "1", "--json").returncode == 2
    assert ctl("get", place, "b", "--default", "1", env={"BUCKETD_SOCKET": "/no"}).returncode == 4


def test_json_pointers(ctl: Shell, device: str) -> None:
    place = f"{device}/j"
    bucket = {"lastItem": {"id": 7, "a/b": [1, {"~": "x"}]}, "/lastItem/id": "key", "l": [[5]]}
    ctl.json("set", place, "--data", json.dumps(bucket))
    # A key that begins with a slash is a key, as it was before there were pointers.
    assert ctl.json("get", place, "/lastItem/id") == "key"
    ctl.json("unset", place, "/lastItem/id")
    assert ctl.json("get", place, "/lastItem/id") == 7
    assert ctl("get", place, "/lastItem/a~1b/1/~0", "-r").stdout == "x\n"
    assert ctl.json("get", place, "/l/0/0") == 5
    for wrong in ("/l/1", "/l/00", "/l/-", "/lastItem/id/x", "/no", "/"):
        assert ctl("get", place, wrong).returncode == 1, wrong
    assert ctl.json("get", place, "/l/0", "l", "/no/x") == {"/l/0": [5], "l": [[5]]}
    assert ctl.json("get", place, "/l/0", "--json")["bucket"] == {"/l/0": [5]}
    assert ctl.json("get", place, "/no", "--default", "0") == 0


def test_values_from_files(ctl: Shell, device: str, tmp_path: Path) -> None:
    text, state = tmp_path / "text", tmp_path / "state.json"
    text.write_text("s3cr3t\n\n")
    state.write_text('{"cookies": [1]}\n')
    place = f"{device}/j"
    whole = ctl.json("set", place, f"token=@{text}", f"state:=@{state}", "user=@@ada", "in=@-",
                     stdin="line\n")  # fmt: skip
    expected = {"token": "s3cr3t\n", "state": {"cookies": [1]}, "user": "@ada", "in": "line"}
    assert whole == expected
    # The output of get -r comes back as it was.
    text.write_text(ctl("get", place, "token", "-r").stdout)
    assert ctl.json("set", place, f"token=@{text}")["token"] == "s3cr3t\n"
    missing = ctl("set", place, "user=@ada")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "cannot read ada" in missing.stderr
    assert "user=@@TEXT" in missing.stderr
    state.write_text("hunter2")
    bad = ctl("set", place, f"state:=@{state}")
    assert (bad.returncode, "hunter2" in bad.stderr) == (2, False)


# --- refusals and suggestions


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["get", "--json"], 3, "no_job_context"),
        (["get", "d/j", "--json", "--socket", "/no"], 4, "daemon_unreachable"),
        (["set", "d/j", "a=1", "--if-match", '"x"', "--json"], 6, "precondition_failed"),
        (["schema", "get", "none", "--json"], 1, "not_found"),
        (["get", "d/j", "--json", "--nonsense"], 2, "invalid_request"),
        (["nonsense", "--json"], 2, "invalid_request"),
    ],
)
def test_refusals_are_json_when_json_is_asked_for(
    ctl: Shell, words: list[str], status: int, code: str
) -> None:
    done = ctl(*words)
    refusal = json.loads(done.stdout)
    assert (done.returncode, refusal["success"], refusal["code"]) == (status, False, code)
    assert done.stderr == f"bucketctl: {refusal['error']}\n"
    assert ctl(*(word for word in words if word != "--json")).stdout == ""
    assert json.loads(ctl.on_terminal(*words))["code"] == code


def test_violations_are_in_it(ctl: Shell, device: str) -> None:
    schema = '{"fields": [{"name": "n", "type": "number"}]}'
    ctl.json("schema", "set", device, "-", stdin=schema)
    refused = json.loads(ctl("set", f"{device}/j", "-a", device, "n=x", "--json").stdout)
    assert refused["code"] == "schema_violation"
    assert [wrong["path"] for wrong in refused["details"]] == ["/n"]


@pytest.mark.parametrize("word", ["claer", "clera", "unste", "swep", "rm", "delete", "drop", "del"])
def test_what_removes_is_never_proposed(ctl: Shell, word: str) -> None:
    said = ctl(word).stderr
    assert "did you mean" not in said
    assert "bucketctl --help" in said


def test_suggestions(ctl: Shell) -> None:
    for word, meant in (("gte", "get"), ("lits", "list"), ("statsu", "status"), ("ls", "list"),
                        ("subscribe", "watch"), ("hset", "set"), ("exec", "run")):  # fmt: skip
        assert f"did you mean {meant}?" in ctl(word).stderr, word
    for word in ("frobnicate", "xyz", "lister-of-all"):
        assert "did you mean" not in ctl(word).stderr
    assert "did you mean --device?" in ctl("get", "--serial", "x").stderr
    assert "did you mean --quiet?" in ctl("set", "--quite").stderr
    assert "did you mean" not in ctl("clear", "--al").stderr
    names = {command.name for command in every()}
    meant = {words.partition(" -")[0] for words in SYNONYMS.values()} - {"--version"}
    assert not meant & REMOVING
    assert not names & SYNONYMS.keys()
    assert {"--all", "--yes", "--force"} <= RISKY


# --- help


def test_each_command_is_in_a_group(ctl: Shell) -> None:
    text = ctl("--help").stdout
    for group, (title, _) in GROUPS.items():
        assert f"\n{group}: {title}\n" in text
    for command in every():
        assert text.count(f"\n  {command.name} ") == 1
        assert group_of(command) in GROUPS
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("command", every(), ids=lambda command: command.name)
def test_help_fits_a_terminal(command: Command) -> None:
    for text in (help.page(command), help.overview()):
        shown = help.fitted(text, 80)
        examples = shown.partition("\nexamples:")[0].partition("\nexample:")[0]
        assert max(map(len, examples.splitlines())) <= 80
        assert shown.split() == text.split()


def test_help_for_programs(ctl: Shell) -> None:
    whole = ctl.json("--help", "--json")
    assert {row["name"] for row in whole["commands"]} == {command.name for command in every()}
    one = ctl.json("get", "--help", "--json")
    assert one in whole["commands"]
    job = next(option for option in one["options"] if option["name"] == "--job")
    assert (job["short"], job["value"], job["often"]) == ("-j", "J", False)
    assert one["group"] == "use"
    assert whole["exit_status"]["6"] == "precondition failed"


# --- what is said to people


def with_error_terminal(ctl: Shell, line: str) -> tuple[str, str]:
    """Run a line of a shell whose standard error alone is a terminal; return both outputs."""
    ours, theirs = pty.openpty()
    function = f'bucketctl() {{ {CTL[0]} -m {CTL[2]} "$@"; }}\n'
    with subprocess.Popen(
        ["sh", "-c", function + line], env=ctl.environ, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        said = read_terminal(ours)
        assert process.stdout is not None
        out = process.stdout.read().decode()
    os.close(ours)
    return out, said


def test_a_quoted_string_in_a_pipe_is_remarked(ctl: Shell, device: str, tmp_path: Path) -> None:
    place = f"{device}/j"
    ctl.json("set", place, "t=s3cr3t", "n:=1")
    out, said = with_error_terminal(ctl, f'echo "$(bucketctl get {place} t)"')
    assert out == '"s3cr3t"\n'
    assert "-r prints it without them" in said
    for words in ("t -r", "n", f"t > {tmp_path}/file", "t -o json", ""):
        assert with_error_terminal(ctl, f"bucketctl get {place} {words} | cat")[1] == "", words
    assert ctl("get", place, "t").stderr == ""
