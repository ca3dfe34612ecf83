"""bucketctl history, undo, diff @REVISION, get --revision and export --history."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from ctl_shell import Shell
from harness import Daemon

SCHEMA = '{"fields": [{"name": "token", "type": "string", "secret": true}]}'


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def place(request: pytest.FixtureRequest, ctl: Shell) -> str:
    """A bucket of this test alone, with three changes."""
    place = f"phone-{zlib.crc32(request.node.name.encode())}/login"
    ctl.json("set", place, "user=ada", "n:=1")
    run = {"BUCKETD_TOKEN": token_of_run(ctl, place)}
    ctl.json("set", "n:=2", "x y=z", env=run)
    ctl.json("unset", place, "user")
    return place


def token_of_run(ctl: Shell, place: str) -> str:
    token: str = ctl.json("context", "create", place, "--label", "nightly-42")["token"]
    return token


def test_history_tells_who_changed_which_keys(ctl: Shell, place: str) -> None:
    rows = ctl.json("history", place)
    assert [row["revision"] for row in rows] == [3, 2, 1]
    assert [row["set"] for row in rows] == [[], ["n", "x y"], ["user", "n"]]
    assert rows[0]["removed"] == ["user"]
    assert rows[1]["by"]["run"] == "nightly-42"
    assert "before" not in rows[0]
    whole = ctl.json("history", place, "--json", "--values")
    assert whole["success"] is True
    assert whole["next_cursor"] is None
    assert [row["before"] for row in whole["history"]] == [{"user": "ada"}, {"n": 1}, {}]
    assert len(ctl.json("history", place, "--limit", "2")) == 2
    assert ctl("history", place, "--limit", "0").returncode == 2
    lines = ctl("history", place, "-o", "tsv").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["3", "2", "1"]
    assert lines[1].split("\t")[3:] == ["nightly-42", '["n", "x y"]', "", ""]
    assert ctl.json("history", "nobody/nothing") == []


def test_history_on_a_terminal(ctl: Shell, place: str) -> None:
    head, *rows = ctl.on_terminal("history", place).splitlines()
    assert head.split() == ["REVISION", "AT", "BY", "RUN", "SET", "REMOVED", "UNDOES"]
    assert "nightly-42  n, x y" in rows[1]
    assert ctl.on_terminal("history", "nobody/nothing") == "no changes are known\n"
    shown = ctl.on_terminal("history", place, "--values").splitlines()
    assert [line for line in shown if not line.startswith("revision")] == [
        '- /user: "ada"',
        *("- /n: 1", "+ /n: 2", '+ /x y: "z"'),
        *('+ /user: "ada"', "+ /n: 1"),
    ]
    assert shown[0].startswith("revision 3, ")
    assert shown[2].endswith(", run nightly-42")


def test_undo_of_the_last_and_of_an_earlier_change(ctl: Shell, place: str) -> None:
    assert ctl.json("undo", place) == {"n": 2, "x y": "z", "user": "ada"}
    whole = ctl.json("undo", place, "2", "--json")
    assert (whole["bucket"], whole["undone"], whole["revision"]) == ({"user": "ada", "n": 1}, 2, 5)
    # An undo can be undone, and revisions may be written as in diff.
    assert ctl.json("undo", place, "@5") == {"user": "ada", "n": 2, "x y": "z"}
    assert [row.get("undoes") for row in ctl.json("history", place)][:3] == [5, 2, 3]
    assert ctl("undo", place, "-q").stdout == ""
    said = ctl.on_terminal("undo", place)
    where = place.replace("/", ", ")
    assert said.endswith(f"revision 7 is taken back; bucket of {where}, revision 8\n")


def test_undo_is_refused(ctl: Shell, place: str) -> None:
    before = ctl.json("get", place)
    refused = ctl("undo", place, "1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert sorted(refused.stderr.splitlines()[1:]) == [
        "  /n was changed by revision 2",
        "  /user was changed by revision 3",
    ]
    refusal = json.loads(ctl("undo", place, "1", "--json").stdout)
    assert refusal["code"] == "undo_conflict"
    assert {"key": "n", "revision": 2} in refusal["details"]
    for words, status in (
        ((place, "77"), 1),
        ((place, "x"), 2),
        ((place, "0"), 2),
        ((place, "1", "2"), 2),
        ((place, "--if-match", '"no"'), 6),
        (("nobody/nothing",), 1),
    ):
        assert ctl("undo", *words).returncode == status, words
    assert ctl.json("get", place) == before


def test_undo_in_a_job_context(ctl: Shell, place: str) -> None:
    token = {"BUCKETD_TOKEN": token_of_run(ctl, place)}
    ctl.json("set", "n:=3", env=token)
    assert ctl.json("undo", env=token)["n"] == 2
    assert ctl.json("history", "--limit", "1", env=token)[0]["undoes"] == 4
    assert ctl.json("diff", "@1", "@2", "--json", env=token)["equal"] is False
    curl = ctl("undo", "2", "--curl", env=token).stdout
    assert "/v1/bucket/undo" in curl


def test_a_cleared_bucket_comes_back(ctl: Shell, place: str) -> None:
    before = ctl.json("get", place)
    ctl.json("clear", place)
    whole = ctl.json("undo", place, "--json")
    assert whole["bucket"] == before
    assert whole["restored"]
    assert len(ctl.json("history", place)) >= 3


def test_earlier_states(ctl: Shell, place: str) -> None:
    assert ctl.json("get", place, "--revision", "1") == {"user": "ada", "n": 1}
    assert ctl.json("get", place, "/n", "--revision", "@1") == 1
    assert ctl.json("get", place, "user", "--revision", "2") == "ada"
    assert ctl("get", place, "user", "--revision", "3").returncode == 1
    assert ctl("get", place, "--revision", "77").returncode == 1
    assert ctl("get", place, "--revision", "one").returncode == 2
    assert ctl("get", place, "--revision", "1", "--defaults").returncode == 1


def test_differences_of_states(ctl: Shell, place: str) -> None:
    assert ctl("diff", place, "@1").stdout.splitlines() == [
        '- /user: "ada"',
        *("- /n: 1", "+ /n: 2", '+ /x y: "z"'),
    ]
    assert ctl("diff", place, "@2", "@1").stdout.splitlines() == [
        *("- /n: 2", "+ /n: 1", '- /x y: "z"'),
    ]
    assert ctl("diff", place, "@3", "--exit-code").returncode == 0
    assert ctl("diff", place, "@1", "--exit-code").returncode == 1
    assert ctl.json("diff", place, "@3", "--json") == {"equal": True, "changes": []}
    for words in (("@1", "file"), ("file", "@1"), ("@1", "--to-device", "d"), ("@0",)):
        assert ctl("diff", place, *words).returncode == 2, words


def test_secrets_are_masked_on_a_terminal(ctl: Shell, place: str) -> None:
    device = place.partition("/")[0]
    ctl.json("schema", "set", device, "-", stdin=SCHEMA)
    ctl.json("set", place, "-a", device, "token=s3cr3t-1")
    ctl.json("set", place, "token=s3cr3t-2")
    commands = (
        ("history", place, "--values"),
        ("diff", place, "@4"),
        ("get", place, "--revision", "4"),
        ("export", "-d", device, "--history"),
    )
    for words in commands:
        shown = ctl.on_terminal(*words)
        assert "s3cr3t" not in shown, words
        assert "••••" in shown, words
        assert "s3cr3t-1" in ctl.on_terminal(*words, "--reveal"), words
        assert "s3cr3t-1" in ctl(*words).stdout, words
    # Both sides of a secret look the same, and the change is shown nevertheless.
    shown = ctl.on_terminal("history", place, "--values", "--limit", "1").splitlines()
    assert shown[1:] == ["- /token: ••••", "+ /token: ••••"]
    said = ctl.on_terminal("undo", place)
    assert "s3cr3t" not in said
    assert ctl.json("get", place, "token") == "s3cr3t-1"


def test_an_export_takes_the_history_along(ctl: Shell, place: str, tmp_path: Path) -> None:
    device = place.partition("/")[0]
    line = ctl.json("export", "-d", device, "--history")
    assert line["bucket"] == ctl.json("get", place)
    assert [entry["before"] for entry in line["history"]] == [{"user": "ada"}, {"n": 1}, {}]
    assert "history" not in ctl.json("export", "-d", device)
    file = tmp_path / "all.ndjson"
    file.write_text(json.dumps(line) + "\n")
    assert ctl.json("import", str(file))["unchanged"] == 1
    assert ctl("export", "--history", "--format", "tar").returncode == 2


def test_an_edit_by_another_program_is_named(daemon: Daemon) -> None:
    ctl = Shell(daemon)
    ctl.json("set", "d/j", "a=1")
    # A clean stop has written the file.
    daemon.restart()
    path = daemon.state_dir / "devices" / "d" / "jobs" / "j.json"
    envelope = json.loads(path.read_text())
    envelope["bucket"]["a"] = 2
    path.with_suffix(".new").write_text(json.dumps(envelope))
    path.with_suffix(".new").rename(path)
    assert ctl.json("get", "d/j") == {"a": 2}
    shown = ctl.on_terminal("history", "d/j").splitlines()
    assert "an edit of the file" in shown[1]
