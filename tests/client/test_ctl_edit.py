"""bucketctl edit, diff and api: against a daemon, with editors that are scripts."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bucketd_client.ctl import json_diff
from ctl_shell import CTL, Shell, read_terminal, session_leader
from harness import Daemon, pair

SCHEMA = {"fields": [{"name": "n", "type": "number", "max": 9}]}


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def at(request: pytest.FixtureRequest) -> list[str]:
    """Options that name a bucket of this test alone."""
    return ["--device", request.node.originalname, "--job", "login"]


def editor(place: Path, *steps: str) -> str:
    """An editor that does the next step each time it is opened; ``text`` is a str to change."""
    script = place / "editor.py"
    script.write_text(
        "import json, os, pathlib, subprocess, sys\n"
        "file, count = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).with_suffix('.count')\n"
        "number = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(number + 1))\n"
        "text = file.read_text()\n"
        "pathlib.Path(__file__).with_suffix('.mode').write_text(oct(file.stat().st_mode))\n"
        f"exec({list(steps)!r}[number])\n"
        "file.write_text(text)\n"
    )
    return f"{sys.executable} '{script}'"


def kept(stderr: str) -> Path:
    found = re.search(r"your text is in (\S+)", stderr)
    assert found, stderr
    return Path(found[1])


def told(stderr: str) -> list[str]:
    """The words of the command that goes on."""
    found = re.search(r"continue with: bucketctl edit (.*)\n", stderr)
    assert found, stderr
    return shlex.split(found[1])


def test_edit_replaces_the_bucket(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    ctl.json("set", *at, "a=1", "b=2")
    env = {"VISUAL": editor(tmp_path, "text = text.replace('1', 'one')"), "TMPDIR": str(tmp_path)}
    assert ctl.json("edit", *at, env=env) == {"a": "one", "b": "2"}
    assert ctl.json("get", *at) == {"a": "one", "b": "2"}
    mode = int((tmp_path / "editor.mode").read_text(), 8)
    assert stat.S_IMODE(mode) == 0o600
    assert list(tmp_path.glob("bucket-*")) == []


def test_edit_without_a_change_writes_nothing(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    before = ctl.json("set", *at, "a=1", "--json")
    env = {"VISUAL": "", "EDITOR": editor(tmp_path, "pass"), "TMPDIR": str(tmp_path)}
    done = ctl("edit", *at, env=env)  # which saves the same text
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "bucketctl: nothing changed\n"
    assert ctl.json("get", *at, "--json")["etag"] == before["etag"]
    assert list(tmp_path.glob("bucket-*")) == []


def test_an_editor_that_returns_at_once_keeps_its_text(
    ctl: Shell, at: list[str], tmp_path: Path
) -> None:
    ctl.json("set", *at, "a=1")
    script, go = tmp_path / "editor.sh", tmp_path / "go"
    os.mkfifo(go)
    save = f'read -r _ < {go}; sed -i s/1/2/ "$1"; echo > {tmp_path}/saved'
    script.write_text(f"#!/bin/sh\n({save}) <&- >&- 2>&- &\n")
    script.chmod(0o755)
    done = ctl("edit", *at, "--json", env={"VISUAL": str(script), "TMPDIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, '{"changed": false}\n')
    assert "EDITOR='code --wait'" in done.stderr
    path, again = kept(done.stderr), told(done.stderr)
    go.write_text("now\n")
    deadline = time.monotonic() + 20
    while not (tmp_path / "saved").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert json.loads(path.read_text()) == {"a": "2"}
    assert ctl.json("edit", *again, env={"VISUAL": "true"}) == {"a": "2"}


def test_a_conflict_shows_no_value(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    ctl.json("set", *at, "a=1")
    words = [*CTL, "set", *at, "token=hunter2", "list:=[1,2]", "yes:=true", "none:=null", "n:=1"]
    step = f"subprocess.run({words!r}, stdout=subprocess.DEVNULL); text = '{{}}'"
    done = ctl("edit", *at, env={"VISUAL": editor(tmp_path, step), "TMPDIR": str(tmp_path)})
    assert "hunter2" not in done.stderr
    for kind in (
        "a string of 7 characters",
        "an array of 2 items",
        "a boolean",
        "null",
        "a number",
    ):
        assert f": {kind}\n" in done.stderr


def test_edit_begins_a_bucket(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    env = {"EDITOR": editor(tmp_path, "text = '{\"n\": 1}'"), "VISUAL": ""}
    assert ctl.json("edit", *at, "--json", env=env)["revision"] == 1


@pytest.mark.parametrize(
    ("step", "status", "said"),
    [
        ("text = '{'", 2, "as JSON"),
        ("text = '[1]'", 2, "JSON object"),
        ("sys.exit(3)", 2, "ended with status 3"),
        ("text = '{\"n\": 10}'", 5, "/n"),
    ],
)
def test_a_refused_text_is_kept(
    ctl: Shell, at: list[str], tmp_path: Path, step: str, status: int, said: str
) -> None:
    ctl("schema", "set", "edited", "-", stdin=json.dumps(SCHEMA))
    ctl.json("replace", *at, "--automation", "edited", "--data", '{"n": 1}')
    env = {"VISUAL": editor(tmp_path, step), "TMPDIR": str(tmp_path)}
    done = ctl("edit", *at, env=env)
    assert done.returncode == status, done
    assert said in done.stderr
    assert ctl.json("get", *at) == {"n": 1}
    path = kept(done.stderr)
    assert f"--from {path}" in done.stderr
    again = {"VISUAL": editor(tmp_path, *["text = '{\"n\": 2}'"] * 2), "TMPDIR": str(tmp_path)}
    assert ctl.json("edit", *at, "--from", str(path), env=again) == {"n": 2}


def meanwhile(ctl: Shell, at: list[str], word: str) -> str:
    """A step of an editor: somebody else sets a key."""
    return f"subprocess.run({[*CTL, 'set', *at, word]!r}, stdout=subprocess.DEVNULL, check=True)"


def test_edit_never_overwrites_what_it_has_not_seen(
    ctl: Shell, at: list[str], tmp_path: Path
) -> None:
    ctl.json("set", *at, "a=1")
    step = meanwhile(ctl, at, "other=new") + '; text = \'{"a": "mine"}\''
    done = ctl("edit", *at, env={"VISUAL": editor(tmp_path, step), "TMPDIR": str(tmp_path)})
    assert done.returncode == 6
    assert "+ /other: a string of 3 characters" in done.stderr
    assert ctl.json("get", *at) == {"a": "1", "other": "new"}
    assert kept(done.stderr).read_text() == '{"a": "mine"}'
    # As it is told, it goes on from what was shown, and no later state.
    again = told(done.stderr)
    ctl.json("set", *at, "later=too")
    changed = ctl("edit", *again, env={"VISUAL": "true", "TMPDIR": str(tmp_path)})
    assert (changed.returncode, "(revision 3)" in changed.stderr) == (6, True)
    ctl.json("replace", *at, "--data", "{}")
    again[-1] = ctl.json("get", *at, "--json")["etag"]
    assert ctl.json("edit", *again, env={"VISUAL": "true"}) == {"a": "mine"}


@pytest.mark.parametrize("more", [["--job", "it's"], ["--job", "a b", "--automation", "x"], []])
def test_how_to_go_on_can_be_pasted(
    ctl: Shell, at: list[str], tmp_path: Path, more: list[str]
) -> None:
    words = [*at[:2], *more, "--socket", ctl.daemon.socket]
    env = {"VISUAL": editor(tmp_path, "text = '{'"), "TMPDIR": str(tmp_path)}
    done = ctl("edit", *words, env=env)
    again = {"VISUAL": editor(tmp_path, *["text = '{\"n\": 2}'"] * 2), "BUCKETD_SOCKET": "/nope"}
    assert ctl.json("edit", *told(done.stderr), env=again) == {"n": 2}
    assert ctl.json("get", *words) == {"n": 2}


def test_after_a_conflict_a_person_goes_on(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    ctl.json("set", *at, "a=1")
    first = meanwhile(ctl, at, "other=new") + '; text = \'{"a": "mine"}\''
    second = 'assert \'mine\' in text; text = \'{"a": "mine", "other": "new"}\''
    env = {"VISUAL": editor(tmp_path, first, second), "TMPDIR": str(tmp_path)}
    ours, process = session_leader([*CTL, "edit", *at], {**ctl.environ, **env, "TERM": "xterm"})
    said = read_terminal(ours, until="edit again?")
    assert '\n  + /other: "new"\n' in said
    os.write(ours, b"y\n")
    rest = read_terminal(ours)
    os.close(ours)
    assert process.wait(10) == 0, said + rest
    assert ctl.json("get", *at) == {"a": "mine", "other": "new"}
    assert '\x1b[32m+ /a: "mine"' in rest


CAUGHT = "caught = []; signal.signal(signal.SIGINT, lambda *_: caught.append(1))"
SLOW = "file.write_text('{\"n\": 7}'); print('open', flush=True); time.sleep(1)"


@pytest.mark.parametrize(
    ("steps", "until"),
    [
        (["text = '{\"n\": 7, '"], "edit again?"),
        ([f"import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); {SLOW}"], "open"),
    ],
)
def test_ctrl_c_keeps_the_text_and_says_where(
    ctl: Shell, at: list[str], tmp_path: Path, steps: list[str], until: str
) -> None:
    """At the question; and in an editor that it ends."""
    env = {"VISUAL": editor(tmp_path, *steps), "TMPDIR": str(tmp_path), "TERM": "xterm"}
    ours, process = session_leader([*CTL, "edit", *at], {**ctl.environ, **env})
    read_terminal(ours, until=until)
    os.write(ours, b"\x03")
    rest = read_terminal(ours)
    os.close(ours)
    assert process.wait(10) == 130, rest
    assert kept(rest).read_text().startswith('{"n": 7')
    assert "Traceback" not in rest
    assert ctl.json("get", *at) == {}


def test_ctrl_c_in_an_editor_is_the_editors(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    """One that goes on, as vi does, is not taken away from under a person's hands."""
    step = f"import signal, time; {CAUGHT}; {SLOW}; text = json.dumps({{'n': len(caught)}})"
    env = {"VISUAL": editor(tmp_path, step), "TMPDIR": str(tmp_path), "TERM": "xterm"}
    ours, process = session_leader([*CTL, "edit", *at], {**ctl.environ, **env})
    read_terminal(ours, until="open")
    os.write(ours, b"\x03")
    rest = read_terminal(ours)
    os.close(ours)
    assert process.wait(10) == 0, rest
    assert ctl.json("get", *at) == {"n": 1}


@pytest.mark.parametrize("editor", ["/nope/ed", "ed 'x"])
def test_an_editor_that_is_not_there(
    ctl: Shell, at: list[str], tmp_path: Path, editor: str
) -> None:
    done = ctl("edit", *at, env={"VISUAL": editor, "TMPDIR": str(tmp_path)})
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "set VISUAL or EDITOR" in done.stderr


def test_diff_with_a_file_and_with_a_bucket(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    one = {"same": 1, "n": {"x": 1, "y/z": [1]}, "gone": None}
    other = {"same": 1, "n": {"x": True, "y/z": [1, 2]}, "new": "ä"}
    ctl.json("replace", *at, "--data", json.dumps(one))
    file = tmp_path / "other.json"
    file.write_text(json.dumps(other))
    done = ctl("diff", *at, str(file))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        *("- /n/x: 1", "+ /n/x: true", "- /n/y~1z: [1]", "+ /n/y~1z: [1, 2]"),
        *("- /gone: null", '+ /new: "ä"'),
    ]
    assert ctl("diff", *at, str(file), "--exit-code").returncode == 1
    ctl.json("replace", *at[:3], "other", "--data", json.dumps(one))
    assert ctl.json("diff", *at, "--to-job", "other", "--json") == {"equal": True, "changes": []}
    assert ctl("diff", *at, "--to-job", "other", "--exit-code").returncode == 0
    assert ctl.json("diff", *at, "-", "--json", stdin=json.dumps({**one, "gone": 0})) == {
        "equal": False,
        "changes": [{"path": "/gone", "before": None, "after": 0}],
    }


def test_diff_takes_a_bucket_file(ctl: Shell, at: list[str]) -> None:
    ctl.json("set", *at, "a=1")
    files = ctl.daemon.state_dir / "devices" / at[1] / "jobs" / "login.json"
    ctl.json("list")  # which waits for the files
    assert ctl.json("diff", *at, str(files), "--json")["equal"] is True


def test_colours_are_for_terminals_that_want_them(ctl: Shell, at: list[str]) -> None:
    ctl.json("set", *at, "a=1")
    words = ["diff", *at, "--to-job", "none"]
    red = '\x1b[31m- /a: "1"\x1b[0m'
    assert red in ctl.on_terminal(*words, env={"TERM": "xterm", "NO_COLOR": ""})
    assert "\x1b" not in ctl.on_terminal(*words, env={"TERM": "xterm", "NO_COLOR": "1"})
    assert "\x1b" not in ctl.on_terminal(*words, env={"TERM": "dumb"})
    assert "\x1b" not in ctl(*words, env={"TERM": "xterm"}).stdout


def test_api_sends_and_prints_what_it_gets(ctl: Shell, at: list[str]) -> None:
    path = pair(at[1], at[3])
    assert ctl.json("api", "patch", path, "a=1", "n:=[2]")["bucket"] == {"a": "1", "n": [2]}
    assert ctl.json("api", "PUT", path, "--data", '{"b": 1}')["bucket"] == {"b": 1}
    assert ctl.json("api", "PATCH", path, "-", stdin='{"c": 1}')["bucket"] == {"b": 1, "c": 1}
    merge = ["--header", "Content-Type: application/merge-patch+json", "--header", "If-Match: *"]
    assert ctl.json("api", "PATCH", path, *merge, "--data", '{"b": null}')["bucket"] == {"c": 1}
    shown = ctl("api", "GET", path, "--include").stdout
    assert shown.startswith("HTTP/1.1 200 OK\n")
    assert "\nETag: " in shown
    head = ctl("api", "HEAD", path, "--include").stdout
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert "bucket" not in head.partition("Server")[2].partition("\n")[2]


def test_api_tells_refusals_by_exit_status_and_body(ctl: Shell, at: list[str]) -> None:
    done = ctl("api", "DELETE", pair(at[1], at[3]), "--header", 'If-Match: "none"')
    assert (done.returncode, json.loads(done.stdout)["code"]) == (6, "precondition_failed")
    assert ctl("api", "GET", "/v1/nothing").returncode == 1
    assert ctl("api", "FETCH", "/v1/status").returncode == 2
    assert ctl("api", "GET", "v1/status").returncode == 2
    assert ctl("api", "GET", "/v1/status", "--header", "nonsense").returncode == 2


def test_api_inside_a_context_has_its_token(ctl: Shell, at: list[str]) -> None:
    ctl.json("set", *at, "a=1")
    token = ctl.json("context", "create", *at)["token"]
    env = {"BUCKETD_TOKEN": token}
    assert ctl.json("api", "GET", "/v1/bucket?key=a", env=env)["bucket"] == {"a": "1"}
    assert ctl.json("api", "GET", "/v1/status", env=env)["success"] is True
    assert ctl("api", "GET", "/v1/bucket").returncode == 3
    line = ctl("api", "PATCH", "/v1/bucket", "a=2", "--curl", env=env).stdout
    assert token not in line
    assert json.loads(ctl.line(line, env=env).stdout)["bucket"] == {"a": "2"}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (10**20, 1e20, True),
        (-(10**20), -1e20, True),
        (10**20, 10**20 + 1, False),
        (2**64, float(2**64), True),
        (2**63, float(2**63), False),
        (1, 1.0, False),
        (1, True, False),
        (True, 10**20, False),
        ({"n": [10**20]}, {"n": [1e20]}, True),
    ],
)
def test_numbers_that_are_kept_as_doubles_are_equal(one: Any, other: Any, equal: bool) -> None:
    """An integer too large for 64 bits may come back with an exponent; that is no change."""
    assert json_diff.same(one, other) is equal
    assert json_diff.same(other, one) is equal
