"""``bucketctl trash``, and the ways of deleting that fill it or go past it."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from ctl_shell import Shell
from harness import Daemon, pair


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).translate({ord("["): "-", ord("]"): None})


def trash(ctl: Shell, device: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ctl.json("trash", "list", "--device", device)
    return rows


def put(ctl: Shell, device: str, *jobs: str | None) -> None:
    for job in jobs:
        ctl.daemon.request("PUT", pair(device, job), {"password": "hunter2"})


def test_one_command_brings_back_what_was_cleared_by_mistake(ctl: Shell, device: str) -> None:
    put(ctl, device, "login")
    told = ctl.on_terminal("clear", f"{device}/login")
    line = next(line for line in told.splitlines() if "to bring it back" in line)
    command = line.partition("bucketctl trash")[2].split()
    told = ctl.on_terminal("trash", *command)
    assert "restored, revision 2" in told
    assert "hunter2" not in told
    assert ctl.json("get", "--device", device, "--job", "login") == {"password": "hunter2"}


def test_a_script_reads_the_id_from_the_answer_and_no_new_line(ctl: Shell, device: str) -> None:
    put(ctl, device, "login")
    done = ctl("clear", f"{device}/login", "--json")
    assert done.stderr == ""
    trash_id = json.loads(done.stdout)["trash"]
    assert ctl.json("trash", "restore", trash_id) == {"password": "hunter2"}
    assert ctl("clear", f"{device}/login", "--quiet").stdout == ""


def test_the_table_is_for_people_and_shows_no_value(ctl: Shell, device: str) -> None:
    put(ctl, device, "login", None)
    ctl("clear", "--all", "--device", device, "--yes")
    table = ctl.on_terminal("trash", "list", "--device", device)
    head, *rows = [line for line in table.splitlines() if line.strip()]
    assert head.split() == ["ID", "DEVICE", "JOB", "SIZE", "DELETED", "EXPIRES", "BY"]
    assert sorted(row.split()[2] for row in rows) == ["(device)", "login"]
    assert all("root" in row or "in 29 days" in row for row in rows)
    assert "hunter2" not in table
    answer = ctl.json("trash", "list", "--device", device, "--json")
    assert [row["id"] for row in answer["trash"]] == [row["id"] for row in trash(ctl, device)]
    assert len(ctl.json("trash", "list", "--device", f"{device[:-1]}?", "--limit", "1")) == 1


def test_an_empty_trash_is_told(ctl: Shell, device: str) -> None:
    assert "the trash is empty" in ctl.on_terminal("trash", "list", "--device", device)
    assert trash(ctl, device) == []


@pytest.mark.parametrize("no_trash", [False, True])
def test_every_way_of_deleting(ctl: Shell, device: str, no_trash: bool) -> None:
    more = ["--no-trash"] if no_trash else []
    put(ctl, device, "a")
    assert ctl("clear", f"{device}/a", *more).returncode == 0
    put(ctl, device, "b")
    assert ctl("clear", "--all", "--device", device, "--yes", *more).returncode == 0
    put(ctl, device, "c", None)
    assert ctl("device", "forget", device, "--yes", *more).returncode == 0
    rows = [] if no_trash else [None, "a", "b", "c"]
    assert sorted((row["job"] for row in trash(ctl, device)), key=str) == sorted(rows, key=str)


def test_sweep_goes_into_the_trash(ctl: Shell, device: str) -> None:
    for no_trash in (False, True):
        put(ctl, device, "old")
        path = ctl.daemon.bucket_path(device, "old")
        ctl.daemon.request("GET", "/v1/status")
        envelope = json.loads(path.read_text())
        new = path.with_name("new")
        new.write_text(json.dumps({**envelope, "updated_at": "2020-01-01T00:00:00.000Z"}))
        os.utime(new, (0, 0))
        os.rename(new, path)
        more = ["--no-trash"] if no_trash else []
        swept = ctl.json("sweep", "--days", "30", "--device", device, "--yes", *more)
        assert swept == {"removed": 1}
        assert len(trash(ctl, device)) == 1


def test_a_device_that_is_renamed_leaves_nothing(ctl: Shell, device: str) -> None:
    put(ctl, device, "a", None)
    assert ctl("device", "rename", device, f"{device} new", "--yes").returncode == 0
    assert trash(ctl, device) == []


def test_emptying_one_and_all(ctl: Shell, device: str) -> None:
    put(ctl, device, "a", "b", "c")
    ctl("clear", "--all", "--device", device, "--yes")
    first = trash(ctl, device)[0]["id"]
    assert ctl.json("trash", "empty", first) == {"deleted": 1}
    assert ctl("trash", "empty", first).returncode == 1
    refused = ctl("trash", "empty", "--device", device)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    shown = ctl.json("trash", "empty", "--device", device, "--dry-run")
    assert len(shown) == len(trash(ctl, device)) == 2
    assert ctl.json("trash", "empty", "--device", device, "--yes") == {"deleted": 2}
    assert ctl.json("trash", "empty", "--device", device) == {"deleted": 0}
    assert ctl("trash", "empty", first, "--device", device).returncode == 2


def test_a_bucket_that_stands_is_told(ctl: Shell, device: str) -> None:
    put(ctl, device, "a")
    ctl("clear", f"{device}/a")
    put(ctl, device, "a")
    done = ctl("trash", "restore", trash(ctl, device)[0]["id"])
    assert done.returncode == 1
    assert "a bucket is stored there" in done.stderr


def test_a_token_is_told_that_an_operator_can(ctl: Shell, device: str) -> None:
    env = {"BUCKETD_TOKEN": ctl.daemon.mint(device, "login")}
    ctl("set", "a=1", env=env)
    assert "an operator brings it back: bucketctl trash restore " in ctl.on_terminal(
        "clear", env=env
    )


def test_curl_shows_the_request(ctl: Shell, device: str) -> None:
    put(ctl, device, "a")
    line = ctl("clear", f"{device}/a", "--no-trash", "--curl").stdout
    assert "trash=false" in line
    assert "/v1/trash/x/restore" in ctl("trash", "restore", "x", "--curl").stdout


def test_completion_knows_the_ids(ctl: Shell, device: str) -> None:
    put(ctl, device, "a")
    ctl("clear", f"{device}/a")
    trash_id = trash(ctl, device)[0]["id"]
    for command in ("restore", "empty"):
        words = ctl("completion", "words", "--", "trash", command, "").stdout.split()
        assert trash_id in words
    assert "--no-trash" in ctl("completion", "words", "--", "clear", "--no").stdout.split()


def test_what_cannot_be_read_is_told_and_harms_nothing(ctl: Shell, device: str) -> None:
    put(ctl, device, "a", "b")
    ctl("clear", "--all", "--device", device, "--yes")
    kept, damaged = (row["id"] for row in trash(ctl, device))
    home = ctl.daemon.state_dir / "trash"
    path = home / f"{damaged}.json"
    text = path.read_bytes()
    (home / "foreign.txt").write_text("a note")
    secret = ctl.daemon.home / "secret"
    secret.write_bytes(text)
    try:
        path.write_bytes(text.replace(b"hunter2", b"hunter3"))
        done = ctl("trash", "list", "--device", device)
        assert done.returncode == 1
        assert [row["id"] for row in json.loads(done.stdout)] == [kept]
        assert f"trash/{damaged}.json" in done.stderr
        assert "trash/foreign.txt" in done.stderr
        refused = ctl("trash", "restore", damaged)
        assert (refused.returncode, "is damaged" in refused.stderr) == (1, True)
        path.unlink()
        path.symlink_to(secret)
        assert ctl("trash", "restore", damaged).returncode == 1
        assert ctl("trash", "list", "--device", device).returncode == 1
        time.sleep(0.3)  # counting is done now and then
        doctor = ctl("doctor")
        assert "trash/foreign.txt" in doctor.stdout
        assert f"trash/{damaged}.json" in doctor.stdout
    finally:
        path.unlink()
        (home / "foreign.txt").unlink()
    assert secret.read_bytes() == text
