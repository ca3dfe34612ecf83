"""bucketctl as people and scripts use it: as a process, with and without a terminal."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
from ctl_shell import Shell
from fake import Seen, answer, fake
from harness import Daemon


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def at(request: pytest.FixtureRequest) -> list[str]:
    """Options that name a bucket of this test alone."""
    return ["--device", request.node.name, "--job", "login"]


def test_set_and_get(ctl: Shell, at: list[str]) -> None:
    whole = {"sessionToken": "s t", "loggedIn": True, "a.b": "x=y", "n": {"deep": [1, None]}}
    words = ["sessionToken=s t", "loggedIn:=true", "a.b=x=y", 'n:={"deep":[1,null]}']
    assert ctl.json("set", *at, *words) == whole
    assert ctl.json("get", *at) == whole
    assert ctl("get", *at, "sessionToken").stdout == '"s t"\n'
    assert ctl("get", *at, "sessionToken", "--raw").stdout == "s t\n"
    assert ctl("get", *at, "n", "--raw").stdout == '{"deep": [1, null]}\n'
    assert ctl.json("get", *at, "loggedIn", "n", "none") == {"loggedIn": True, "n": whole["n"]}


def test_the_first_equals_sign_decides(ctl: Shell, at: list[str]) -> None:
    assert ctl.json("set", *at, "a=b:=c", "=empty", "u=ümläut 😀") == {
        "a": "b:=c",
        "": "empty",
        "u": "ümläut 😀",
    }


def test_data_from_option_and_stdin(ctl: Shell, at: list[str]) -> None:
    assert ctl.json("set", *at, "--data", '{"a": 1}') == {"a": 1}
    assert ctl.json("set", *at, "--data", "-", stdin='{"b": null}') == {"a": 1, "b": None}
    assert ctl.json("set", *at, "-", stdin='{"c": 2}')["c"] == 2
    assert ctl.json("replace", *at, "-", stdin='{"z": 1}') == {"z": 1}
    assert ctl.json("replace", *at, "--data={}") == {}


def test_quiet_writes_print_nothing_and_get_no_bucket(ctl: Shell, at: list[str]) -> None:
    for words in (["set", "a=1", "b=2"], ["unset", "a"], ["replace", "--data", '{"c": 3}']):
        assert ctl(words[0], *at, *words[1:], "--quiet").stdout == ""
    assert ctl.json("get", *at) == {"c": 3}
    assert "Prefer: return=minimal" in ctl("set", *at, "d=4", "--quiet", "--curl").stdout
    refused = ctl("set", *at, "d=4", "--quiet", "--json")
    assert (refused.returncode, "--quiet" in refused.stderr) == (2, True)
    assert ctl("set", *at, "d=4", "--quiet", "--if-match", '"x"').returncode == 6
    assert ctl("clear", *at, "--quiet").stdout == ""
    assert ctl.json("get", *at) == {}


def test_unset_and_clear(ctl: Shell, at: list[str]) -> None:
    ctl.json("set", *at, "a=1", "b=2", "c=3")
    assert ctl.json("unset", *at, "a", "b") == {"c": "3"}
    assert ctl.json("clear", *at) == {}
    assert ctl.json("get", *at, "--json") == {"success": True, "bucket": {}, "revision": 0}


def test_json_gives_the_whole_answer_with_its_etag(ctl: Shell, at: list[str]) -> None:
    first = ctl.json("set", *at, "a=1", "--json")
    assert first["success"] is True
    assert (first["bucket"], first["revision"]) == ({"a": "1"}, 1)
    assert ctl.json("set", *at, "a=2", "--if-match", first["etag"]) == {"a": "2"}
    stale = ctl("set", *at, "a=3", "--if-match", first["etag"])
    assert stale.returncode == 6
    assert "has changed since" in stale.stderr
    assert ctl.json("get", *at) == {"a": "2"}


def test_device_bucket(ctl: Shell, at: list[str]) -> None:
    assert ctl.json("set", *at[:2], "shared=1") == {"shared": "1"}
    assert ctl.json("get", *at, "--device-bucket") == {"shared": "1"}
    assert ctl.json("get", *at) == {}


def test_list(ctl: Shell, at: list[str]) -> None:
    for number in range(3):
        ctl.json("set", *at[:2], "--job", f"job {number}", f"n={number}")
    ctl.json("set", *at[:2], "shared=1")
    rows = ctl.json("list", *at[:2])
    assert [row["job"] for row in rows] == [None, "job 0", "job 1", "job 2"]
    assert {"device", "job", "automation", "revision", "size", "updated_at"} <= rows[0].keys()
    assert [r["job"] for r in ctl.json("list", *at[:2], "--job", "job 1")] == ["job 1"]
    assert len(ctl.json("list", *at[:2], "--limit", "2")) == 2
    assert ctl.json("list", "--device", "nobody") == []
    table = ctl.on_terminal("list", *at[:2])
    assert table.splitlines()[0].split() == [
        "DEVICE", "JOB", "AUTOMATION", "REVISION", "SIZE", "UPDATED",
    ]  # fmt: skip
    assert "(device)" in table
    assert "s ago" in table


def test_a_terminal_gets_indented_json(ctl: Shell, at: list[str]) -> None:
    ctl.json("set", *at, "a=1")
    assert ctl.on_terminal("get", *at) == '{\n  "a": "1"\n}\n'


def test_status(ctl: Shell) -> None:
    assert ctl.json("status")["version"]
    shown = ctl.on_terminal("status", "-v")
    assert shown.count("durability") == 1
    assert re.search(r"^  problem +-$", shown, re.M)


def test_contexts(ctl: Shell, at: list[str]) -> None:
    options = ["--automation", "a", "--ttl", "60", "--label", "of the night"]
    made = ctl.json("context", "create", *at, *options)
    row = next(r for r in ctl.json("context", "list") if r["id"] == made["id"])
    assert "token" not in row
    assert (row["automation"], row["label"]) == ("a", "of the night")
    token = {"BUCKETD_TOKEN": made["token"]}
    assert ctl.json("set", "k=v", env=token) == {"k": "v"}
    assert ctl.json("get", env=token) == {"k": "v"}
    assert ctl.json("get", "--device-bucket", env=token) == {}
    shown = ctl.on_terminal("context", "list")
    assert made["id"] in shown
    assert "of the night" in shown
    ctl.json("context", "revoke", made["id"])
    gone = ctl("get", env=token)
    assert gone.returncode == 3
    assert made["token"] not in gone.stderr


def test_names_on_the_command_line_win_over_a_token(ctl: Shell, at: list[str]) -> None:
    token = {"BUCKETD_TOKEN": ctl.daemon.mint("another", "job")}
    ctl.json("set", *at, "mine=1")
    assert ctl.json("get", *at, env=token) == {"mine": "1"}


COMMANDS = [
    "get",
    "get '' b",
    "set a=1 'b:=[2]' --if-match '*'",
    "unset a '& c'",
    'replace --data \'{"a": "\\u00e9"}\'',
    "clear",
]


@pytest.mark.parametrize("kind", ["names", "token", "device"])
@pytest.mark.parametrize("command", COMMANDS)
def test_curl_does_the_same(ctl: Shell, kind: str, command: str) -> None:
    """The printed line in a real shell, and the command itself on an equal bucket."""
    device = f"{kind} {COMMANDS.index(command)} it's"
    answers = []
    for job, line in (("$HOME", 'eval "$(bucketctl {} --curl)"'), ("`b`", "bucketctl {} --json")):
        words = ["--device", device, "--job", job]
        target, env = shlex.join(words if kind == "names" else ["--device", device + job]), {}
        if kind == "token":
            target, env = "", {"BUCKETD_TOKEN": ctl.daemon.mint(device, job)}
        ctl.line(f"bucketctl set a=0 =e '& c=\"' {target}", env=env)
        answers.append(json.loads(ctl.line(line.format(f"{command} {target}"), env=env).stdout))
    printed, called = answers
    assert ("etag" in called) == (command != "clear")
    # Each deletion has an id of its own.
    assert (called.pop("trash", "") > printed.pop("trash", "")) == (command == "clear")
    assert called == {**printed, **({"etag": called["etag"]} if "etag" in called else {})}


@pytest.mark.parametrize("tag", ['"none"', ""])
def test_curl_sends_the_guard(ctl: Shell, at: list[str], tag: str) -> None:
    words = shlex.join(["set", *at, "a=1", "--if-match", tag])
    refused = json.loads(ctl.line(f'eval "$(bucketctl {words} --curl)"').stdout)
    assert ctl.line(f"bucketctl {words}").stderr == f"bucketctl: {refused['error']}\n"


@pytest.mark.parametrize("command", ["status", "list", "list --device d --limit 3", "context list"])
def test_curl_of_operators(ctl: Shell, command: str) -> None:
    printed = json.loads(ctl.line(f'eval "$(bucketctl {command} --curl)"').stdout)
    assert printed.keys() == ctl.json(*command.split(), "--json").keys()


def test_curl_of_an_export_is_its_first_page(ctl: Shell, at: list[str]) -> None:
    ctl.json("set", *at, "a=1")
    printed = json.loads(ctl.line('eval "$(bucketctl export --curl)"').stdout)
    assert [row["bucket"] for row in printed["envelopes"] if row["device"] == at[1]] == [{"a": "1"}]


def test_curl_of_a_pattern_says_that_it_is_left_out(ctl: Shell) -> None:
    for command in ("list", "export"):
        done = ctl(command, "--device", "phone", "--job", "l*", "--curl")
        assert done.stdout.endswith("?device=phone&limit=1000'\n")
        assert "does not match patterns" in done.stderr
        assert ctl(command, "--device", "phone", "--curl").stderr == ""


def test_curl_prints_what_would_be_sent(ctl: Shell, at: list[str]) -> None:
    words = [*at[:2], "--job", "it's $HOME/..", 'q=it\'s "quoted" $HOME `x`\nline']
    line = ctl("set", *words, "--curl").stdout
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    expected = {"q": 'it\'s "quoted" $HOME `x`\nline'}
    assert json.loads(ran.stdout)["bucket"] == expected
    assert ctl.json("get", *at[:2], "--job", "it's $HOME/..") == expected


def test_curl_shows_no_token(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    token = ctl.daemon.mint(at[1], "login")
    path = tmp_path / "token"
    path.write_text(token)
    for environ in ({"BUCKETD_TOKEN": token}, {"BUCKETD_TOKEN_FILE": str(path)}):
        line = ctl("set", "a=1", "--curl", env=environ).stdout
        assert token not in line
        ran = subprocess.run(
            ["sh", "-c", line], env={**ctl.environ, **environ}, capture_output=True, text=True
        )
        assert json.loads(ran.stdout)["bucket"] == {"a": "1"}


def test_list_follows_the_pages(ctl: Shell) -> None:
    row = {"device": "d", "job": None, "automation": None, "revision": 1, "size": 1}
    pages = [
        {"success": True, "buckets": [row, row], "next_cursor": "c2", "unreadable": ["a/b.json"]},
        {"success": True, "buckets": [row], "next_cursor": None},
    ]

    def script(connection: socket.socket, _seen: Seen, number: int) -> bool:
        answer(connection, 200, pages[(number - 1) % 2])
        return True

    with fake(script) as server:
        done = ctl("list", "--device", "d &", "--socket", server.path)
        listed = ctl("list", "--json", "--socket", server.path)
    whole = json.loads(listed.stdout)
    assert json.loads(done.stdout) == [row] * 3
    assert (done.returncode, listed.returncode) == (1, 1)
    assert "a/b.json" in done.stderr
    assert [seen.target for seen in server.seen[:2]] == [
        "/v1/buckets?device=d%20%26&limit=1000",
        "/v1/buckets?device=d%20%26&limit=1000&cursor=c2",
    ]
    assert whole == {**pages[1], "buckets": [row] * 3, "unreadable": ["a/b.json"]}


def test_nothing_of_a_bucket_disturbs_a_terminal(ctl: Shell, at: list[str]) -> None:
    text = "\x1b[31m \x9b31m \u202e \x7f ümläut 😀"
    ctl.json("set", *at, "--data", "-", stdin=json.dumps({"k": text}))
    seen = ctl.on_terminal("get", *at)
    assert json.loads(seen) == {"k": text}
    assert not set(seen) & set("\x1b\x9b\u202e\x7f")
    assert "ümläut 😀" in seen
    assert ctl("get", *at, "k", "--raw").stdout == text + "\n"


def test_columns_stay_aligned_with_wide_names(ctl: Shell, at: list[str]) -> None:
    for job in ("日本😀", "plain", "e\u0301"):
        ctl.json("set", *at[:2], "--job", job, "n=1")
    header, *rows = ctl.on_terminal("list", *at[:2]).splitlines()
    wide = {"日本😀": 3, "plain": 0, "e\u0301": -1}  # columns more than characters
    for row in rows:
        # The device is shown in the first row alone.
        job = row.split()[1 if row.startswith(at[1]) else 0]
        assert row.index(" - ") + wide[job] == header.index("AUTOMATION") - 1


def test_the_locale_changes_nothing(ctl: Shell, at: list[str]) -> None:
    ctl.json("set", *at, "k=ü")
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    assert ctl("get", *at, "k", "--raw", env=env).stdout == "ü\n"
    assert ctl.json("set", *at, "k=ö", "é:=1", env=env) == {"k": "ö", "é": 1}
    assert ctl.json("set", *at, "-", stdin='{"k": "ß"}', env=env)["k"] == "ß"
