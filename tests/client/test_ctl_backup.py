"""bucketctl backup and restore, and what the daemon knows of the last backup."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ctl_shell import Shell
from harness import Daemon, new_daemon, pair

SCHEMA = {"fields": [{"name": "n", "type": "number", "max": 5}]}
TOLERANT = {"fields": [{"name": "text", "type": "string", "secret": True}]}


@pytest.fixture
def full(daemon: Daemon) -> Shell:
    for n in range(3):
        daemon.request("PUT", pair("phone/1", f"job {n}"), {"n": n})
    daemon.request("PATCH", pair("phone/1", "job 1"), {"é": "s3cr3t 😀", "f": 1e-7})
    daemon.request("PUT", "/v1/devices/phone%2F1/bucket", {"shared": [1, None]})
    # One that its schema tolerates, and would not allow today.
    daemon.request("PUT", pair("p", "bad") + "?automation=shop", {"text": 5})
    assert daemon.request("PUT", "/v1/schemas/shop?existing=tolerate", TOLERANT).status == 200
    assert daemon.request("PUT", "/v1/schemas/log%2Fin", SCHEMA).status == 200
    return Shell(daemon)


@pytest.fixture
def empty() -> Iterator[Shell]:
    daemon = new_daemon()
    try:
        yield Shell(daemon.start())
    finally:
        daemon.remove()


def everything(shell: Shell) -> tuple[list[str], list[object]]:
    """All buckets with their metadata, and all schemas."""
    rows = shell.json("schema", "list")
    found = [shell.json("schema", "get", row["automation"], "--json") for row in rows]
    schemas = [{name: v for name, v in schema.items() if name != "path"} for schema in found]
    return sorted(shell("export").stdout.splitlines()), schemas


def test_a_backup_restores_all_to_an_empty_daemon(
    full: Shell, empty: Shell, tmp_path: Path
) -> None:
    made = full.json("backup", str(tmp_path / "new" / "place"))
    path = Path(made.pop("path"))
    size = sum((path / name).stat().st_size for name in ("buckets.ndjson", "schemas.ndjson"))
    assert made == {"buckets": 5, "schemas": 2, "bytes": size, "left_out": 0, "kept": 1}
    assert re.fullmatch(r"\d{8}T\d{6}Z", path.name)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    assert {entry.stat().st_mode & 0o777 for entry in path.iterdir()} == {0o600}
    assert everything(full) != everything(empty)

    before = everything(empty)
    planned = json.loads(empty("restore", str(path), "--dry-run").stdout.splitlines()[-1])
    assert everything(empty) == before
    assert planned == {"created": 5, "changed": 0, "unchanged": 0, "refused": 0, "schemas": 2}
    assert empty.json("restore", str(path), "--yes") == planned
    assert everything(empty) == everything(full)
    again = empty.json("restore", str(path), "--yes")
    assert again == {"created": 0, "changed": 0, "unchanged": 5, "refused": 0, "schemas": 0}


def test_a_restore_leaves_what_is_not_in_the_backup(full: Shell, tmp_path: Path) -> None:
    path = full.json("backup", str(tmp_path))["path"]
    full.json("set", "--device", "phone/1", "--job", "job 0", "n:=9", "later:=true")
    full.json("set", "--device", "other", "--job", "j", "n:=9")
    done = full("restore", path)  # nobody is there to be asked
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert full.json("get", "--device", "phone/1", "--job", "job 0")["n"] == 9
    told = full.json("restore", path, "--yes")
    assert (told["changed"], told["unchanged"]) == (1, 4)
    assert full.json("get", "--device", "phone/1", "--job", "job 0") == {"n": 0}
    assert full.json("get", "--device", "other", "--job", "j") == {"n": 9}
    # Revisions only grow, so nobody takes the restored state for one that was there before.
    assert full.json("get", "--device", "phone/1", "--job", "job 0", "--json")["revision"] == 3


@pytest.mark.parametrize("name", ["buckets.ndjson", "schemas.ndjson", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_a_damaged_backup_restores_nothing(
    full: Shell, empty: Shell, tmp_path: Path, name: str, damage: str
) -> None:
    path = Path(full.json("backup", str(tmp_path))["path"])
    text = (path / name).read_bytes()
    if damage == "gone":
        (path / name).unlink()
    else:
        (path / name).write_bytes(text[:-9] if damage == "cut" else text[:9] + b"\xff" + text[10:])
    done = empty("restore", str(path), "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cannot restore {path}: " in done.stderr
    assert empty.json("list") == []


def test_only_the_newest_are_kept(full: Shell, tmp_path: Path) -> None:
    for name in ("20200101T000000Z", "20210101T000000Z", "notes", ".20220101T000000Z.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "20230101T000000Z.txt").write_text("mine")
    made = full.json("backup", str(tmp_path), "--keep", "2")
    assert made["kept"] == 2
    assert {p.name for p in tmp_path.iterdir()} == {
        *("20210101T000000Z", "notes", "20230101T000000Z.txt", Path(made["path"]).name)
    }
    for text in ("0", "-1", "two"):
        done = full("backup", str(tmp_path), "--keep", text)
        assert (done.returncode, "whole number over 0" in done.stderr) == (2, True)


def test_a_backup_that_fails_leaves_no_trace(stopped_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "20200101T000000Z").mkdir()
    done = Shell(stopped_daemon)("backup", str(tmp_path), "--keep", "1")
    assert done.returncode == 4
    assert [p.name for p in tmp_path.iterdir()] == ["20200101T000000Z"]


def test_what_cannot_be_read_is_named_and_the_rest_backed_up(
    full: Shell, empty: Shell, tmp_path: Path
) -> None:
    daemon = full.daemon
    assert daemon.stop() == 0
    for log in (daemon.state_dir / "journal").iterdir():
        log.unlink()
    daemon.bucket_path("p", "bad").write_text("{")
    daemon.start()
    done = full("backup", str(tmp_path))
    assert (done.returncode, "left out" in done.stderr) == (1, True)
    made = json.loads(done.stdout)
    assert (made["buckets"], made["left_out"]) == (4, 1)
    assert empty.json("restore", made["path"], "--yes")["created"] == 4


# --- what the daemon knows


def test_the_daemon_knows_the_last_backup_also_after_a_restart(full: Shell, tmp_path: Path) -> None:
    daemon = full.daemon
    assert daemon.request("GET", "/v1/status").json["backup"] is None
    assert "bucketd_last_backup" not in daemon.request("GET", "/metrics").body.decode()
    before = time.time() - 0.001
    made = full.json("backup", str(tmp_path))
    for _ in range(2):
        told = daemon.request("GET", "/v1/status").json["backup"]
        assert {**told, "at": ""} == {"at": "", **{n: made[n] for n in told if n != "at"}}
        text = daemon.request("GET", "/metrics").body.decode()
        (figure,) = re.findall(r"^bucketd_last_backup_timestamp_seconds (\S+)", text, flags=re.M)
        assert before <= float(figure) <= time.time()
        daemon.restart()


def finding(shell: Shell) -> list[tuple[str, str]]:
    rows = json.loads(shell("doctor").stdout)["findings"]
    return [(row["level"], row["what"]) for row in rows if row["about"] == "backup"]


def test_doctor_warns_of_an_old_backup(full: Shell, tmp_path: Path) -> None:
    assert finding(full) == []  # no service of this host, whose timer could be enabled
    full.json("backup", str(tmp_path))
    ((level, what),) = finding(full)
    assert (level, "5 buckets" in what) == ("ok", True)
    assert re.search(r"5 buckets of .+, backed up \d s ago", full.on_terminal("status"))
    daemon = full.daemon
    assert daemon.stop() == 0
    place = daemon.state_dir / "backup.json"
    old = datetime.now(UTC) - timedelta(days=3)
    place.write_text(json.dumps({**json.loads(place.read_text()), "at": old.isoformat()}))
    daemon.start()
    ((level, what),) = finding(full)
    assert (level, "3 d ago" in what) == ("warning", True)


@pytest.mark.parametrize("text", ["{", "[]", '{"at": 1}', "null"])
def test_a_record_that_cannot_be_read_is_as_none(stopped_daemon: Daemon, text: str) -> None:
    stopped_daemon.state_dir.mkdir()
    os.chmod(stopped_daemon.state_dir, 0o700)
    (stopped_daemon.state_dir / "backup.json").write_text(text)
    stopped_daemon.start()
    assert stopped_daemon.request("GET", "/v1/status").json["backup"] is None
    assert "so the last backup is unknown" in stopped_daemon.log


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"buckets": 1, "schemas": 1}, {"buckets": -1, "schemas": 0, "bytes": 0}),
        *({"buckets": True, "schemas": 0, "bytes": 0}, {"buckets": 1.5, "schemas": 0, "bytes": 0}),
        {"buckets": 1, "schemas": 0, "bytes": 0, "more": 1},
        {"buckets": 1, "schemas": 0, "bytes": 0, "at": "2020-01-01T00:00:00Z"},
    ],
)
def test_a_record_is_of_counts(shared_daemon: Daemon, body: object) -> None:
    before = shared_daemon.request("GET", "/v1/status").json["backup"]
    assert shared_daemon.request("PUT", "/v1/backup", body).json["code"] == "invalid_request"
    assert shared_daemon.request("GET", "/v1/status").json["backup"] == before
