"""bucketctl apply: a directory, a plan, and what comes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from bucketd_client.testing import Server
from ctl_shell import CTL, Shell, read_terminal, session_leader
from harness import Daemon

SCHEMA = {"fields": [{"name": "n", "type": "number", "max": 9}]}
LOGIN = {"device": "phone-1", "job": "login", "automation": "log/in", "bucket": {"n": 1}}
SHARED = {"device": "phone-1", "job": None, "bucket": {"a": {"b": [1]}}}


@pytest.fixture
def ctl(daemon: Daemon) -> Shell:
    return Shell(daemon)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "log%2Fin.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "buckets" / "deeper").mkdir(parents=True)
    (tmp_path / "buckets" / "deeper" / "login.json").write_text(json.dumps(LOGIN, indent=2))
    (tmp_path / "buckets" / "shared.ndjson").write_text(json.dumps(SHARED) + "\n")
    return tmp_path


def plan(ctl: Shell, fleet: Path, *words: str, status: int = 0) -> dict[str, Any]:
    done = ctl("apply", "-f", str(fleet), *words)
    assert done.returncode == status, done
    steps = json.loads(done.stdout)["plan"]
    return {step["name"]: (step["kind"], step["change"], step["places"]) for step in steps}


def test_apply_brings_about_what_the_plan_said(ctl: Shell, fleet: Path) -> None:
    expected = {
        "log/in": ("schema", "created", []),
        "phone-1, login": ("bucket", "created", ["/n"]),
        "phone-1 (device)": ("bucket", "created", ["/a"]),
    }
    assert plan(ctl, fleet, "--dry-run") == expected
    assert ctl.json("list") == []
    refused = ctl("apply", "-f", str(fleet))
    assert (refused.returncode, ctl.json("list")) == (2, [])
    assert plan(ctl, fleet, "--yes") == expected
    assert ctl.json("get", "--device", "phone-1") == SHARED["bucket"]
    assert ctl("set", "--device", "phone-1", "--job", "login", "n:=10").returncode == 5
    again = plan(ctl, fleet, "--file", str(fleet), "--yes")
    assert {change for _, change, _ in again.values()} == {"unchanged"}


def test_the_plan_as_json_on_a_terminal(ctl: Shell, fleet: Path) -> None:
    seen = ctl.on_terminal("apply", "-f", str(fleet), "--dry-run", "--json")
    assert len(json.loads(seen)["plan"]) == 3


def test_what_is_not_named_stays(ctl: Shell, fleet: Path) -> None:
    plan(ctl, fleet, "--yes")
    ctl.json("set", "--device", "phone-1", "--job", "login", "token=t", "n:=5")
    assert plan(ctl, fleet, "--yes")["phone-1, login"] == ("bucket", "changed", ["/n"])
    assert ctl.json("get", "--device", "phone-1", "--job", "login") == {"n": 1, "token": "t"}


def test_the_plan_tells_what_a_schema_of_the_directory_would_refuse(
    ctl: Shell, fleet: Path
) -> None:
    place = fleet / "buckets" / "deeper" / "login.json"
    place.write_text(json.dumps({**LOGIN, "bucket": {"n": 4711}}))
    expected = ["by the schema of 'log/in', /n must be at most 9, got a number"]
    for words in (["--dry-run"], ["--yes"]):
        done = ctl("apply", "-f", str(fleet), *words)
        steps = {step["name"]: step for step in json.loads(done.stdout)["plan"]}
        assert steps["phone-1, login"]["refused"] == expected
        assert steps["phone-1 (device)"]["refused"] == []
        assert (done.returncode, "1 change would be refused" in done.stderr) == (5, True)
        assert "4711" not in done.stdout + done.stderr
        assert (ctl.json("list"), ctl.json("schema", "list")) == ([], [])
    seen = ctl.on_terminal("apply", "-f", str(fleet), env={"NO_COLOR": "1"})
    assert f"+ bucket phone-1, login: /n\n  would be refused: {expected[0]}\n" in seen
    assert "[y/N]" not in seen


def test_the_plan_tells_what_the_schema_in_force_would_refuse(ctl: Shell, fleet: Path) -> None:
    """Of the bucket as it would be, and by the automation that it is bound to."""
    plan(ctl, fleet, "--yes")
    place = fleet / "buckets" / "deeper" / "login.json"
    bucket = {"device": "phone-1", "job": "login", "bucket": {"n": 10, "more": 1}}
    place.write_text(json.dumps(bucket))
    steps = json.loads(ctl("apply", "-f", str(fleet), "--dry-run").stdout)["plan"]
    assert [len(step["refused"]) for step in steps] == [0, 0, 1]  # in the order of the files
    # The keys that are stored count as well.
    needs = {"required": ["n", "more"]}
    (fleet / "schemas" / "log%2Fin.json").write_text(json.dumps(needs))
    place.write_text(json.dumps({**bucket, "bucket": {"more": 1}}))
    done = ctl("apply", "-f", str(fleet), "--dry-run")
    assert {step["name"]: step["refused"] for step in json.loads(done.stdout)["plan"]} == {
        "log/in": [
            "1 stored bucket would violate it (phone-1, login); fix what bucketctl schema check "
            "shows, or set it with bucketctl schema set --force"
        ],
        "phone-1 (device)": [],
        "phone-1, login": [],
    }
    place.write_text(json.dumps(bucket))
    # The schema on its way counts, and not the one that it takes the place of.
    wider = {"fields": [{"name": "n", "type": "number", "max": 10}]}
    (fleet / "schemas" / "log%2Fin.json").write_text(json.dumps(wider))
    assert plan(ctl, fleet, "--yes")["phone-1, login"] == ("bucket", "changed", ["/n", "/more"])
    assert {change for _, change, _ in plan(ctl, fleet, "--yes").values()} == {"unchanged"}


def test_the_plan_says_what_was_not_checked(ctl: Shell, fleet: Path) -> None:
    (fleet / "schemas" / "log%2Fin.json").write_text('{"type": "nope"}')
    seen = ctl.on_terminal("apply", "-f", str(fleet), "--dry-run")
    assert "  not checked by the schema of 'log/in': cannot use the schema: " in seen
    steps = json.loads(ctl("apply", "-f", str(fleet), "--dry-run").stdout)["plan"]
    assert [step["unchecked"] is not None for step in steps] == [False, False, True]
    assert [len(step["refused"]) for step in steps] == [1, 0, 0]


def test_the_plan_tells_which_stored_buckets_a_schema_would_refuse(ctl: Shell, fleet: Path) -> None:
    plan(ctl, fleet, "--yes")
    for number in range(4):
        words = ("--device", f"phone-{number}", "--job", "other", "--automation", "log/in", "n:=4")
        ctl.json("set", *words)
    narrower = {"fields": [{"name": "n", "type": "number", "max": 3}]}
    (fleet / "schemas" / "log%2Fin.json").write_text(json.dumps(narrower))
    done = ctl("apply", "-f", str(fleet), "--yes")
    (refused,) = json.loads(done.stdout)["plan"][0]["refused"]
    named = "(phone-0, other; phone-1, other; phone-2, other; …)"
    assert refused.startswith(f"4 stored buckets would violate it {named}; ")
    assert (done.returncode, "1 change would be refused" in done.stderr) == (5, True)
    assert ctl.json("schema", "get", "log/in") != narrower


def test_a_daemon_that_cannot_check_is_told(ctl: Shell, fleet: Path) -> None:
    """That for tests knows no schemas; so it was with daemons before there was such a route."""
    shutil.rmtree(fleet / "schemas")
    with Server(in_memory=True) as server:
        done = ctl("apply", "-f", str(fleet), "--yes", "--socket", server.socket)
    steps = json.loads(done.stdout)["plan"]
    assert [step["unchecked"] for step in steps] == [
        None,
        "not checked by the schema of 'log/in': this daemon is too old for that; upgrade it",
    ]
    assert (done.returncode, done.stderr) == (0, "bucketctl: 2 changes made\n")


def test_a_person_sees_the_plan_and_is_asked(ctl: Shell, fleet: Path) -> None:
    env = {**ctl.environ, "TERM": "xterm", "NO_COLOR": ""}
    ours, process = session_leader([*CTL, "apply", "-f", str(fleet)], env)
    seen = read_terminal(ours, until="[y/N]")
    assert "\x1b[32m+ schema log/in\x1b[0m\n" in seen
    assert "make 3 changes?" in seen
    ctl.json("set", "--device", "phone-1", "--job", "login", "n:=7")  # meanwhile
    os.write(ours, b"y\n")
    assert re.search(r"\b2 of 3 changes made, then:\n.* it exists already", read_terminal(ours))
    os.close(ours)
    assert process.wait(10) == 6
    assert ctl.json("get", "--device", "phone-1", "--job", "login") == {"n": 7}


def test_what_cannot_be_applied_changes_nothing(ctl: Shell, fleet: Path) -> None:
    assert ctl("apply").returncode == 2
    assert ctl("apply", "-f", str(fleet / "none"), "--yes").returncode == 2
    assert ctl("apply", "-f", str(fleet / "buckets"), "--yes").returncode == 2
    twice = fleet / "buckets" / "twice.json"
    twice.write_text(json.dumps(LOGIN))
    done = ctl("apply", "-f", str(fleet), "--yes")
    assert (done.returncode, "the same bucket" in done.stderr) == (2, True)
    twice.write_text('{"device": "x"}')
    done = ctl("apply", "-f", str(fleet), "--yes")
    assert (done.returncode, "twice.json" in done.stderr) == (2, True)
    assert (ctl.json("list"), ctl.json("schema", "list")) == ([], [])


def test_another_automation_is_bound_by_apply_and_by_import(ctl: Shell, fleet: Path) -> None:
    plan(ctl, fleet, "--yes")
    place = fleet / "buckets" / "deeper" / "login.json"
    for automation, words in (("two", ["apply", "-f", str(fleet), "--yes"]), ("three", ["import"])):
        text = json.dumps({**LOGIN, "automation": automation})
        place.write_text(text)
        expected = ("bucket", "changed", ["(automation)"])
        assert plan(ctl, fleet, "--dry-run")["phone-1, login"] == expected
        would = ctl("import", "--dry-run", stdin=text).stdout.splitlines()
        assert json.loads(would[0])["places"] == ["(automation)"]
        assert ctl(*words, stdin=text).returncode == 0
        row = ctl.json("list", "--job", "login")[0]
        assert (row["automation"], row["revision"]) == (automation, 2 + (automation == "three"))
        assert json.loads(ctl("import", stdin=text).stdout)["unchanged"] == 1
        assert plan(ctl, fleet, "--dry-run")["phone-1, login"] == ("bucket", "unchanged", [])
