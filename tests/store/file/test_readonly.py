"""A state directory that cannot be written, or is full: at the start, and while it is in use."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from external_edits import tree
from harness import Daemon, Response, pair
from mounts import Mounts

TARGET = pair("phone", "job")
MIB = 1024 * 1024


def ends(daemon: Daemon) -> tuple[int, str]:
    """Exit status and log of a start that must fail."""
    daemon.spawn()
    assert daemon.process is not None
    return daemon.process.wait(15), daemon.log


def a_clear_error(log: str, path: Path) -> bool:
    lines = log.strip().splitlines()
    return len(lines) == 1 and "cannot" in lines[0] and str(path) in lines[0]


def test_start_on_a_read_only_file_system(confined_daemon: Daemon, mounts: Mounts) -> None:
    daemon = confined_daemon.start()
    daemon.request("PUT", TARGET, {"n": 1})
    assert daemon.stop() == 0
    before = tree(daemon.state_dir)
    mounts.read_only(daemon.state_dir)
    status, log = ends(daemon)
    assert status == 1, log
    assert a_clear_error(log, daemon.state_dir), log
    assert tree(daemon.state_dir) == before
    mounts.undo(daemon.state_dir)
    assert daemon.start().request("GET", TARGET).bucket == {"n": 1}


def test_first_start_on_a_read_only_file_system(confined_daemon: Daemon, mounts: Mounts) -> None:
    mounts.read_only(confined_daemon.state_dir)
    status, log = ends(confined_daemon)
    assert status == 1, log
    assert a_clear_error(log, confined_daemon.state_dir), log
    assert list(confined_daemon.state_dir.iterdir()) == []


def test_start_where_the_state_directory_cannot_be_made(nobodys_daemon: Daemon) -> None:
    os.chown(nobodys_daemon.home, 0, 0)
    nobodys_daemon.home.chmod(0o755)
    nobodys_daemon.runtime_dir.mkdir()
    os.chown(nobodys_daemon.runtime_dir, 65534, 65534)
    status, log = ends(nobodys_daemon)
    assert status == 1, log
    assert a_clear_error(log, nobodys_daemon.state_dir), log
    assert not nobodys_daemon.state_dir.exists()


def test_start_as_a_user_who_may_not_write(nobodys_daemon: Daemon) -> None:
    nobodys_daemon.start().request("PUT", TARGET, {"n": 1})
    nobodys_daemon.stop()
    before = tree(nobodys_daemon.state_dir)
    give(nobodys_daemon.state_dir, 0)
    status, log = ends(nobodys_daemon)
    assert status == 1, log
    assert a_clear_error(log, nobodys_daemon.state_dir), log
    assert tree(nobodys_daemon.state_dir) == before


def test_start_on_a_full_file_system(confined_daemon: Daemon, mounts: Mounts) -> None:
    mounts.small(confined_daemon.state_dir, 64 * 1024)
    fill(mounts.inside(confined_daemon.state_dir))
    status, log = ends(confined_daemon)
    assert status == 1, log
    assert "No space" in log or "space" in log
    assert len(log.strip().splitlines()) == 1, log


def give(path: Path, uid: int) -> None:
    """Everything below ``path`` to another user."""
    for entry in [path, *path.rglob("*")]:
        os.chown(entry, uid, uid)
        if entry.is_dir():
            entry.chmod(0o755)


@pytest.fixture(params=["read-only mount", "taken away"])
def switch(request: pytest.FixtureRequest) -> tuple[Daemon, object]:
    """A running daemon, and a block in which its bucket files cannot be written."""
    if request.param == "read-only mount":
        mounts = request.getfixturevalue("mounts")
        daemon = request.getfixturevalue("confined_daemon")
        return daemon, lambda: remounted(daemon, mounts)
    daemon = request.getfixturevalue("nobodys_daemon")
    return daemon, lambda: taken(daemon)


@contextmanager
def remounted(daemon: Daemon, mounts: Mounts) -> Iterator[None]:
    devices = daemon.state_dir / "devices"
    mounts.read_only(devices)
    yield
    mounts.undo(devices)


@contextmanager
def taken(daemon: Daemon) -> Iterator[None]:
    devices = daemon.state_dir / "devices"
    give(devices, 0)
    for path in devices.rglob("*.json"):
        path.chmod(0o644)
    yield
    give(devices, 65534)
    for path in devices.rglob("*.json"):
        path.chmod(0o600)


def until_refused(daemon: Daemon, body_size: int = 10) -> tuple[dict[str, object], Response]:
    """Set until it is refused; what was acknowledged, and the refusal."""
    acknowledged: dict[str, object] = {}
    for number in range(2000):
        body = {"n": number, "text": "x" * body_size}
        answer = daemon.request("PATCH", TARGET, body)
        if answer.status != 200:
            return acknowledged, answer
        acknowledged = answer.bucket
        time.sleep(0.02 if number < 5 else 0)
    raise AssertionError("no write was ever refused")


def test_unwritable_while_it_runs(switch: tuple[Daemon, object]) -> None:
    daemon, unwritable = switch
    daemon.start()
    first = daemon.request("PUT", TARGET, {"first": 1})
    time.sleep(0.3)
    assert callable(unwritable)
    with unwritable():
        acknowledged, refusal = until_refused(daemon)
        acknowledged = acknowledged or first.bucket
        assert refusal.status == 503, refusal
        assert refusal.json["code"] == "read_only"
        assert refusal.json["success"] is False
        assert "retry-after" in refusal.headers
        assert "cannot" in refusal.json["error"]
        seen = daemon.request("GET", TARGET)
        assert seen.bucket == acknowledged
        other = daemon.request("PUT", pair("phone", "other"), {"n": 1})
        assert (other.status, other.json.get("code")) == (503, "read_only")
        assert daemon.request("GET", pair("phone", "other")).bucket == {}
        on_disk = json.loads(daemon.bucket_path("phone", "job").read_bytes())
        assert on_disk["bucket"] == {"first": 1}
    served_again(daemon, acknowledged, seen.json["revision"])


def served_again(daemon: Daemon, acknowledged: dict[str, object], revision: int) -> None:
    deadline = time.monotonic() + 5
    while (answer := daemon.request("PATCH", TARGET, {"again": 1})).status != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    assert answer.bucket == {**acknowledged, "again": 1}
    assert answer.json["revision"] == revision + 1
    daemon.restart()
    assert daemon.request("GET", TARGET).bucket == answer.bucket


def test_killed_while_unwritable(switch: tuple[Daemon, object]) -> None:
    """What was acknowledged is there after a kill, once the files can be completed."""
    daemon, unwritable = switch
    daemon.start()
    daemon.request("PUT", TARGET, {"first": 1})
    time.sleep(0.3)
    assert callable(unwritable)
    with unwritable():
        acknowledged, _ = until_refused(daemon)
        daemon.kill()
    daemon.start()
    assert daemon.request("GET", TARGET).bucket == (acknowledged or {"first": 1})


def fill(directory: Path) -> Path:
    """Use up all space below ``directory``."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


def test_full_while_it_runs(confined_daemon: Daemon, mounts: Mounts) -> None:
    daemon = confined_daemon
    mounts.small(daemon.state_dir, 40 * MIB)
    daemon.start()
    first = daemon.request("PUT", TARGET, {"first": 1})
    time.sleep(0.3)
    filler = fill(mounts.inside(daemon.state_dir))
    acknowledged, refusal = until_refused(daemon, body_size=60_000)
    acknowledged = acknowledged or first.bucket
    assert refusal.status == 507, refusal
    assert refusal.json["code"] == "storage_full"
    assert "space" in refusal.json["error"]
    seen = daemon.request("GET", TARGET)
    assert seen.bucket == acknowledged
    other = daemon.request("PUT", pair("phone", "other"), {"text": "x" * 60_000})
    assert (other.status, other.json.get("code")) == (507, "storage_full")
    assert daemon.request("GET", pair("phone", "other")).bucket == {}
    assert daemon.request("GET", "/healthz").status in (200, 503)
    filler.unlink()
    served_again(daemon, acknowledged, seen.json["revision"])


def test_killed_while_full(confined_daemon: Daemon, mounts: Mounts) -> None:
    daemon = confined_daemon
    mounts.small(daemon.state_dir, 40 * MIB)
    daemon.start()
    daemon.request("PUT", TARGET, {"first": 1})
    time.sleep(0.3)
    filler = fill(mounts.inside(daemon.state_dir))
    acknowledged, _ = until_refused(daemon, body_size=60_000)
    daemon.kill()
    filler.unlink()
    daemon.start()
    assert daemon.request("GET", TARGET).bucket == (acknowledged or {"first": 1})


def test_reads_work_and_deletes_help_while_full(confined_daemon: Daemon, mounts: Mounts) -> None:
    """A DELETE needs no space of its own, or says that it does; it is never half done."""
    daemon = confined_daemon
    mounts.small(daemon.state_dir, 40 * MIB)
    daemon.start()
    daemon.request("PUT", TARGET, {"first": 1})
    daemon.request("PUT", pair("phone", "big"), {"text": "x" * 500_000})
    time.sleep(0.3)
    filler = fill(mounts.inside(daemon.state_dir))
    answer = daemon.request("DELETE", pair("phone", "big"))
    left = daemon.request("GET", pair("phone", "big"))
    assert answer.status in (200, 507)
    assert (left.bucket == {}) == (answer.status == 200)
    assert daemon.request("GET", TARGET).bucket == {"first": 1}
    filler.unlink()
