"""Other programs edit files while the daemon runs: no reader gets less than was acknowledged."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from external_edits import write_lock
from harness import Daemon, new_daemon, pair
from mounts import exec_through
from sse import Stream

TARGET = pair("phone", "job")


@pytest.fixture
def impatient_daemon() -> Iterator[Daemon]:
    """Waits for ``write.lock`` for one second."""
    daemon = new_daemon(env={"BUCKETD_STORE_LOCK_TIMEOUT_SECONDS": "1"})
    try:
        yield daemon.start()
    finally:
        daemon.remove()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def make_bucket(daemon: Daemon, **bucket: object) -> Path:
    daemon.request("PUT", TARGET, bucket)
    path = daemon.bucket_path("phone", "job")
    until(path.exists)
    with write_lock(daemon):
        return path


def listed(daemon: Daemon, **query: str) -> list[tuple[str, int, int]]:
    words = "&".join(f"{name}={value}" for name, value in query.items())
    answer = daemon.request("GET", f"/v1/buckets?{words}").json
    assert "unreadable" not in answer, answer
    return [(row["job"], row["revision"], row["size"]) for row in answer["buckets"]]


def exported(daemon: Daemon) -> list[dict[str, object]]:
    answer = daemon.request("GET", "/v1/export").json
    assert "unreadable" not in answer, answer
    return [envelope["bucket"] for envelope in answer["envelopes"]]


@contextmanager
def moved_away(daemon: Daemon, path: Path) -> Iterator[Path]:
    """As vim does while it saves a file."""
    aside = path.with_name(f"{path.name}~")
    with write_lock(daemon):
        path.rename(aside)
        yield aside


@pytest.mark.parametrize("restarted", [False, True])
def test_every_reader_while_the_file_is_away(daemon: Daemon, restarted: bool) -> None:
    """After a restart the cache is empty, and the journal has it."""
    path = make_bucket(daemon, token="kept")
    if restarted:
        daemon.stop()
        daemon.start()
    before = daemon.request("GET", "/v1/status").json["counts"]
    with moved_away(daemon, path) as aside:
        answer = daemon.request("GET", TARGET)
        assert (answer.status, answer.bucket) == (200, {"token": "kept"})
        assert answer.json["revision"] == 1
        assert daemon.request("GET", f"{TARGET}?key=token").bucket == {"token": "kept"}
        assert listed(daemon) == [("job", 1, 16)]
        assert listed(daemon, device="phone", job="job") == [("job", 1, 16)]
        assert exported(daemon) == [{"token": "kept"}]
        after = daemon.request("GET", "/v1/status").json["counts"]
        assert after["buckets"] == before["buckets"] == 1
        path.write_bytes(aside.read_bytes().replace(b"kept", b"edit"))
    assert daemon.request("GET", TARGET).bucket == {"token": "edit"}
    assert exported(daemon) == [{"token": "edit"}]


def test_a_file_that_only_its_editor_knows_is_named(impatient_daemon: Daemon) -> None:
    """Neither the cache nor the journal has it: not left out in silence, and never empty."""
    daemon = impatient_daemon
    path = make_bucket(daemon, token="kept")
    daemon.stop()
    for log in (daemon.state_dir / "journal").iterdir():
        log.unlink()
    daemon.start()
    with moved_away(daemon, path) as aside:
        assert daemon.request("GET", TARGET).status == 503
        answer = daemon.request("GET", "/v1/buckets").json
        assert answer["unreadable"] == ["devices/phone/jobs/job.json"]
        aside.rename(path)
    assert daemon.request("GET", TARGET).bucket == {"token": "kept"}


def test_a_first_write_waits_for_the_editor(daemon: Daemon) -> None:
    path = make_bucket(daemon, token="kept")
    with moved_away(daemon, path) as aside:
        command = ["curl", "-s", "--unix-socket", str(daemon.socket), "-X", "PUT", "-d", "{}"]
        command += ["-H", "If-None-Match: *", "-H", "Content-Type: application/json"]
        command += [f"http://localhost{TARGET}"]
        write = subprocess.Popen(command, stdout=subprocess.PIPE)
        time.sleep(0.3)
        aside.rename(path)
    assert json.loads(write.communicate()[0])["code"] == "precondition_failed"


def test_a_file_removed_under_the_lock_is_a_removed_bucket(daemon: Daemon) -> None:
    path = make_bucket(daemon, token="kept")
    with write_lock(daemon):
        path.unlink()
    assert daemon.request("GET", TARGET).json["revision"] == 0
    assert listed(daemon) == []


def edit_in_place(path: Path, old: bytes, new: bytes) -> None:
    """As nano and VS Code do."""
    text = path.read_bytes().replace(old, new)
    with path.open("wb") as file:
        file.write(text)


@pytest.mark.parametrize("locked", [False, True])
def test_an_edit_in_place_is_an_edit(daemon: Daemon, locked: bool) -> None:
    path = make_bucket(daemon, token="kept")
    if locked:
        with write_lock(daemon):
            edit_in_place(path, b"kept", b"made by hand")
    else:
        edit_in_place(path, b"kept", b"made by hand")
    answer = daemon.request("GET", TARGET)
    assert (answer.bucket, answer.json["revision"]) == ({"token": "made by hand"}, 2)
    assert "recovered_from" not in answer.json
    assert listed(daemon) == [("job", 2, 24)]
    assert daemon.request("PATCH", TARGET, {"n": 1}).bucket == {"token": "made by hand", "n": 1}
    assert not (daemon.state_dir / "quarantine").exists()


def test_an_edit_in_place_while_the_daemon_is_stopped(daemon: Daemon) -> None:
    path = make_bucket(daemon, token="kept")
    daemon.stop()
    edit_in_place(path, b"kept", b"made")
    daemon.start()
    assert exported(daemon) == [{"token": "made"}]
    assert daemon.request("GET", TARGET).bucket == {"token": "made"}


def test_what_is_half_written_is_waited_for(daemon: Daemon) -> None:
    path = make_bucket(daemon, token="kept")
    text = path.read_bytes().replace(b"kept", b"made")
    with path.open("wb") as editor:
        editor.write(text[:50])
        editor.flush()
        answer = daemon.request("GET", TARGET)
        assert (answer.status, answer.bucket) == (200, {"token": "kept"})
        assert exported(daemon) == [{"token": "kept"}]
        refused = daemon.request("PATCH", TARGET, {"n": 1})
        assert refused.status == 503
        assert "has it open for writing" in refused.json["error"]
        editor.write(text[50:])
    assert daemon.request("PATCH", TARGET, {"n": 1}).bucket == {"token": "made", "n": 1}
    assert not (daemon.state_dir / "quarantine").exists()


def test_what_is_quarantined_is_told_with_its_path(daemon: Daemon) -> None:
    path = make_bucket(daemon, token="kept")
    path.write_bytes(b"{")
    reason = daemon.request("GET", TARGET).json["recovered_from"]["reason"]
    daemon.request("PATCH", TARGET, {"n": 1})
    with write_lock(daemon):
        (kept,) = (daemon.state_dir / "quarantine").iterdir()
    assert str(kept) in reason
    assert kept.read_bytes() == b"{"
    assert f"quarantine/{kept.name}" in daemon.log
    until(lambda: kept.name in str(daemon.request("GET", "/v1/status").json["store"]["problems"]))


def test_all_readers_restore_what_the_journal_holds(daemon: Daemon) -> None:
    path = make_bucket(daemon, token="kept")
    daemon.stop()
    path.write_bytes(b"{")
    daemon.start()
    assert exported(daemon) == [{"token": "kept"}]
    assert listed(daemon) == [("job", 1, 16)]
    assert daemon.request("GET", TARGET).bucket == {"token": "kept"}


@pytest.mark.parametrize("name", [b"caf\xe9.json", b"new\nline.json"])
def test_a_strange_name_is_named_and_spoils_nothing(daemon: Daemon, name: bytes) -> None:
    path = make_bucket(daemon, token="kept")
    os.link(path, os.fsencode(path.parent) + b"/" + name)
    answer = daemon.request("GET", "/v1/buckets").json
    assert [row["job"] for row in answer["buckets"]] == ["job"]
    (named,) = answer["unreadable"]
    assert (
        named
        == {
            b"caf\xe9.json": "devices/phone/jobs/caf\\xe9.json",
            b"new\nline.json": "devices/phone/jobs/new\\nline.json",
        }[name]
    )
    assert daemon.request("GET", "/v1/export").json["unreadable"] == [named]
    pages = [daemon.request("GET", "/v1/buckets?limit=1").json]
    while cursor := pages[-1]["next_cursor"]:
        pages.append(daemon.request("GET", f"/v1/buckets?limit=1&cursor={cursor}").json)
    assert sum(len(page["buckets"]) for page in pages) == 1
    assert [entry for page in pages for entry in page.get("unreadable", [])] == [named]


def test_a_device_whose_name_is_not_utf8(daemon: Daemon) -> None:
    make_bucket(daemon, token="kept")
    os.makedirs(os.fsencode(daemon.state_dir) + b"/devices/caf\xe9/jobs")
    with open(os.fsencode(daemon.state_dir) + b"/devices/caf\xe9/jobs/a.json", "wb") as file:
        file.write(b"{}")
    answer = daemon.request("GET", "/v1/buckets").json
    assert [row["job"] for row in answer["buckets"]] == ["job"]
    assert answer["unreadable"] == ["devices/caf\\xe9/jobs/a.json"]
    assert daemon.request("GET", "/v1/status").json["counts"]["devices"] == 2


def test_a_directory_that_may_not_be_read(nobodys_daemon: Daemon) -> None:
    daemon = nobodys_daemon
    daemon.start()
    daemon.request("PUT", pair("other", "job"), {"n": 1})
    make_bucket(daemon, token="kept")
    closed = daemon.state_dir / "devices/other/jobs"
    closed.chmod(0)
    try:
        answer = daemon.request("GET", "/v1/buckets").json
        assert [row["device"] for row in answer["buckets"]] == ["phone"]
        assert answer["unreadable"] == ["devices/other/jobs"]
        status = daemon.request("GET", "/v1/status").json["store"]
        assert "devices/other: Permission denied" in str(status["problems"])
    finally:
        closed.chmod(0o700)


@pytest.fixture
def daemon_without_inotify() -> Iterator[Daemon]:
    limit = "/proc/sys/user/max_inotify_instances"
    wrapper = ["unshare", "-r", "sh", "-c", f'echo 0 > {limit}; exec "$@"', "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces")
    daemon = new_daemon(program=exec_through(wrapper))
    try:
        yield daemon.start()
    finally:
        daemon.remove()


@pytest.mark.parametrize("target", ["/v1/events", f"{TARGET}/events"])
def test_edits_are_polled_where_inotify_is_used_up(
    daemon_without_inotify: Daemon, target: str
) -> None:
    daemon = daemon_without_inotify
    path = make_bucket(daemon, token="kept")
    with Stream(daemon, target) as stream:
        until(lambda: "they are polled" in daemon.log)
        for old, new in [("kept", "made"), ("made", "done"), ("done", "good")]:
            with write_lock(daemon):
                edit_in_place(path, old.encode(), new.encode())
            assert stream.next().data["set"] == {"token": new}
    assert daemon.log.count("they are polled") == 1
    assert "they are polled" in str(daemon.request("GET", "/v1/status").json["store"]["problems"])


def test_the_removal_of_a_file_is_told_once_the_lock_is_free(daemon: Daemon) -> None:
    path = make_bucket(daemon, token="kept")
    with Stream(daemon, f"{TARGET}/events") as stream:
        with write_lock(daemon):
            path.unlink()
            time.sleep(1)
        assert stream.next().data["revision"] == 0


def test_an_absent_bucket_is_absent_also_under_a_foreign_lock(daemon: Daemon) -> None:
    path = make_bucket(daemon, token="kept")
    with write_lock(daemon):
        begun = time.monotonic()
        assert daemon.request("GET", pair("phone", "other")).bucket == {}
        assert daemon.request("GET", pair("new", "other")).bucket == {}
        assert time.monotonic() - begun < 2
        # A program that keeps its copies elsewhere.
        path.rename(daemon.home / "job.json")
        assert daemon.request("GET", TARGET).bucket == {"token": "kept"}
        (daemon.home / "job.json").rename(path)
