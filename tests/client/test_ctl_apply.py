"""bucketctl apply: a directory, a plan, and what comes of it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
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
