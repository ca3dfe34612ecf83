"""Bucket files that are none: one clear error, nothing touched, everything else goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from external_edits import (
    envelope,
    quarantine_entries,
    quarantined,
    replace_file,
    tree,
    write_lock,
    written,
)
from harness import Daemon, Response, pair
from sse import Stream

GOOD = written("phone", "job", {"good": 1})
# Makes a thing where the file of a bucket belongs, given its path and what a good file would say.
Damage = Callable[[Path, bytes], None]


def text(change: Callable[[bytes], bytes]) -> Damage:
    def put(path: Path, good: bytes) -> None:
        path.write_bytes(change(good))
        path.chmod(0o600)

    return put


def fields(**changed: object) -> Damage:
    return text(lambda good: json.dumps({**json.loads(good), **changed}).encode())


def without(field: str) -> Damage:
    def drop(good: bytes) -> bytes:
        document = json.loads(good)
        del document[field]
        return json.dumps(document).encode()

    return text(drop)


def directory(path: Path, good: bytes) -> None:
    path.mkdir()
    (path / "inside").write_bytes(good)


def link(path: Path, good: bytes) -> None:
    """To a file elsewhere that would do."""
    elsewhere = path.parents[4] / "elsewhere.json"
    elsewhere.write_bytes(good)
    path.symlink_to(elsewhere)


TEXTS: dict[str, Damage] = {
    "truncated": text(lambda good: good[: len(good) // 2]),
    "without its last brace": text(lambda good: good[:-3]),
    "empty": text(lambda _: b""),
    "a newline": text(lambda _: b"\n"),
    "zeros": text(lambda good: b"\0" * len(good)),
    "garbage": text(lambda _: bytes(range(256)) * 8),
    "trailing": text(lambda good: good + b"{}"),
    "no UTF-8": text(lambda good: good.replace(b"good", b"g\xff\xfed")),
    "no object": text(lambda _: b"[]\n"),
    "no envelope": text(lambda _: b'{"good": 1}\n'),
    "null": text(lambda _: b"null\n"),
    "NaN": text(lambda good: good.replace(b": 1\n", b": NaN\n")),
    "deep": text(lambda good: good.replace(b": 1\n", b": " + b"[" * 5000 + b"]" * 5000)),
    "other job": fields(job="another"),
    "other device": fields(device="tablet"),
    "device bucket": fields(job=None),
    "format of tomorrow": fields(format="bucketd/2"),
    "format missing": without("format"),
    "bucket missing": without("bucket"),
    "names missing": without("device"),
    "bucket is a list": fields(bucket=[1]),
    "revision is a text": fields(revision="7"),
    "revision below 1": fields(revision=-1),
}
THINGS: dict[str, Damage] = {
    "directory": directory,
    "symlink": link,
    "dangling symlink": lambda path, _: path.symlink_to("nowhere.json"),
    "FIFO": lambda path, _: os.mkfifo(path),
}
ALL = TEXTS | THINGS


def refused(answer: Response, path: Path) -> None:
    assert answer.status == 500, answer
    assert answer.json["success"] is False
    assert answer.json["code"] == "bucket_corrupt"
    assert str(path) in answer.json["error"]
    assert "bucket" not in answer.json


def place(daemon: Daemon, damage: Damage, job: str = "job") -> Path:
    """Put the damage where the file of a bucket belongs; the daemon must be stopped."""
    path = daemon.bucket_path("phone", job)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    damage(path, written("phone", job, {"good": 1}))
    return path


def test_refused_untouched_and_alone(stopped_daemon: Daemon) -> None:
    """All kinds of damage in one directory of jobs, each of them met, over two restarts."""
    daemon = stopped_daemon.start()
    good = pair("phone", "good")
    daemon.request("PUT", good, {"fine": 0})
    daemon.stop()
    paths = {name: place(daemon, damage, name) for name, damage in ALL.items()}
    before = tree(daemon.state_dir / "devices")
    for number in (1, 2):
        daemon.start()
        for name, path in paths.items():
            target = pair("phone", name)
            refused(daemon.request("GET", target), path)
            refused(daemon.request("PATCH", target, {"n": 1}), path)
            refused(daemon.request("GET", f"{target}?key=good"), path)
            refused(daemon.request("GET", target), path)
            answer = daemon.request("PATCH", good, {"fine": number})
            assert answer.bucket == {"fine": number}
        assert daemon.request("GET", "/readyz").status == 200
        daemon.stop()
    after = tree(daemon.state_dir / "devices")
    fine = str(daemon.bucket_path("phone", "good").relative_to(daemon.state_dir / "devices"))
    assert before.pop(fine) != after.pop(fine)
    assert after == before
    assert quarantined(daemon) == []


def test_damage_to_a_device_bucket(stopped_daemon: Daemon) -> None:
    path = stopped_daemon.bucket_path("phone")
    path.parent.mkdir(parents=True)
    path.write_bytes(GOOD)
    daemon = stopped_daemon.start()
    refused(daemon.request("GET", pair("phone")), path)
    refused(daemon.request("PATCH", pair("phone"), {"n": 1}), path)
    assert daemon.request("PATCH", pair("phone", "job"), {"n": 1}).status == 200
    assert path.read_bytes() == GOOD
    assert daemon.request("PUT", pair("phone"), {"n": 1}).bucket == {"n": 1}
    assert quarantined(daemon) == [GOOD]


def test_the_error_shows_no_values(stopped_daemon: Daemon) -> None:
    secret = written("phone", "job", {"secret": "hunter2"})
    place(stopped_daemon, text(lambda _: secret[:-4]))
    daemon = stopped_daemon.start()
    answer = daemon.request("GET", pair("phone", "job"))
    assert answer.json["code"] == "bucket_corrupt"
    assert b"hunter2" not in answer.body
    daemon.stop()
    assert "hunter2" not in daemon.log


def test_the_token_of_the_job_gets_the_same_error(stopped_daemon: Daemon) -> None:
    path = place(stopped_daemon, TEXTS["empty"])
    daemon = stopped_daemon.start()
    token = daemon.mint("phone", "job")
    refused(daemon.request("GET", "/v1/bucket", token=token), path)
    refused(daemon.request("PATCH", "/v1/bucket", {"n": 1}, token=token), path)


def bytes_within(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_put_and_delete_mend_and_keep_the_old_bytes(stopped_daemon: Daemon, method: str) -> None:
    daemon = stopped_daemon
    paths = {name: place(daemon, damage, name) for name, damage in ALL.items()}
    old = {name: bytes_within(path) for name, path in paths.items()}
    daemon.start()
    for name, path in paths.items():
        target = pair("phone", name)
        refused(daemon.request("GET", target), path)
        before = len(quarantine_entries(daemon))
        answer = daemon.request(method, target, {"new": 1} if method == "PUT" else None)
        wanted = {"new": 1} if method == "PUT" else {}
        assert answer.bucket == wanted, (name, answer)
        assert daemon.request("GET", target).bucket == wanted
        assert len(quarantine_entries(daemon)) == before + 1, name
        if old[name] is not None:
            assert old[name] in quarantined(daemon), name
        assert daemon.request("PATCH", target, {"m": 1}).bucket == {**wanted, "m": 1}
    kept = quarantine_entries(daemon)
    daemon.restart()
    for name in paths:
        wanted = {"new": 1, "m": 1} if method == "PUT" else {"m": 1}
        assert daemon.request("GET", pair("phone", name)).bucket == wanted
    assert quarantine_entries(daemon) == kept
    assert bytes_within(daemon.home / "elsewhere.json") == written("phone", "symlink", {"good": 1})


def test_what_a_link_points_to_is_never_written(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    path = place(daemon, link)
    daemon.start()
    assert daemon.request("PUT", pair("phone", "job"), {"new": 1}).bucket == {"new": 1}
    assert envelope(daemon, "phone", "job")["bucket"] == {"new": 1}
    assert not path.is_symlink()
    assert (daemon.home / "elsewhere.json").read_bytes() == GOOD


@pytest.mark.parametrize("part", ["device", "jobs"])
@pytest.mark.parametrize("thing", ["link", "link to a device", "file"])
def test_something_else_in_place_of_a_directory(
    stopped_daemon: Daemon, part: str, thing: str
) -> None:
    """Nothing is read or written behind it, only the buckets below it suffer, and PUT mends."""
    daemon = stopped_daemon.start()
    daemon.request("PUT", pair("phone", "job"), {"mine": 1})
    daemon.stop()
    device = daemon.state_dir / "devices" / "watch"
    place = device if part == "device" else device / "jobs"
    place.parent.mkdir(exist_ok=True, mode=0o700)
    put_in_the_way(daemon, place, thing)
    daemon.start()
    refusals = [daemon.request("GET", pair("watch", "job")).status]
    refusals += [daemon.request("PATCH", pair("watch", "job"), {"n": 1}).status]
    refusals += [daemon.request("PUT", pair("watch", "job"), {"n": 1}).status]
    for number in range(2):
        answer = daemon.request("PATCH", pair("phone", "job"), {"n": number})
        assert answer.status == 200, (refusals, answer)
        assert answer.bucket == {"mine": 1, "n": number}
        daemon.restart()
    assert refusals == [500, 500, 200]  # what a PUT finds in its way is kept in the quarantine
    assert len(quarantine_entries(daemon)) == 1
    assert daemon.request("GET", pair("watch", "job")).bucket == {"n": 1}
    assert list((daemon.home / "outside").iterdir()) == []


def put_in_the_way(daemon: Daemon, place: Path, thing: str) -> None:
    (daemon.home / "outside").mkdir()
    if thing == "file":
        place.write_text("a note")
    elif thing == "link":
        place.symlink_to(daemon.home / "outside")
    else:
        phone = daemon.state_dir / "devices" / "phone"
        place.symlink_to(phone if place.name == "watch" else phone / "jobs")


@pytest.mark.parametrize("name", ["empty", "garbage", "other job", "directory", "symlink"])
def test_a_good_file_put_back_by_hand_mends(stopped_daemon: Daemon, name: str) -> None:
    daemon = stopped_daemon
    path = place(daemon, ALL[name])
    daemon.start()
    refused(daemon.request("GET", pair("phone", "job")), path)
    with write_lock(daemon):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        replace_file(path, GOOD)
    seen = daemon.request("GET", pair("phone", "job"))
    assert seen.bucket == {"good": 1}
    assert seen.json["revision"] >= 7
    answer = daemon.request("PATCH", pair("phone", "job"), {"n": 1})
    assert answer.bucket == {"good": 1, "n": 1}
    assert answer.json["revision"] == seen.json["revision"] + 1
    assert quarantined(daemon) == []


def test_a_guarded_put_does_not_pass_for_a_first_write(stopped_daemon: Daemon) -> None:
    """``If-None-Match: *`` means that there is nothing, and there is something."""
    path = place(stopped_daemon, TEXTS["empty"])
    daemon = stopped_daemon.start()
    answer = daemon.request("PUT", pair("phone", "job"), {"n": 1}, {"If-None-Match": "*"})
    assert answer.status in (412, 500), answer
    answer = daemon.request("PUT", pair("phone", "job"), {"n": 1}, {"If-Match": '"0123"'})
    assert answer.status in (412, 500), answer
    assert path.read_bytes() == b""
    assert quarantined(daemon) == []


def test_removing_keys_of_an_unreadable_bucket_is_refused(stopped_daemon: Daemon) -> None:
    path = place(stopped_daemon, text(lambda _: b"{"))
    daemon = stopped_daemon.start()
    refused(daemon.request("DELETE", f"{pair('phone', 'job')}?key=a"), path)
    assert path.read_bytes() == b"{"


def test_the_list_still_shows_the_others(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start()
    for job in ("a", "m", "z"):
        daemon.request("PUT", pair("phone", job), {"n": 1})
    daemon.stop()
    for name, damage in ALL.items():
        place(daemon, damage, f"job {name}")
    daemon.start()
    answer = daemon.request("GET", "/v1/buckets")
    assert answer.status == 200, answer
    jobs = [row["job"] for row in answer.json["buckets"] if row["revision"]]
    assert {"a", "m", "z"} <= set(jobs)
    assert "another" not in jobs


def test_strange_entries_beside_the_files_hurt_nobody(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start()
    daemon.request("PUT", pair("phone", "job"), {"n": 1})
    daemon.stop()
    devices = daemon.state_dir / "devices"
    (devices / "README").write_text("a note")
    (devices / "phone" / "jobs" / "notes.txt").write_text("a note")
    (devices / "phone" / "jobs" / "no%ZZ.json").write_text("{}")
    (devices / "phone" / "jobs" / ".swp").mkdir()
    (devices / "..x").mkdir()
    os.mkfifo(devices / "pipe")
    before = tree(devices)
    daemon.start()
    rows = daemon.request("GET", "/v1/buckets").json["buckets"]
    assert [(row["device"], row["job"]) for row in rows] == [("phone", "job")]
    daemon.restart()
    assert tree(devices) == before


@pytest.mark.parametrize("name", ALL)
def test_damage_to_a_known_bucket_while_the_daemon_runs(shared_daemon: Daemon, name: str) -> None:
    """Refused, or served from the last good generation; never empty, never the damaged content."""
    daemon, target = shared_daemon, pair("phone", name)
    path = daemon.bucket_path("phone", name)
    for number in range(3):
        daemon.request("PUT", target, {"known": number})
    with write_lock(daemon):
        path.unlink()
        ALL[name](path, written("phone", name, {"good": 1}))
    first, second = (daemon.request("GET", target) for _ in range(2))
    for answer in (first, second):
        if answer.status == 200:
            assert answer.bucket == {"known": 2}
        else:
            refused(answer, path)
    assert first.status == 500 or set(first.json["recovered_from"]) == {"revision", "reason"}
    answer = daemon.request("PATCH", target, {"n": 1})
    assert answer.status == 500 or answer.bucket == {"known": 2, "n": 1}


def test_a_known_bucket_overwritten_in_place(daemon: Daemon) -> None:
    """As a failing disk does, which changes no times."""
    target, path = pair("phone", "job"), daemon.bucket_path("phone", "job")
    daemon.request("PUT", target, {"known": 12345678})
    with write_lock(daemon):
        good = path.read_bytes()
        status = path.stat()
        with path.open("r+b") as file:
            file.write(good.replace(b"12345678", b"12345679"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    answer = daemon.request("GET", target)
    if answer.status == 200:
        assert answer.bucket == {"known": 12345678}
        assert "recovered_from" in answer.json
    else:
        refused(answer, path)


@pytest.mark.parametrize("name", ["truncated", "empty", "garbage"])
def test_recovery_says_what_it_did(daemon: Daemon, name: str) -> None:
    target, path = pair("phone", "job"), daemon.bucket_path("phone", "job")
    daemon.request("PUT", target, {"known": 1})
    with write_lock(daemon):
        path.unlink()
        ALL[name](path, GOOD)
        damaged = path.read_bytes()
    answer = daemon.request("GET", target)
    if answer.status == 500:
        return
    found = answer.json["recovered_from"]
    assert set(found) == {"revision", "reason"}
    assert found["revision"] == 1
    assert str(path) in found["reason"]
    assert "untouched" not in found["reason"]
    daemon.request("PATCH", target, {"n": 1})
    assert quarantined(daemon) == [damaged]
    assert envelope(daemon, "phone", "job")["bucket"] == {"known": 1, "n": 1}


def test_recovery_is_told_until_the_next_change(daemon: Daemon) -> None:
    """Whoever reads first, a watcher or a script that asks for what is new, may show it nobody."""
    target, path = pair("phone", "job"), daemon.bucket_path("phone", "job")
    tag = str(daemon.request("PUT", target, {"known": 1}).etag)
    with write_lock(daemon):
        replace_file(path, b"garbage")
    assert daemon.request("HEAD", target).status == 200
    assert daemon.request("GET", target, headers={"If-None-Match": tag}).status == 304
    for _ in range(2):
        assert daemon.request("GET", target).json["recovered_from"]["revision"] == 1
    unchanged = daemon.request("PATCH", target, {"known": 1})
    assert "recovered_from" in unchanged.json
    changed = daemon.request("PATCH", target, {"n": 1})
    assert (changed.bucket, changed.json["revision"]) == ({"known": 1, "n": 1}, 2)
    assert changed.json["recovered_from"]["revision"] == 1
    assert "recovered_from" not in daemon.request("GET", target).json
    assert "recovered_from" not in daemon.request("PATCH", target, {"n": 2}).json


def test_what_is_no_device_is_no_bucket(stopped_daemon: Daemon) -> None:
    """A file among the devices' directories is nobody's; a link leads nowhere, and is told."""
    home = stopped_daemon.state_dir / "devices"
    place(stopped_daemon, text(lambda good: good))
    (home / ".DS_Store").write_bytes(b"x")
    (home / "README").write_text("the buckets of our phones")
    elsewhere = stopped_daemon.home / "elsewhere"
    shutil.copytree(home / "phone", elsewhere)
    (home / "linked").symlink_to(elsewhere)
    daemon = stopped_daemon.start()
    listed = daemon.request("GET", "/v1/buckets").json
    assert [(row["device"], row["job"]) for row in listed["buckets"]] == [("phone", "job")]
    assert listed["unreadable"] == ["devices/linked/device.json"]
    counts = daemon.request("GET", "/v1/status").json["counts"]
    assert (counts["devices"], counts["buckets"], counts["device_buckets"]) == (1, 1, 0)
    assert b"bucketd_quarantined_files" in daemon.request("GET", "/metrics").body


def test_edits_are_noticed_beside_what_stands_in_the_way(daemon: Daemon) -> None:
    """That ended the notice of all edits for good, and the next stop with a traceback."""
    for device in ("blocked", "edited"):
        daemon.request("PUT", pair(device, "job"), {"n": 1})
    daemon.request("GET", "/v1/status")  # so that all files are current
    jobs = daemon.bucket_path("blocked", "job").parent
    jobs.rename(daemon.home / "aside")
    jobs.write_text("not a directory")
    with Stream(daemon, "/v1/events?device=edited") as stream:
        replace_file(daemon.bucket_path("edited", "job"), written("edited", "job", {"n": 7}))
        assert stream.next().data["set"] == {"n": 7}
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
