"""The journal in use: its size changed between two starts, and files that do not get durable."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from bucketd.errors import Internal
from bucketd.fs import files
from bucketd.fs.locks import WriteLock
from bucketd.model import changes
from bucketd.model.bucket import BucketKey, Snapshot, timestamp
from bucketd.model.document import Document
from bucketd.model.preconditions import Preconditions
from bucketd.model.revisions import DEFAULT_LIMITS
from bucketd.settings.sections import StoreSettings
from bucketd.store.file import (
    flusher,
    journal,
    journal_writer,
    pipeline,
    records,
    recovery,
)
from bucketd.store.file.bucket_files import BucketFiles
from bucketd.store.file.history_files import HistoryFiles
from bucketd.store.file.journal import Journal
from bucketd.store.file.records import Record
from bucketd.store.file.store import FileStore, FileStoreOptions
from bucketd.store.file.trash import Trash

LARGE, SMALL = 64 * 1024, 16 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    root = files.open_root(str(tmp_path))
    yield root
    os.close(root)


def snapshot(number: int) -> Snapshot:
    now = timestamp()
    return Snapshot(Document(b'{"n":%d}' % number), number, f"{number:016x}", None, now, now)


def written(root: int, size: int, upto: int) -> list[Record]:
    """A journal with that many bytes of records in one segment, left as a crash leaves it."""
    log, made = Journal(root, size), []
    log.begin_segment()
    while log.position.offset < upto:
        key = BucketKey("phone", f"job{len(made)}")
        made.append(Record(key, None, snapshot(len(made) + 1)))
        log.append([records.encode(made[-1])])
    log.sync()
    log.close()
    return made


@pytest.mark.parametrize("size", [SMALL, LARGE, 2 * LARGE])
def test_another_size_loses_nothing(root: int, size: int) -> None:
    made = written(root, LARGE, 60_000)
    log = Journal(root, size)
    assert log.replay == made
    assert log.find(made[-1].key) == made[-1]
    log.close()


def test_a_segment_that_is_begun_anew_has_the_new_size(root: int, tmp_path: Path) -> None:
    written(root, LARGE, 60_000)
    log = Journal(root, SMALL)
    for _ in journal.NAMES:
        log.begin_segment()
    log.close()
    assert [(tmp_path / "journal" / n).stat().st_size for n in journal.NAMES] == [SMALL] * 2


def test_a_journal_of_version_1_is_replayed_and_continued(root: int, tmp_path: Path) -> None:
    """A crash, an upgrade, more changes, and one more crash before any file is written."""
    key, large = BucketKey("phone", "job"), Document.of({"login": "x" * 9000, "n": 1})
    with mock.patch.object(journal, "VERSION", 1):
        log = Journal(root, LARGE)
        log.begin_segment()
        log.append([records.encode(Record(key, None, snapshot(1)._replace(bucket=large)))])
        log.sync()
        log.close()

    async def run() -> None:
        store = FileStore(os.dup(root), str(tmp_path), FileStoreOptions(1 << 20, 1.0, LARGE, None))
        for number in range(2, 5):
            await store.commit(key, changes.merge({"n": number}), Preconditions())
        shutil.copytree(tmp_path / "journal", tmp_path / "crashed" / "journal")
        await store.close()

    asyncio.run(run())
    crashed = files.open_root(str(tmp_path / "crashed"))
    log = Journal(crashed, LARGE)
    assert [record.after.revision for record in log.replay] == [2, 3, 4]
    assert log.replay[-1].after.bucket == Document.of({"login": "x" * 9000, "n": 4})
    log.close()
    os.close(crashed)
    versions = {text[8] for text in (p.read_bytes() for p in tmp_path.glob("crashed/journal/*"))}
    assert versions == {1, 2}
    # The login is there once for each version, however many changes there were.
    texts = b"".join(p.read_bytes() for p in tmp_path.glob("crashed/journal/*"))
    assert texts.count(b"x" * 9000) == 2


class LosingDisk:
    """``sync_all`` that fails at first: what it should have kept is lost then, and not told again.

    ``volatile``: the files that would not survive a power cut now.
    """

    def __init__(self, devices: Path, failures: int) -> None:
        self.devices, self.failures = devices, failures
        self.tried = 0
        self.durable: set[files.StatKey] = set()
        self.lost: set[files.StatKey] = set()

    @property
    def present(self) -> set[files.StatKey]:
        return {files.stat_key_of(path.stat()) for path in self.devices.rglob("*.json")}

    @property
    def volatile(self) -> set[files.StatKey]:
        return self.present - self.durable

    def sync_all(self, _root: int) -> None:
        self.tried += 1
        if self.tried <= self.failures:
            self.lost |= self.volatile
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.durable |= self.present - self.lost


async def sets(store: FileStore, device: str, count: int, length: int) -> None:
    for number in range(count):
        change = changes.merge({"n": number, "pad": "x" * length})
        await store.commit(BucketKey(device, f"job{number % 3}"), change, Preconditions())


async def idle_until_synced(devices: LosingDisk) -> None:
    for _ in range(200):
        await asyncio.sleep(0.02)
        if devices.tried > devices.failures and not devices.volatile:
            return


@pytest.mark.parametrize("how", ["idle", "recycling", "stop"])
def test_files_are_written_again_after_a_failed_sync(root: int, tmp_path: Path, how: str) -> None:
    """No place in the journal is given up for files of which a sync has failed."""
    losing = LosingDisk(tmp_path / "devices", failures=1)

    async def run() -> None:
        options = FileStoreOptions(1 << 20, 1.0, SMALL, None)
        store = FileStore(os.dup(root), str(tmp_path), options)
        await sets(store, "phone", 3, 10)
        await asyncio.sleep(0.1)  # begins the one that fails
        assert losing.tried == 1
        if how == "recycling":
            await sets(store, "tablet", 40, 1000)
        elif how == "idle":
            await idle_until_synced(losing)
        await store.close()

    interval = 0.2 if how == "idle" else 60.0
    with (
        mock.patch.object(files, "sync_all", losing.sync_all),
        mock.patch.object(flusher, "SYNC_SECONDS", interval),
        mock.patch.object(pipeline, "CHECKPOINT_SECONDS", interval),
    ):
        asyncio.run(run())
    assert losing.lost
    assert losing.volatile == set()


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_a_sync_that_fails_for_a_full_segment_ends_no_writes(
    root: int, tmp_path: Path, failures: int
) -> None:
    """The files are written once more; only if that fails too are writes refused, for as long."""
    losing = LosingDisk(tmp_path / "devices", failures)
    refused = []

    async def run() -> None:
        store = FileStore(os.dup(root), str(tmp_path), FileStoreOptions(1 << 20, 1.0, SMALL, None))
        for number in range(60):
            try:
                await sets(store, "phone", 1, 1000 + number)
            except Internal as error:
                refused.append(error.message)
        await sets(store, "phone", 1, 10)
        assert store.problem is None
        await store.close()

    with (
        mock.patch.object(files, "sync_all", losing.sync_all),
        mock.patch.object(flusher.FileSync, "is_due", return_value=False),
    ):
        asyncio.run(run())
    assert losing.lost
    assert losing.volatile == set()
    assert len(refused) == failures // 2
    assert all("nothing was changed" in message for message in refused)


def test_a_stop_gives_no_place_up_while_another_has_the_lock(root: int, tmp_path: Path) -> None:
    """Files that a failed sync may have lost cannot be written again then: the next start does."""
    losing = LosingDisk(tmp_path / "devices", failures=1)

    async def run() -> None:
        store = FileStore(os.dup(root), str(tmp_path), FileStoreOptions(1 << 20, 0.1, LARGE, None))
        await sets(store, "phone", 3, 10)
        await asyncio.sleep(0.1)  # the files are written, and the sync of them fails
        assert losing.tried == 1
        editor = WriteLock(root)
        assert editor.acquire()
        await store.close()
        editor.close()

    with mock.patch.object(files, "sync_all", losing.sync_all):
        asyncio.run(run())
    log = Journal(root, LARGE)
    assert {record.key.job for record in log.replay} == {"job0", "job1", "job2"}
    log.close()


def test_a_start_under_steady_load_has_few_files_to_complete(root: int, tmp_path: Path) -> None:
    """However much the journal holds: files become durable all the while, and that is noted."""

    async def run() -> None:
        store = FileStore(os.dup(root), str(tmp_path), FileStoreOptions(1 << 20, 1.0, LARGE, None))
        for number in range(200):
            key = BucketKey("phone", f"job{number}")
            await store.commit(key, changes.merge({"n": number}), Preconditions())
        shutil.copytree(tmp_path / "journal", tmp_path / "crashed" / "journal")
        await store.close()

    with (
        mock.patch.object(flusher, "MAX_UNSYNCED_FILES", 20),
        mock.patch.object(pipeline, "MAX_LOCK_HOLD", 0.0),
        mock.patch.object(journal_writer, "MAX_INLINE_SYNC_SECONDS", 0.0),
        mock.patch.object(files, "sync_all"),
    ):
        asyncio.run(run())
    crashed = files.open_root(str(tmp_path / "crashed"))
    log = Journal(crashed, LARGE)
    assert log.last_event_id.offset > LARGE // 2
    assert len(log.replay) < 100
    log.close()
    os.close(crashed)


def test_a_full_journal_is_replayed_in_time(root: int, tmp_path: Path) -> None:
    """Both segments of the default size, full of 1 KiB sets of 1,000 buckets."""
    size, home, count = StoreSettings().journal_bytes, str(tmp_path), 0
    log = Journal(root, size)
    for _ in journal.NAMES:
        log.begin_segment()
        while log.fits(size // 1000):
            state = snapshot(count + 1)._replace(bucket=Document(b'{"pad":"%s"}' % (b"x" * 1000)))
            log.append([records.encode(Record(BucketKey("phone", f"{count % 1000}"), None, state))])
            count += 1
    log.close()
    began, spent = time.monotonic(), time.process_time()
    log = Journal(root, size)
    history = HistoryFiles(root, DEFAULT_LIMITS)
    replayed = recovery.replay_under(
        WriteLock(root), BucketFiles(root, home, 1 << 20), log, history, Trash(root)
    )
    seconds, spent = time.monotonic() - began, time.process_time() - spent
    print(f"full journal: {count} records, {replayed} files completed, {seconds:.2f} s")
    assert replayed == 1000
    assert spent < 2  # of the processor: others may be busy, too
    history.close()
    log.close()


def test_the_event_loop_never_waits_for_a_new_segment(root: int, tmp_path: Path) -> None:
    """What is gathered may be more than is left of a segment; then the thread commits it."""
    threads = []
    begin = Journal.begin_segment

    def noted(self: Journal) -> None:
        threads.append(threading.current_thread().name)
        begin(self)

    async def run() -> None:
        size = 4 << 20
        store = FileStore(os.dup(root), str(tmp_path), FileStoreOptions(1 << 20, 1.0, size, None))
        for turn in range(40):
            keys = [BucketKey("phone", f"job{number}") for number in range(12)]
            change = changes.merge({"n": turn, "pad": f"{turn}" * 25_000})
            commits = (store.commit(key, change, Preconditions()) for key in keys)
            done = await asyncio.gather(*commits)
            assert [snapshot.revision for snapshot in done] == [turn + 1] * 12
        await store.close()

    with (
        mock.patch.object(journal_writer, "MAX_INLINE_SYNC_SECONDS", math.inf),
        mock.patch.object(Journal, "begin_segment", noted),
    ):
        asyncio.run(run())
    assert len(threads) > 3
    assert set(threads) == {"bucketd-commit"}
