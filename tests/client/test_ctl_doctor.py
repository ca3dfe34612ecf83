"""bucketctl doctor: each thing that can be broken here is broken, and found."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from bucketd_client.ctl.doctor import checks, stored_buckets
from bucketd_client.ctl.session import Session
from bucketd_client.ctl.table.daily import Options
from ctl_shell import CTL, Shell
from fake import Seen, answer, fake
from harness import Daemon, pair


def findings(ctl: Shell, status: int, **env: str) -> dict[str, Any]:
    done = ctl("doctor", env=env)
    assert done.returncode == status, done
    return {row["about"]: row for row in json.loads(done.stdout)["findings"]}


def test_all_is_well(daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {})
    found = findings(Shell(daemon), 0)
    fine = ["socket", "daemon", "access", "version", "store", "disk", "schemas", "clock"]
    assert {about: found[about]["level"] for about in fine} == dict.fromkeys(fine, "ok")
    assert all(bool(row["fix"]) == (row["level"] != "ok") for row in found.values())


def test_for_people(daemon: Daemon) -> None:
    seen = Shell(daemon).on_terminal("doctor", env={"TERM": "xterm", "NO_COLOR": ""})
    assert "\x1b[32mok      \x1b[0m daemon       answers" in seen


def test_no_daemon(daemon: Daemon, tmp_path: Path) -> None:
    ctl = Shell(daemon)
    found = findings(ctl, 4, BUCKETD_SOCKET=str(tmp_path / "none"))
    assert "does not exist" in found["socket"]["what"]
    (tmp_path / "file").touch()
    assert (
        "not a socket" in findings(ctl, 4, BUCKETD_SOCKET=str(tmp_path / "file"))["socket"]["what"]
    )
    daemon.kill()
    assert "start bucketd" in findings(ctl, 4)["socket"]["fix"]
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        done = ctl("doctor", "--socket", str(tmp_path / "silent"), "--timeout", "0.5")
    assert done.returncode == 4
    assert json.loads(done.stdout)["findings"][-1]["about"] == "daemon"


def test_a_token_that_opens_nothing(daemon: Daemon) -> None:
    ctl = Shell(daemon)
    for broken in ("x" * 43, "x\nx"):
        assert findings(ctl, 1, BUCKETD_TOKEN=broken)["context"]["level"] == "problem"
    assert findings(ctl, 1, BUCKETD_TOKEN_FILE="/nope")["context"]["level"] == "problem"
    token = daemon.mint("d", "j")
    assert findings(ctl, 0, BUCKETD_TOKEN=token)["context"]["what"] == "the token is of d, j"


def test_broken_schemas_quarantine_and_open_directories(daemon: Daemon) -> None:
    ctl = Shell(daemon)
    daemon.request("PUT", pair("d", "j"), {"n": 1})
    ctl.json("list")
    daemon.stop()
    (daemon.state_dir / "devices" / "d" / "jobs" / "j.json").write_text("rot")
    (daemon.state_dir / "schemas").mkdir(exist_ok=True)
    (daemon.state_dir / "schemas" / "broken.json").write_text("{")
    daemon.start()
    daemon.request("PUT", pair("d", "j"), {"n": 2})
    daemon.state_dir.chmod(0o755)
    found = findings(ctl, 0)
    for about in ("schemas", "quarantine", "permissions"):
        assert found[about]["level"] == "warning", found
    assert re.match(r"/\S+/broken\.json: cannot ", found["schemas"]["what"])
    assert found["permissions"]["fix"] == f"chmod 0700 {daemon.state_dir}"


def test_buckets_that_cannot_be_read_or_break_their_schema(daemon: Daemon) -> None:
    ctl = Shell(daemon)
    for job in ("good", "it's"):
        daemon.request("PUT", f"{pair('d', job)}?automation=a", {"n": 5})
    place = daemon.state_dir / "devices" / "d" / "jobs"
    place.mkdir(parents=True, exist_ok=True)  # files come after answers
    (place / "rot.json").write_text("rot")
    assert findings(ctl, 1)["bucket"]["what"] == "devices/d/jobs/rot.json cannot be read"
    schema = {"properties": {"n": {"maximum": 4}}}
    daemon.request("PUT", "/v1/schemas/a?force=true", schema)
    before = (daemon.state_dir / "schemas" / "a.json").stat()
    rows = json.loads(ctl("doctor", "--buckets").stdout)["findings"]
    told = [(row["level"], row["what"], row["fix"]) for row in rows[-4:]]
    refused = "the schema of a refuses d, {}: /n must be at most 4, got a number"
    edit = "bucketctl edit --device d --job "
    assert told[0][:2] == ("ok", "2 can be read")
    assert told[1][:2] == ("problem", "devices/d/jobs/rot.json cannot be read")
    assert told[2:] == [
        ("warning", refused.format("good"), f"{edit}good"),
        ("warning", refused.format("it's"), edit + """'it'"'"'s'"""),
    ]
    assert (daemon.state_dir / "schemas" / "a.json").stat().st_mtime_ns == before.st_mtime_ns


def test_many_of_a_kind_are_counted(daemon: Daemon) -> None:
    for number in range(stored_buckets.SHOWN + 3):
        daemon.request("PUT", f"{pair('d', f'j{number}')}?automation=a", {"n": "x"})
    daemon.request("PUT", "/v1/schemas/a?force=true", {"properties": {"n": {"type": "number"}}})
    rows = json.loads(Shell(daemon)("doctor", "--buckets").stdout)["findings"]
    assert [row["about"] for row in rows].count("schema") == stored_buckets.SHOWN + 1
    assert rows[-1]["what"] == "3 further buckets violate the schema of a"


def test_the_check_shows_how_far_it_is(daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {})
    seen = Shell(daemon).on_terminal("doctor", "--buckets", env={"TERM": "xterm", "NO_COLOR": ""})
    assert "\r\x1b[Kcheck [##############################] 100%  1 bucket," in seen
    assert re.search(r"1 bucket, [\d,]+/s\r\x1b\[K\x1b\[32mok", seen)  # and then it is gone


def test_a_clock_that_is_behind(daemon: Daemon) -> None:
    place = daemon.state_dir / "devices" / "d" / "jobs"
    place.mkdir(parents=True)
    (place / "j.json").write_text(
        json.dumps({"format": "bucketd/1", "device": "d", "job": "j", "automation": None,
                    "revision": 1, "created_at": None, "updated_at": "2999-01-01T00:00:00.000Z",
                    "bucket": {}})
    )  # fmt: skip
    assert findings(Shell(daemon), 1)["clock"]["level"] == "problem"


def test_a_store_that_does_not_answer(stopped_daemon: Daemon) -> None:
    env = {"ENGINE": "etcd", "ETCD_ENDPOINTS": "http://127.0.0.1:1", "ETCD_TIMEOUT_SECONDS": "1"}
    stopped_daemon.env.update({f"BUCKETD_STORE_{name}": value for name, value in env.items()})
    ctl = Shell(stopped_daemon.start())
    for words in ([], ["--buckets"]):
        done = ctl("doctor", *words)
        found = {row["about"]: row for row in json.loads(done.stdout)["findings"]}
        assert (done.returncode, done.stderr) == (1, "")
        assert (found["daemon"]["level"], found["version"]["level"]) == ("ok", "ok")
        assert "cannot reach a majority of etcd" in found["store"]["what"]
        assert found["store"]["fix"].startswith("start a majority of its nodes")
        assert (found["buckets"]["level"], found["schemas"]["level"]) == ("unknown", "ok")


@pytest.mark.parametrize(
    ("words", "failed"),
    [((), {"buckets": 1, "trash": 1}), (("--buckets",), {"buckets": 2, "schema": 1, "trash": 1})],
)
def test_what_fails_on_the_way_hides_nothing(
    daemon: Daemon, words: tuple[str, ...], failed: dict[str, int]
) -> None:
    """The daemon's own status, before a store that fails behind it."""
    status = json.loads(daemon.request("GET", "/v1/status").body)
    answers: dict[str, Any] = {
        "/healthz": {"success": True},
        "/v1/status": status,
        "/v1/schemas": {"success": True, "schemas": [{"automation": "a"}]},
    }
    refusal = {"success": False, "code": "overloaded", "error": "cannot read: it is gone"}

    def script(connection: socket.socket, seen: Seen, _number: int) -> bool:
        found = answers.get(seen.target)
        answer(connection, 503 if found is None else 200, found or refusal)
        return True

    with fake(script) as server:
        done = Shell(daemon)("doctor", *words, "--socket", server.path)
    rows = json.loads(done.stdout)["findings"]
    told = [row["about"] for row in rows if row["level"] == "problem"]
    assert (done.returncode, {about: told.count(about) for about in told}) == (1, failed)
    assert {"socket", "store", "schemas", "clock"} <= {row["about"] for row in rows}
    assert all(row["fix"] for row in rows if row["level"] == "problem")


STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "durability": "strict",
    "store": {"healthy": True, "problem": None, "unsafe_filesystem": None, "state_dir": "/"},
}


@pytest.mark.parametrize(
    ("check", "change", "level"),
    [
        (checks.store, {"healthy": False, "problem": "no space"}, "problem"),
        (checks.store, {"journal_damaged": True}, "warning"),
        (checks.file_system, {"unsafe_filesystem": "tmpfs"}, "warning"),
        (checks.disk, {"state_dir": "/nope"}, "unknown"),
        (checks.disk, {"state_dir": None}, None),
        (checks.store_problems, {}, None),
        (checks.store_problems, {"problems": ["no space"], "problem": "no space"}, None),
        (checks.store_problems, {"problems": ["cannot x: y; do z"]}, "problem"),
        (checks.store_problems, {"problems": ["cannot watch, so they are polled; z"]}, "warning"),
    ],
)
def test_what_a_status_says(check: Any, change: dict[str, Any], level: str | None) -> None:
    found = list(check({**STATUS, "store": {**STATUS["store"], **change}}))
    assert (found[-1].level if found else None) == level


def test_files_in_the_quarantine_are_told_by_their_path(daemon: Daemon) -> None:
    """They were saved, so that is no error; and what the store cannot do is one."""
    daemon.request("PUT", pair("d", "j"), {"n": 1})
    daemon.request("GET", "/v1/status")
    daemon.bucket_path("d", "j").unlink()
    daemon.bucket_path("d", "j").write_text("rot")
    assert "recovered_from" in daemon.request("GET", pair("d", "j")).json
    daemon.request("PUT", pair("d", "j"), {"n": 2})
    daemon.request("GET", "/v1/status")
    (kept,) = (daemon.state_dir / "quarantine").iterdir()
    found = findings(Shell(daemon), 0)
    assert found["quarantine"] == {
        "level": "warning",
        "about": "quarantine",
        "what": f"{kept} is kept",
        "fix": "look at it (bucketctl quarantine show), then remove it (bucketctl quarantine drop)",
    }
    assert found["store"]["level"] == "ok"
    for number in range(30):
        (kept.parent / f"more-{number}").touch()
    rows = json.loads(Shell(daemon)("doctor").stdout)["findings"]
    told = [row["what"] for row in rows if row["about"] == "quarantine"]
    assert told[-1] == f"{31 - len(told) + 1} further damaged files kept"


def test_what_the_store_found_wrong_is_a_problem(nobodys_daemon: Daemon) -> None:
    daemon = nobodys_daemon.start()
    for device in ("closed", "open"):
        daemon.request("PUT", pair(device, "j"), {"n": 1})
    daemon.request("GET", "/v1/status")
    jobs = daemon.bucket_path("closed", "j").parent
    jobs.chmod(0o000)
    daemon.restart()
    rows = json.loads(Shell(daemon)("doctor").stdout)["findings"]
    (found,) = [row for row in rows if row["about"] == "store" and row["level"] != "ok"]
    assert found["level"] == "problem"
    assert found["what"] == "cannot count the buckets in devices/closed: Permission denied"
    jobs.chmod(0o700)


@pytest.mark.parametrize(
    ("problem", "fix"),
    [
        ("cannot write while …: No space left on device; nothing was changed", "free space on /;"),
        ("cannot write while …: Disk quota exceeded; nothing was changed", "free space on /;"),
        ("cannot write: the journal failed; restart bucketd to recover", "fix the cause, then"),
        ("shard a: cannot reach a majority of etcd: Timeout", "start a majority"),
        (None, "fix the cause, then restart"),
    ],
)
def test_what_mends_a_store(problem: str | None, fix: str) -> None:
    store = {**STATUS["store"], "healthy": False, "problem": problem}
    (found,) = checks.store({**STATUS, "store": store})
    assert found.fix.startswith(fix)


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs("/")
    full = os.statvfs_result((*real[:3], 10, 10, 1000, 500, 500, *real[8:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    assert [finding.level for finding in checks.disk(STATUS)] == ["problem", "ok"]


@pytest.mark.parametrize(
    ("enabled", "active", "level"),
    [
        ("enabled", "active", "ok"),
        ("disabled", "active", "warning"),
        ("enabled", "failed", "problem"),
        ("not-found", "inactive", "unknown"),
    ],
)
def test_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str, active: str, level: str
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\n[ $1 = is-enabled ] && echo {enabled} || echo {active}\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(checks, "SYSTEMD", str(tmp_path))
    assert [finding.level for finding in checks.unit()] == [level]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("the task schema-files has ended", ("background", "the task schema-files has ended")),
        (
            {"task": "edits", "problem": "it has ended", "fix": "restart bucketd"},
            ("edits", "it has ended"),
        ),
        ({"about": "daemon", "message": "its socket was gone"}, ("daemon", "its socket was gone")),
    ],
)
def test_what_the_daemon_says_is_wrong(
    daemon: Daemon, entry: object, told: tuple[str, str]
) -> None:
    """Each entry of the ``problems`` of its status is a problem here, whatever form it has."""
    (found,) = checks.problems({**STATUS, "problems": [entry]})
    assert (found.level, found.about, found.what, bool(found.fix)) == ("problem", *told, True)
    status = json.loads(daemon.request("GET", "/v1/status").body)
    page = {"success": True, "buckets": [], "next_cursor": None}
    answers = {"/v1/status": {**status, "problems": [entry]}, "/v1/buckets?limit=1000": page}

    def script(connection: socket.socket, seen: Seen, _number: int) -> bool:
        answer(connection, 200, answers.get(seen.target, {"success": True}))
        return True

    with fake(script) as server:
        done = Shell(daemon)("doctor", "--socket", server.path)
    assert (done.returncode, told[1] in done.stdout) == (1, True)


def test_a_damaged_bucket_that_can_be_had_is_never_condemned(daemon: Daemon) -> None:
    for number in range(4):
        daemon.request("PUT", pair("d", "j"), {"n": number})
    daemon.request("GET", "/v1/status")
    path = daemon.bucket_path("d", "j")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x55
    with path.open("r+b") as file:
        file.write(damaged)
    session = Session(Options({"socket": daemon.socket}, []))
    found = checks.unreadable(session, "devices/d/jobs/j.json")
    assert (found.level, "recovered" in found.what) == ("warning", True)
    assert not {"replace", "clear"} & set(re.findall(r"\w+", found.fix))
    for lost in ("devices/d/jobs/k.json", "devices/d/other", "devices/%FF/device.json", "x"):
        found = checks.unreadable(session, lost)
        assert (found.level, found.what) == ("problem", f"{lost} cannot be read")
        assert not {"replace", "clear"} & set(re.findall(r"\w+", found.fix))


def test_a_runtime_directory_that_is_gone(daemon: Daemon, tmp_path: Path) -> None:
    found = findings(Shell(daemon), 4, BUCKETD_SOCKET=str(tmp_path / "gone" / "bucketd.sock"))
    assert found["socket"]["what"].endswith("does not exist, nor is its directory")
    assert "loginctl enable-linger" in found["socket"]["fix"]


def test_a_socket_that_is_mounted_alone(daemon: Daemon, tmp_path: Path) -> None:
    """The file that a container has is of the daemon before; only its directory follows."""
    place = tmp_path / "a b.sock"
    place.touch()
    script = 'mount --bind "$1" "$2" && rm "$1" && shift 2 && exec "$@"'  # as a restart removes it
    # The daemon before is a listener that ends.
    with socket.socket(socket.AF_UNIX) as before:
        before.bind(str(tmp_path / "real"))
        before.listen()
    words = ["sh", "-c", script, "sh", str(tmp_path / "real"), str(place)]
    space = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*space, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs the right to make a mount namespace")
    done = subprocess.run(
        [*space, *words, *CTL, "doctor", "--socket", str(place)],
        env=Shell(daemon).environ,
        capture_output=True,
        text=True,
    )
    rows = {row["about"]: row for row in json.loads(done.stdout)["findings"]}
    assert (done.returncode, done.stderr) == (4, "")
    assert "mount its directory instead" in rows["socket"]["fix"]


def test_a_clock_that_has_jumped(daemon: Daemon) -> None:
    status = json.loads(daemon.request("GET", "/v1/status").body)
    (fine,) = checks.clock([], status)
    assert fine.level == "ok"
    past = "2001-01-01T00:00:00.000Z"
    (found,) = checks.clock([], {**status, "started_at": past})
    slept = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    assert slept < 86400
    assert (found.level, "it was set by +" in found.what) == ("warning", True)
