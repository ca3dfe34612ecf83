"""The files of the trash: what goes wrong with them, and when they are deleted for good."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, pair

from bucketd.core.clock_record import ClockRecord
from bucketd.core.trash import Trash as CoreTrash
from bucketd.errors import NotFound
from bucketd.fs import clock, files
from bucketd.model import changes
from bucketd.model.bucket import BucketKey
from bucketd.model.preconditions import Preconditions
from bucketd.model.trashed import TrashedBucket
from bucketd.store.base import Filter, settled
from bucketd.store.file import trash
from bucketd.store.file.store import FileStore, FileStoreOptions

DAY = 86400.0
KEY = BucketKey("phone", "login")
OPTIONS = FileStoreOptions(1 << 20, 1.0, 64 * 1024, None)


def with_store(home: Path, act: Callable[[FileStore], Awaitable[None]]) -> None:
    async def run() -> None:
        store = FileStore(files.open_root(str(home)), str(home), OPTIONS)
        try:
            await act(store)
        finally:
            await store.close()

    asyncio.run(run())


async def deleted(store: FileStore, key: BucketKey = KEY) -> str | None:
    await store.commit(key, changes.merge({"n": 1}), Preconditions())
    return (await store.commit(key, changes.clear(30.0), Preconditions())).trash


async def ids(store: FileStore) -> list[str]:
    return [row.id for row in (await store.trash.list(Filter(), None, 100)).rows]


# --- expiry


class Clocks:
    """The clocks of a host: elapsed time, and the offset of the wall clock to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boottime, self.offset = 100.0, 1_790_000_000.0
        monkeypatch.setattr(clock, "boottime", lambda: self.boottime)
        monkeypatch.setattr(time, "time", lambda: self.boottime + self.offset)


@pytest.mark.parametrize("jump", [200, -200, 40_000])
def test_only_elapsed_time_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    clocks = Clocks(monkeypatch)

    async def act(store: FileStore) -> None:
        kept = CoreTrash(store, ClockRecord(files.open_root(str(tmp_path))), 30.0)
        trash_id = await deleted(store)
        clocks.boottime += 29 * DAY
        assert await kept.expire() == 0
        clocks.offset += jump * DAY
        clocks.boottime += 5
        assert await kept.expire() == 0
        clocks.offset -= jump * DAY
        assert await kept.expire() == 0
        assert await ids(store) == [trash_id]
        clocks.boottime += 2 * DAY
        assert await kept.expire() == 1
        assert await ids(store) == []

    with_store(tmp_path, act)


def test_the_younger_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)

    async def act(store: FileStore) -> None:
        kept = CoreTrash(store, ClockRecord(files.open_root(str(tmp_path))), 30.0)
        await deleted(store)
        clocks.boottime += 20 * DAY
        younger = await deleted(store)
        clocks.boottime += 11 * DAY
        assert len(await ids(store)) == 2
        assert await kept.expire() == 1
        assert await ids(store) == [younger]

    with_store(tmp_path, act)


def test_a_daemon_deletes_for_good_what_is_over(stopped_daemon: Daemon) -> None:
    stopped_daemon.env["BUCKETD_TRASH_DAYS"] = str(2 / DAY)
    daemon = stopped_daemon.start()
    daemon.request("PUT", pair("d", "j"), {"n": 1})
    trash_id = daemon.request("DELETE", pair("d", "j")).json["trash"]
    path = daemon.state_dir / "trash" / f"{trash_id}.json"
    deadline = time.monotonic() + 20
    while path.exists() or daemon.request("GET", "/v1/trash").json["trash"] != []:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert daemon.request("POST", f"/v1/trash/{trash_id}/restore").status == 404
    daemon.kill()
    daemon.start()
    assert daemon.request("GET", "/v1/trash").json["trash"] == []


def test_with_0_days_deletions_are_for_good_and_the_rest_stays(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon.start()
    daemon.request("PUT", pair("d", "before"), {"n": 1})
    trash_id = daemon.request("DELETE", pair("d", "before")).json["trash"]
    daemon.stop()
    daemon.env["BUCKETD_TRASH_DAYS"] = "0"
    daemon.start()
    daemon.request("PUT", pair("d", "after"), {"n": 1})
    assert "trash" not in daemon.request("DELETE", pair("d", "after")).json
    (row,) = daemon.request("GET", "/v1/trash").json["trash"]
    assert (row["id"], row["expires_at"]) == (trash_id, None)
    assert daemon.request("POST", f"/v1/trash/{trash_id}/restore").status == 200


# --- what fails


@pytest.mark.parametrize(
    ("name", "found", "cause"),
    [("free_bytes", 0, "the disk is full"), ("can_create", False, "may not write there")],
)
def test_what_is_known_in_time_gives_no_id(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    found: Any,
    cause: str,
) -> None:
    async def act(store: FileStore) -> None:
        real = getattr(files, name)
        monkeypatch.setattr(
            files, name, lambda *a: found if a[1:] in ((), (("trash",),)) else real(*a)
        )
        assert await deleted(store) is None
        assert (await settled(store.read(KEY))).revision == 0
        assert await ids(store) == []

    with_store(tmp_path, act)
    lines = [line for line in caplog.messages if "deleted for good" in line]
    assert len(lines) == 1
    assert cause in lines[0]


def test_a_file_that_cannot_be_written_does_not_keep_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(trash.Trash, "_write", fail)

    async def act(store: FileStore) -> None:
        trash_id = await deleted(store)
        assert trash_id is not None
        assert await ids(store) == []
        with pytest.raises(NotFound):
            await store.trash.read(trash_id)
        assert not (tmp_path / "devices" / "phone" / "jobs" / "login.json").exists()
        assert (await store.commit(KEY, changes.merge({"n": 2}), Preconditions())).revision == 1

    with_store(tmp_path, act)
    assert sum("deleted for good" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_its_place_goes_to_the_quarantine(tmp_path: Path, kind: str) -> None:
    home, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    if kind == "file":
        (home / "trash").write_text("a note")
    else:
        (home / "trash").symlink_to(elsewhere)

    async def act(store: FileStore) -> None:
        trash_id = await deleted(store)
        assert trash_id is not None
        await store.trash.read(trash_id)
        assert await ids(store) == [trash_id]

    with_store(home, act)
    assert [*elsewhere.iterdir()] == []
    assert len([*(home / "quarantine").iterdir()]) == 1
    assert (home / "trash").is_dir()
    assert (home / "trash").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (home / "trash").glob("*.json")} == {0o600}


def test_a_crash_leaves_a_temporary_file_that_nobody_is_told_of(tmp_path: Path) -> None:
    async def act(store: FileStore) -> None:
        trash_id = await deleted(store)
        assert await ids(store) == [trash_id]
        (tmp_path / "trash" / f".{trash_id}.json.tmp").write_bytes(b"")
        (tmp_path / "trash" / "x").write_bytes(b"")
        page = await store.trash.list(Filter(), None, 10)
        assert page.unreadable == ["trash/x"]

    with_store(tmp_path, act)


def test_a_file_of_another_bucket_is_not_served(tmp_path: Path) -> None:
    async def act(store: FileStore) -> None:
        own, other = await deleted(store), await deleted(store, BucketKey("phone", "other"))
        assert await ids(store) == [other, own]
        home = tmp_path / "trash"
        (home / f"{own}.json").write_bytes((home / f"{other}.json").read_bytes())
        page = await store.trash.list(Filter(), None, 10)
        assert [row.id for row in page.rows] == [other]
        assert page.unreadable == [f"trash/{own}.json"]

    with_store(tmp_path, act)


def test_a_directory_in_the_place_of_a_file_keeps_no_other_one(tmp_path: Path) -> None:
    async def act(store: FileStore) -> None:
        own, other = await deleted(store), await deleted(store, BucketKey("phone", "other"))
        assert own is not None
        assert await ids(store) == [other, own]
        place = tmp_path / "trash" / f"{own}.json"
        place.unlink()
        place.mkdir()
        with pytest.raises(NotFound):
            await store.trash.remove(own)
        assert await store.trash.expire(lambda _deleted: True) == 1
        page = await store.trash.list(Filter(), None, 10)
        assert (page.rows, page.unreadable) == ([], [f"trash/{own}.json"])
        assert place.is_dir()

    with_store(tmp_path, act)


def test_a_restored_bucket_has_its_history_before_files_are_written(tmp_path: Path) -> None:
    async def act(store: FileStore) -> None:
        first = await store.commit(KEY, changes.merge({"n": 1}), Preconditions())
        made = first
        for _ in range(2):
            gone = await store.commit(KEY, changes.clear(30.0), Preconditions())
            assert gone.trash is not None
            # Another bucket of this name lives and dies meanwhile.
            await store.commit(KEY, changes.merge({"other": 1}), Preconditions())
            await store.commit(KEY, changes.clear(30.0), Preconditions())
            restore = changes.restore(TrashedBucket(gone.trash, KEY, made, {}))
            made = await store.commit(KEY, restore, Preconditions())
        assert made.bucket.text == first.bucket.text
        at_once = [one.revision for one in (await store.history(KEY)).revisions]
        await store.trash.list(Filter(), None, 1)
        later = [one.revision for one in (await store.history(KEY)).revisions]
        assert at_once == later == [3, 2, 1]

    with_store(tmp_path, act)
