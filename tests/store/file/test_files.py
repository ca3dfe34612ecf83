"""The files on disk: their shape, and what other programs may do to them under the lock."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from external_edits import (
    edit,
    envelope,
    lock_held_elsewhere,
    quarantine_entries,
    replace_file,
    write_lock,
    written,
)
from harness import Daemon, new_daemon, pair

FIELDS = [
    "format",
    "device",
    "job",
    "automation",
    "revision",
    "created_at",
    "updated_at",
    "bucket",
    "seal",
]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_envelope(shared_daemon: Daemon) -> None:
    bucket = {"token": "ä", "n": 2**64 - 1, "null": None}
    target = f"{pair('phone', 'login')}?automation=shop"
    assert shared_daemon.request("PUT", target, bucket).bucket == bucket
    document = envelope(shared_daemon, "phone", "login")
    assert sorted(document) == sorted(FIELDS)
    assert document["format"] == "bucketd/1"
    assert (document["device"], document["job"]) == ("phone", "login")
    assert document["automation"] == "shop"
    assert document["revision"] == 1
    assert document["bucket"] == bucket


def test_times_are_utc_and_created_at_stays(shared_daemon: Daemon) -> None:
    shared_daemon.request("PUT", pair("phone", "times"), {"n": 1})
    first = envelope(shared_daemon, "phone", "times")
    shared_daemon.request("PATCH", pair("phone", "times"), {"n": 2})
    second = envelope(shared_daemon, "phone", "times")
    assert second["created_at"] == first["created_at"]
    assert second["updated_at"] > first["updated_at"]
    for text in (first["created_at"], second["updated_at"]):
        assert text.endswith("Z")
        assert datetime.fromisoformat(text).utcoffset() == timedelta(0)


def test_the_device_buckets_file_names_no_job(shared_daemon: Daemon) -> None:
    shared_daemon.request("PUT", pair("bare"), {"n": 1})
    document = envelope(shared_daemon, "bare")
    assert document["job"] is None
    assert document["device"] == "bare"
    assert not (shared_daemon.bucket_path("bare").parent / "jobs").exists()


def test_text_is_indented_utf8_with_a_final_newline(shared_daemon: Daemon) -> None:
    shared_daemon.request("PUT", pair("phone", "text"), {"key": {"inner": "ä😀"}})
    with write_lock(shared_daemon):
        text = shared_daemon.bucket_path("phone", "text").read_bytes().decode()
    assert text.startswith('{\n  "format": "bucketd/1",\n')
    assert text.endswith("\n}\n")
    assert "ä😀" in text
    assert '\n    "key": {\n      "inner"' in text


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o177])
def test_modes_whatever_the_umask(stopped_daemon: Daemon, umask: int) -> None:
    stopped_daemon.program = ("-c", f"import os; os.umask({umask}); {RUN_MODULE}")
    stopped_daemon.start()
    stopped_daemon.request("PUT", pair("phone", "modes"), {"n": 1})
    stopped_daemon.request("PUT", pair("phone"), {"n": 1})
    with write_lock(stopped_daemon):
        paths = [stopped_daemon.state_dir, *stopped_daemon.state_dir.rglob("*")]
        seen = {(path.is_dir(), mode(path)) for path in paths}
    assert seen == {(True, 0o700), (False, 0o600)}


RUN_MODULE = "import runpy; runpy.run_module('bucketd', run_name='__main__')"


@pytest.mark.parametrize(
    "name",
    [
        *("/", "..", ".", "%2e", "a/../b", ".hidden", "a.b", "end.", "with space", "~", "*"),
        *("x" * 128, "Ä" * 100, "a😀" * 60, "😀" * 128, "CON", "jobs", "device.json", "-rf"),
    ],
)
def test_path_by_the_naming_rule(shared_daemon: Daemon, name: str) -> None:
    shared_daemon.request("PUT", pair(name, name), {"name": name})
    shared_daemon.request("PUT", pair(name), {"device": name})
    document = envelope(shared_daemon, name, name)
    assert (document["device"], document["job"]) == (name, name)
    assert document["bucket"] == {"name": name}
    assert envelope(shared_daemon, name)["bucket"] == {"device": name}
    assert (
        shared_daemon.bucket_path(name, name)
        .resolve()
        .is_relative_to((shared_daemon.state_dir / "devices").resolve())
    )


def test_names_that_differ_in_case_have_files_of_their_own(shared_daemon: Daemon) -> None:
    for name in ("Case", "case"):
        shared_daemon.request("PUT", pair(name, name), {"name": name})
    for name in ("Case", "case"):
        assert envelope(shared_daemon, name, name)["bucket"] == {"name": name}


@pytest.mark.parametrize("job", ["job", None])
def test_an_edit_is_seen_by_get_as_one_more_revision(
    shared_daemon: Daemon, job: str | None
) -> None:
    target = pair("edited-get", job)
    before = shared_daemon.request("PUT", target, {"n": 1})
    edit(shared_daemon, lambda bucket: {**bucket, "hand": True}, "edited-get", job)
    after = shared_daemon.request("GET", target)
    assert after.bucket == {"n": 1, "hand": True}
    assert after.json["revision"] == 2
    assert after.etag != before.etag
    again = shared_daemon.request("GET", target)
    assert (again.json["revision"], again.etag) == (2, after.etag)


@pytest.mark.parametrize("job", ["job", None])
def test_an_edit_is_seen_by_set(shared_daemon: Daemon, job: str | None) -> None:
    target = pair("edited-set", job)
    shared_daemon.request("PUT", target, {"n": 1})
    edit(shared_daemon, lambda bucket: {**bucket, "hand": True}, "edited-set", job)
    after = shared_daemon.request("PATCH", target, {"m": 2})
    assert after.bucket == {"n": 1, "hand": True, "m": 2}
    assert after.json["revision"] == 3
    document = envelope(shared_daemon, "edited-set", job)
    assert (document["revision"], document["bucket"]) == (3, after.bucket)


@pytest.mark.parametrize("drop", [(), ("seal",)])
def test_edits_with_a_get_between(shared_daemon: Daemon, drop: tuple[str, ...]) -> None:
    """The file system gives a freed inode to the next file, so that an edit may get an old one."""
    job = "dropped" if drop else "kept"
    target = pair("edits", job)
    shared_daemon.request("PUT", target, {"n": 1})
    for number in (2, 3, 4):
        edit(shared_daemon, lambda bucket: {"n": bucket["n"] + 1}, "edits", job, drop)
        seen = shared_daemon.request("GET", target)
        assert (seen.bucket, seen.json["revision"]) == ({"n": number}, number)


@pytest.mark.parametrize("drop", [(), ("seal",)])
def test_two_edits_without_a_get_between(shared_daemon: Daemon, drop: tuple[str, ...]) -> None:
    job = "dropped" if drop else "kept"
    target = pair("blind", job)
    shared_daemon.request("PUT", target, {"n": 1})
    for _ in range(2):
        edit(shared_daemon, lambda bucket: {"n": bucket["n"] + 1}, "blind", job, drop)
    seen = shared_daemon.request("GET", target)
    assert seen.bucket == {"n": 3}
    assert seen.json["revision"] in (2, 3)


def test_an_edit_makes_old_guards_fail(shared_daemon: Daemon) -> None:
    target = pair("edited", "guard")
    old = shared_daemon.request("PUT", target, {"n": 1})
    edit(shared_daemon, lambda _: {"n": 2}, "edited", "guard")
    assert old.etag is not None
    refused = shared_daemon.request("PATCH", target, {"n": 9}, {"If-Match": old.etag})
    assert (refused.status, refused.json["revision"]) == (412, 2)
    fresh = shared_daemon.request("GET", target, headers={"If-None-Match": old.etag})
    assert (fresh.status, fresh.bucket) == (200, {"n": 2})


def test_an_edit_that_changes_nothing_but_the_file(shared_daemon: Daemon) -> None:
    target = pair("edited", "touched")
    shared_daemon.request("PUT", target, {"n": 1})
    edit(shared_daemon, lambda bucket: bucket, "edited", "touched")
    seen = shared_daemon.request("GET", target)
    assert seen.bucket == {"n": 1}
    assert seen.json["revision"] in (1, 2)


def test_an_edit_to_an_empty_bucket(shared_daemon: Daemon) -> None:
    target = pair("edited", "emptied")
    shared_daemon.request("PUT", target, {"n": 1})
    edit(shared_daemon, lambda _: {}, "edited", "emptied")
    seen = shared_daemon.request("GET", target)
    assert (seen.bucket, seen.json["revision"]) == ({}, 2)


@pytest.mark.parametrize("drop", [("seal",), ("seal", "updated_at", "created_at")])
def test_an_edit_that_drops_fields_the_editor_does_not_know(
    shared_daemon: Daemon, drop: tuple[str, ...]
) -> None:
    job = "-".join(drop)
    target = pair("edited", job)
    shared_daemon.request("PUT", target, {"n": 1})
    edit(shared_daemon, lambda _: {"n": 2}, "edited", job, drop=drop)
    seen = shared_daemon.request("GET", target)
    assert (seen.bucket, seen.json["revision"]) == ({"n": 2}, 2)
    assert shared_daemon.request("PATCH", target, {"m": 1}).json["revision"] == 3
    assert set(FIELDS) == set(envelope(shared_daemon, "edited", job))


def test_an_edit_with_a_revision_of_its_own_cannot_go_back(shared_daemon: Daemon) -> None:
    target = pair("edited", "revision")
    for number in range(5):
        shared_daemon.request("PATCH", target, {"n": number})
    path = shared_daemon.bucket_path("edited", "revision")
    with write_lock(shared_daemon):
        replace_file(path, written("edited", "revision", {"hand": 1}, revision=1))
    seen = shared_daemon.request("GET", target)
    assert (seen.bucket, seen.json["revision"]) == ({"hand": 1}, 6)


def test_a_file_made_by_hand_becomes_a_bucket(shared_daemon: Daemon) -> None:
    target = pair("edited", "new")
    shared_daemon.request("PUT", pair("edited", "other"), {"n": 1})
    assert shared_daemon.request("GET", target).bucket == {}
    with write_lock(shared_daemon):
        replace_file(shared_daemon.bucket_path("edited", "new"), written("edited", "new", {"h": 1}))
    seen = shared_daemon.request("GET", target)
    assert seen.bucket == {"h": 1}
    assert seen.json["revision"] >= 1
    assert shared_daemon.request("PATCH", target, {"m": 1}).bucket == {"h": 1, "m": 1}


def test_a_file_removed_by_hand_is_a_removed_bucket(shared_daemon: Daemon) -> None:
    target = pair("edited", "removed")
    old = shared_daemon.request("PUT", target, {"n": 1})
    with write_lock(shared_daemon):
        shared_daemon.bucket_path("edited", "removed").unlink()
    seen = shared_daemon.request("GET", target)
    assert (seen.bucket, seen.json["revision"], seen.etag) == ({}, 0, None)
    fresh = shared_daemon.request("PUT", target, {"n": 1})
    assert fresh.json["revision"] == 1
    assert fresh.etag != old.etag


def test_a_file_removed_between_two_crashes_stays_removed(daemon: Daemon) -> None:
    """What one start has brought into files is not for the next one to bring there again."""
    target = pair("edited", "removed")
    daemon.request("PUT", target, {"n": 1})
    daemon.kill()
    daemon.start()
    with write_lock(daemon):
        daemon.bucket_path("edited", "removed").unlink()
    daemon.kill()
    daemon.start()
    assert not daemon.bucket_path("edited", "removed").exists()
    assert daemon.request("GET", target).bucket == {}


def test_an_edit_that_was_taken_over_is_none_to_keep_after_a_crash(daemon: Daemon) -> None:
    """The file still has the old seal when the daemon is killed, and says what it should say."""
    target = pair("edited", "adopted")
    daemon.request("PUT", target, {"n": 1})
    edit(daemon, lambda _: {"n": 2}, "edited", "adopted")
    assert daemon.request("PATCH", target, {}).json["revision"] == 2
    daemon.kill()
    daemon.start()
    assert daemon.request("GET", target).json["revision"] == 2
    assert not list((daemon.state_dir / "quarantine").glob("*"))


@pytest.mark.parametrize("job", ["job", None])
def test_an_edit_while_the_daemon_is_stopped(daemon: Daemon, job: str | None) -> None:
    target = pair("edited", job)
    before = daemon.request("PUT", target, {"n": 1})
    assert daemon.stop() == 0
    edit(daemon, lambda _: {"n": 2}, "edited", job)
    daemon.start()
    seen = daemon.request("GET", target)
    assert (seen.bucket, seen.json["revision"]) == ({"n": 2}, 2)
    assert seen.etag != before.etag
    assert daemon.request("PATCH", target, {"m": 1}).json["revision"] == 3


def test_a_seen_edit_lasts_over_restarts(daemon: Daemon) -> None:
    target = pair("edited", "restart")
    daemon.request("PUT", target, {"n": 1})
    edit(daemon, lambda _: {"n": 2}, "edited", "restart")
    seen = daemon.request("GET", target)
    daemon.restart()
    again = daemon.request("GET", target)
    assert (again.bucket, again.json["revision"], again.etag) == ({"n": 2}, 2, seen.etag)
    daemon.kill()
    daemon.start()
    last = daemon.request("GET", target)
    assert (last.bucket, last.json["revision"], last.etag) == ({"n": 2}, 2, seen.etag)


def test_revisions_and_etags_last_over_a_clean_restart(daemon: Daemon) -> None:
    target = pair("phone", "restart")
    for number in range(3):
        last = daemon.request("PATCH", target, {"n": number})
    daemon.restart()
    seen = daemon.request("GET", target)
    assert (seen.bucket, seen.json["revision"], seen.etag) == ({"n": 2}, 3, last.etag)


def test_flock_of_util_linux_takes_the_same_lock(shared_daemon: Daemon) -> None:
    target = pair("edited", "flock")
    shared_daemon.request("PUT", target, {"n": 1})
    path = shared_daemon.bucket_path("edited", "flock")
    script = 'sed "s/\\"n\\": 1/\\"n\\": 2/" "$1" > "$1.new" && mv "$1.new" "$1"'
    lock = shared_daemon.state_dir / "write.lock"
    command = ["flock", str(lock), "sh", "-c", script, "sh", str(path)]
    subprocess.run(command, check=True, timeout=20)
    assert shared_daemon.request("GET", target).bucket == {"n": 2}
    assert shared_daemon.request("PATCH", target, {"m": 1}).json["revision"] == 3


def test_flock_of_util_linux_keeps_writes_out(shared_daemon: Daemon) -> None:
    target = pair("edited", "flock-wait")
    shared_daemon.request("PUT", target, {"n": 1})
    lock = str(shared_daemon.state_dir / "write.lock")
    with subprocess.Popen(
        ["flock", lock, "sh", "-c", "echo held; sleep 0.6"], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        begun = time.monotonic()
        assert shared_daemon.request("PATCH", target, {"n": 2}).status == 200
        assert time.monotonic() - begun > 0.4


def test_a_held_lock_delays_a_write_and_no_read(shared_daemon: Daemon) -> None:
    target = pair("locked", "wait")
    shared_daemon.request("PUT", target, {"n": 1})
    shared_daemon.request("PUT", pair("locked", "uncached"), {"n": 1})
    with ThreadPoolExecutor(1) as pool, lock_held_elsewhere(shared_daemon):
        write = pool.submit(shared_daemon.request, "PATCH", target, {"n": 2})
        begun = time.monotonic()
        for _ in range(20):
            assert shared_daemon.request("GET", target).bucket == {"n": 1}
        assert shared_daemon.request("GET", pair("locked", "uncached")).bucket == {"n": 1}
        assert shared_daemon.request("GET", pair("locked", "absent")).bucket == {}
        assert shared_daemon.request("GET", "/v1/status").status == 200
        assert time.monotonic() - begun < 2
        time.sleep(0.3)
        assert not write.done()
        on_disk = json.loads(shared_daemon.bucket_path("locked", "wait").read_bytes())
        assert on_disk["bucket"] == {"n": 1}
    answer = write.result(10)
    assert (answer.bucket, answer.json["revision"]) == ({"n": 2}, 2)


def test_the_lock_comes_free_when_its_holder_dies(shared_daemon: Daemon) -> None:
    target = pair("locked", "killed")
    with ThreadPoolExecutor(1) as pool, lock_held_elsewhere(shared_daemon) as holder:
        write = pool.submit(shared_daemon.request, "PATCH", target, {"n": 2})
        time.sleep(0.2)
        holder.kill()
        assert write.result(10).bucket == {"n": 2}


@pytest.mark.parametrize("what", ["nothing", "guard", "keys", "too large", "corrupt"])
def test_the_lock_comes_free_after_a_write_that_writes_nothing(daemon: Daemon, what: str) -> None:
    target = pair("locked", what)
    path = daemon.bucket_path("locked", what)
    if what == "corrupt":
        path.parent.mkdir(parents=True, mode=0o700)
        path.write_bytes(b"{")
        assert daemon.request("GET", target).status == 500
    answers = {
        "nothing": lambda: daemon.request("PATCH", target, {}),
        "guard": lambda: daemon.request("PATCH", target, {"n": 1}, {"If-Match": '"0123"'}),
        "keys": lambda: daemon.request("DELETE", f"{target}?key=absent"),
        "too large": lambda: daemon.request("PUT", target, {"n": "x" * 1048570}),
        "corrupt": lambda: daemon.request("PATCH", target, {"n": 1}),
    }
    status = {"guard": 412, "too large": 413, "corrupt": 500}.get(what, 200)
    assert answers[what]().status == status
    lock = str(daemon.state_dir / "write.lock")
    assert subprocess.run(["flock", "-w", "2", lock, "true"]).returncode == 0


@pytest.fixture(scope="module")
def impatient() -> Iterator[Daemon]:
    daemon = new_daemon(env={"BUCKETD_STORE_LOCK_TIMEOUT_SECONDS": "1"})
    try:
        yield daemon.start()
    finally:
        daemon.remove()


def test_a_lock_held_for_ever_ends_writes_with_503(impatient: Daemon) -> None:
    target = pair("locked", "ever")
    impatient.request("PUT", target, {"n": 1})
    with lock_held_elsewhere(impatient):
        begun = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            writes = [
                pool.submit(impatient.request, "PATCH", target, {str(n): n}) for n in range(4)
            ]
            refused = [write.result(10) for write in writes]
        assert 0.5 < time.monotonic() - begun < 4
        for answer in refused:
            assert answer.status == 503, answer
            assert answer.json["success"] is False
            assert "lock" in answer.json["error"]
            assert "retry-after" in answer.headers
        assert impatient.request("GET", target).json["revision"] == 1
    after = impatient.request("PATCH", target, {"n": 2})
    assert (after.bucket, after.json["revision"]) == ({"n": 2}, 2)


def test_an_edit_made_while_a_write_waits_is_merged_with_it(impatient: Daemon) -> None:
    target = pair("locked", "merge")
    impatient.request("PUT", target, {"n": 1})
    path = impatient.bucket_path("locked", "merge")
    with ThreadPoolExecutor(1) as pool:
        with write_lock(impatient):
            write = pool.submit(impatient.request, "PATCH", target, {"m": 1})
            time.sleep(0.2)
            document = json.loads(path.read_bytes())
            document["bucket"]["hand"] = True
            replace_file(path, json.dumps(document).encode())
        answer = write.result(10)
    assert answer.bucket == {"n": 1, "m": 1, "hand": True}
    assert answer.json["revision"] == 3


def test_a_reader_of_the_file_never_sees_a_torn_one(shared_daemon: Daemon) -> None:
    target, done = pair("torn", "job"), threading.Event()
    shared_daemon.request("PUT", target, {"n": 0, "text": ""})
    with write_lock(shared_daemon):
        path = shared_daemon.bucket_path("torn", "job")

    def write() -> None:
        with shared_daemon.connect() as sock:
            for number in range(300):
                body = {"n": number, "text": f"{number:04}" * (number % 50) * 100}
                assert shared_daemon.request("PUT", target, body, sock=sock).status == 200
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        seen: list[int] = []
        while not done.is_set() and not writer.done():
            document = json.loads(path.read_bytes())
            bucket = document["bucket"]
            assert bucket["text"] == f"{bucket['n']:04}" * (bucket["n"] % 50) * 100
            seen.append(document["revision"])
        writer.result(10)
    assert seen == sorted(seen)
    assert envelope(shared_daemon, "torn", "job")["bucket"]["n"] == 299


def test_lock_free_means_files_are_current(shared_daemon: Daemon) -> None:
    for number in range(1, 40):
        answer = shared_daemon.request("PUT", pair("current", str(number % 3)), {"n": number})
        document = envelope(shared_daemon, "current", str(number % 3))
        assert (document["bucket"], document["revision"]) == (
            {"n": number},
            answer.json["revision"],
        )


def test_files_are_current_after_a_clean_stop(daemon: Daemon) -> None:
    for number in range(30):
        daemon.request("PUT", pair("phone", str(number)), {"n": number})
    assert daemon.stop() == 0
    for number in range(30):
        document = json.loads(daemon.bucket_path("phone", str(number)).read_bytes())
        assert document["bucket"] == {"n": number}


def test_nothing_is_left_beside_the_files(daemon: Daemon) -> None:
    for number in range(20):
        daemon.request("PATCH", pair("phone", "job"), {"n": number})
    daemon.request("PUT", pair("phone", "gone"), {"n": 1})
    daemon.request("DELETE", pair("phone", "gone"))
    with write_lock(daemon):
        jobs = daemon.bucket_path("phone", "job").parent
        assert [path.name for path in jobs.iterdir()] == ["job.json"]


INCREMENT = """
import fcntl, json, os, sys
lock_path, path, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(times):
    with open(lock_path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path) as file:
            document = json.load(file)
        document["bucket"]["hand"] += 1
        if sys.argv[4:]:
            document.pop(sys.argv[4], None)
        with open(path + ".new", "w") as file:
            json.dump(document, file)
        os.rename(path + ".new", path)
"""


@pytest.mark.parametrize("drop", [(), ("seal",)])
@pytest.mark.parametrize("unlinked", [False, True])
def test_edits_and_writes_at_the_same_time_lose_nothing(
    daemon: Daemon, unlinked: bool, drop: tuple[str, ...]
) -> None:
    """Also after somebody removed the lock file, and with it what others may be waiting on."""
    target = pair("both", "job")
    daemon.request("PUT", target, {"hand": 0, "api": 0})
    if unlinked:
        with write_lock(daemon):
            (daemon.state_dir / "write.lock").unlink()
        daemon.request("PUT", pair("both", "other"), {"n": 1})
    lock, path = daemon.state_dir / "write.lock", daemon.bucket_path("both", "job")
    if unlinked:
        assert lock.exists(), "the daemon writes under a lock that nobody else can take"
    command = [sys.executable, "-c", INCREMENT, str(lock), str(path), "60", *drop]
    with write_lock(daemon):
        assert path.exists()
    with subprocess.Popen(command) as editor, daemon.connect() as sock:
        number = 0
        while editor.poll() is None or number < 20:
            number += 1
            assert daemon.request("PATCH", target, {"api": number}, sock=sock).status == 200
    assert editor.returncode == 0
    assert daemon.request("GET", target).bucket == {"hand": 60, "api": number}


def test_the_lock_is_exclusive_after_it_was_unlinked(impatient: Daemon) -> None:
    """The new file is the lock: whoever holds it keeps the daemon out."""
    target = pair("locked", "unlinked")
    impatient.request("PUT", target, {"n": 1})
    with write_lock(impatient):  # else the daemon may still hold the old one, for its files
        (impatient.state_dir / "write.lock").unlink()
    with lock_held_elsewhere(impatient):
        assert impatient.request("PATCH", target, {"n": 2}).status == 503
        assert impatient.request("GET", target).bucket == {"n": 1}
    assert impatient.request("PATCH", target, {"n": 3}).json["revision"] == 2


def test_edits_of_the_same_length_within_one_tick_of_the_clock(shared_daemon: Daemon) -> None:
    """Inode, size and time of the last edit may then all be those of the daemon's own file."""
    target = pair("edited", "tick")
    shared_daemon.request("PUT", target, {"n": 0})
    path = shared_daemon.bucket_path("edited", "tick")
    for _ in range(60):
        before = shared_daemon.request("PUT", target, {"n": 1}).json["revision"]
        with write_lock(shared_daemon):
            for number in (b"2", b"3"):
                text = path.read_bytes().replace(b'"seal"', b'"note"')
                replace_file(path, re.sub(rb'"n": \d', b'"n": ' + number, text))
        seen = shared_daemon.request("GET", target)
        assert seen.bucket == {"n": 3}
        assert before < seen.json["revision"] <= before + 2


def test_a_nested_bucket_is_no_file_of_many_times_its_size(stopped_daemon: Daemon) -> None:
    """Indented, this one would have 80 MB, more than is read back."""
    daemon, target = stopped_daemon.start(), pair("nested", "job")
    large = b'{"a":' + b"[" * 200 + b",".join([b"1"] * 200_000) + b"]" * 200 + b"}"
    small = b'{"a":' + b"[" * 200 + b",".join([b"1"] * 2_000) + b"]" * 200 + b"}"
    for body in (large, small):
        assert daemon.request("PUT", target, body).status == 200
        daemon.stop()
        text = daemon.bucket_path("nested", "job").read_bytes()
        assert len(text) < 2 * len(body) + 80_000
        assert text.startswith(b'{\n  "format": "bucketd/1",\n')
        daemon.start()
        assert daemon.request("GET", target).bucket == json.loads(body)
        assert quarantine_entries(daemon) == []
