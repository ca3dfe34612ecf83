"""Old buckets are removed where that is asked for; and a device has only so much room."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, pair

from bucketd.core.clock_record import ClockRecord
from bucketd.core.retention import Retention
from bucketd.core.trash import Trash
from bucketd.errors import ReadOnly
from bucketd.fs import files
from bucketd.model import changes
from bucketd.model.author import UNKNOWN, Author
from bucketd.model.bucket import BucketKey, Snapshot
from bucketd.model.changes import Change
from bucketd.model.preconditions import Preconditions
from bucketd.store.base import Filter, settled
from bucketd.store.file.store import FileStore, FileStoreOptions

ROOM = 10_000


def write_as_of(daemon: Daemon, job: str, updated_at: str, edited: bool = False) -> None:
    """A bucket whose file says so; and is that old itself, unless it was ``edited`` just now."""
    daemon.request("PUT", pair("d", job), {"n": 1})
    daemon.request("GET", "/v1/status")
    path = daemon.bucket_path("d", job)
    envelope: dict[str, Any] = json.loads(path.read_text())
    new = path.with_name("new")
    new.write_text(json.dumps({**envelope, "updated_at": updated_at}))
    if not edited:
        os.utime(new, (0, 0))
    os.rename(new, path)


def jobs(daemon: Daemon) -> set[str]:
    listed = daemon.request("GET", "/v1/buckets").json["buckets"]
    return {row["job"] for row in listed}


def test_nothing_is_removed_unless_that_is_asked_for(stopped_daemon: Daemon) -> None:
    stopped_daemon.env["BUCKETD_RETENTION_INTERVAL_SECONDS"] = "0.05"
    daemon = stopped_daemon.start()
    write_as_of(daemon, "old", "2020-01-01T00:00:00.000Z")
    time.sleep(0.3)
    assert jobs(daemon) == {"old"}


def test_a_reload_is_enough(stopped_daemon: Daemon) -> None:
    """Also where the sweep before that was due in an hour."""
    stopped_daemon.config.touch()
    daemon = stopped_daemon.start()
    write_as_of(daemon, "old", "2020-01-01T00:00:00.000Z")
    daemon.config.write_text("[retention]\ndays = 30\ninterval_seconds = 0.05\n")
    os.kill(daemon.pid, signal.SIGHUP)
    deadline = time.monotonic() + 20
    while jobs(daemon):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_old_goes_and_all_else_stays(stopped_daemon: Daemon) -> None:
    stopped_daemon.env |= {
        "BUCKETD_RETENTION_DAYS": "30",
        "BUCKETD_RETENTION_INTERVAL_SECONDS": "0.05",
    }
    stopped_daemon.extra_args = ("--log-level", "info")
    daemon = stopped_daemon.start()
    daemon.request("PUT", pair("d", "new"), {"n": 1})
    damaged = daemon.bucket_path("d", "damaged")
    daemon.request("GET", "/v1/status")
    damaged.write_text("{")
    write_as_of(daemon, "edited", "2020-01-01T00:00:00.000Z", edited=True)
    write_as_of(daemon, "old", "2020-01-01T00:00:00.000Z")
    deadline = time.monotonic() + 20
    while "old" in jobs(daemon):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert jobs(daemon) == {"new", "edited"}
    assert damaged.read_text() == "{"
    assert daemon.request("GET", "/v1/status").json["counts"]["swept"] == 1
    assert b"bucketd_swept_buckets_total 1" in daemon.request("GET", "/metrics").body
    assert daemon.stop() == 0
    assert daemon.log.count("removed 1 bucket not written for 30 days") == 1


class Busy(FileStore):
    """A store where somebody else is always a little faster than who removes something."""

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
        author: Author = UNKNOWN,
    ) -> asyncio.Future[Snapshot]:
        if preconditions:
            super().commit(key, changes.merge({"late": True}), Preconditions())
        return super().commit(key, change, preconditions, automation, author)


def test_what_is_written_meanwhile_stays(tmp_path: Path) -> None:
    async def run() -> None:
        options = FileStoreOptions(1 << 20, 5.0, 1 << 22, None)
        store = Busy(files.open_root(str(tmp_path)), str(tmp_path), options)
        key = BucketKey("d", "old")
        await store.commit(key, changes.merge({"n": 1}), Preconditions())
        clock = ClockRecord(files.open_root(str(tmp_path)))
        retention = Retention(store, clock, Trash(store, clock, 0.0), days=1e-9, interval=1.0)
        await asyncio.sleep(0.002)  # a time has milliseconds
        assert await retention.sweep(asyncio.Event()) == retention.swept == 0
        assert (await settled(store.read(key))).bucket.text == b'{"n":1,"late":true}'
        await store.close()

    asyncio.run(run())


class Refusing(FileStore):
    """Refuses to change one bucket, as where its directory belongs to another user."""

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
        author: Author = UNKNOWN,
    ) -> asyncio.Future[Snapshot]:
        if preconditions and key.job == "b":
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(ReadOnly("cannot write it: Permission denied"))
            return failed
        return super().commit(key, change, preconditions, automation, author)


def test_a_bucket_that_cannot_be_removed_keeps_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        options = FileStoreOptions(1 << 20, 5.0, 1 << 22, None)
        store = Refusing(files.open_root(str(tmp_path)), str(tmp_path), options)
        for job in ("a", "b", "c"):
            await store.commit(BucketKey("d", job), changes.merge({"n": 1}), Preconditions())
        clock = ClockRecord(files.open_root(str(tmp_path)))
        retention = Retention(store, clock, Trash(store, clock, 0.0), days=1e-9, interval=1.0)
        await asyncio.sleep(0.002)  # a time has milliseconds
        assert await retention.sweep(asyncio.Event()) == 2
        assert [row.job for row in (await store.list(Filter(), None, 10)).rows] == ["b"]
        await store.close()

    asyncio.run(run())
    assert "cannot remove an old bucket: cannot write it: Permission denied" in caplog.text


@pytest.fixture
def roomy(stopped_daemon: Daemon) -> Daemon:
    stopped_daemon.env["BUCKETD_LIMITS_MAX_DEVICE_BYTES"] = str(ROOM)
    return stopped_daemon.start()


def put(daemon: Daemon, job: str | None, size: int, device: str = "d") -> int:
    answer = daemon.request("PUT", pair(device, job), {"p": "x" * (size - 8)})
    if answer.status == 413:
        assert answer.json["code"] == "too_large"
        assert "max_device_bytes" in answer.json["error"]
    return answer.status


def test_a_device_has_so_much_room(roomy: Daemon) -> None:
    assert put(roomy, "one", 6000) == 200
    assert put(roomy, None, 4000) == 200
    assert put(roomy, "two", 20) == 413
    assert put(roomy, "two", 20, device="another") == 200
    assert put(roomy, "one", 6001) == 413
    assert put(roomy, "one", 5900) == 200
    assert put(roomy, "two", 100) == 200
    assert put(roomy, "three", 20) == 413
    assert roomy.request("DELETE", pair("d")).status == 200
    assert put(roomy, "three", 4000) == 200
    refused = roomy.request("PATCH", pair("d", "four"), {"p": "x"})
    assert refused.json["details"][0] == {"device": "d", "job": "one", "bytes": 5900}
    assert roomy.request("GET", pair("d", "four")).json["revision"] == 0


def test_what_was_there_before_counts_and_may_stay(daemon: Daemon) -> None:
    put(daemon, "one", 12_000)
    daemon.stop()
    daemon.env["BUCKETD_LIMITS_MAX_DEVICE_BYTES"] = str(ROOM)
    daemon.start()
    assert put(daemon, "two", 20) == 413
    assert put(daemon, "one", 11_000) == 200  # smaller, if not small enough
    assert put(daemon, "one", 100) == 200
    assert put(daemon, "two", 20) == 200


def test_the_room_is_not_given_twice(roomy: Daemon) -> None:
    """Many at once, of which each alone would fit."""
    answers: list[int] = []

    def write(number: int) -> None:
        answers.append(put(roomy, f"job {number}", 3000))

    writers = [threading.Thread(target=write, args=(n,)) for n in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(answers) == [200] * 3 + [413] * 9
    listed = roomy.request("GET", "/v1/buckets").json["buckets"]
    assert sum(row["size"] for row in listed) == 9000


def test_a_refused_write_takes_no_room(roomy: Daemon) -> None:
    roomy.request("PUT", "/v1/schemas/strict", {"fields": [{"name": "n", "type": "number"}]})
    for _ in range(3):
        wrong = {"n": "x" * 6000}
        target = f"{pair('d', 'job')}?automation=strict"
        assert roomy.request("PUT", target, wrong).status == 422
        answer = roomy.request("PUT", pair("d", "job"), wrong, headers={"If-Match": "*"})
        assert answer.status == 412
    assert put(roomy, "two", 9000) == 200
