"""The store at moments that no daemon under test meets by itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from bucketd.errors import BucketCorrupt
from bucketd.fs import files
from bucketd.model import changes
from bucketd.model.bucket import ABSENT, BucketKey, Snapshot, timestamp
from bucketd.model.document import Document
from bucketd.model.preconditions import Preconditions
from bucketd.store.base import settled
from bucketd.store.file import paths, records
from bucketd.store.file.bucket_files import BucketFiles
from bucketd.store.file.journal import Journal
from bucketd.store.file.records import Record
from bucketd.store.file.store import FileStore, FileStoreOptions

KEY = BucketKey("phone", "job")
OPTIONS = FileStoreOptions(1 << 20, 1.0, 64 * 1024, None)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    root = files.open_root(str(tmp_path))
    yield root
    os.close(root)


def snapshot(revision: int) -> Snapshot:
    now = timestamp()
    return Snapshot(Document(b'{"n":%d}' % revision), revision, f"{revision:016x}", None, now, now)


def test_a_slow_reader_does_not_bring_back_what_was_deleted(root: int, tmp_path: Path) -> None:
    """The bucket that was made anew meanwhile would look like an old file put back by hand."""
    writer, anew = BucketFiles(root, str(tmp_path), 1 << 20), snapshot(1)
    writer.put(KEY, snapshot(7))
    bucket_files = BucketFiles(root, str(tmp_path), 1 << 20)
    read = files.read

    def slow(*where: object) -> files.Content:
        content = read(*where)  # type: ignore[arg-type]
        bucket_files.put(KEY, ABSENT)
        bucket_files.put(KEY, anew)
        return content

    with mock.patch.object(files, "read", slow):
        assert bucket_files.load(KEY).snapshot == snapshot(7)._replace(
            created_at=mock.ANY, updated_at=mock.ANY
        )
    assert bucket_files.load(KEY) == (anew, True, None)


def test_a_slow_reader_of_a_deleted_file_takes_nobody_else_for_it(
    root: int, tmp_path: Path
) -> None:
    bucket_files = BucketFiles(root, str(tmp_path), 1 << 20)
    bucket_files.put(KEY, snapshot(7))
    os.utime(bucket_files.name(KEY))  # so that it has to be read again

    def slow(*_where: object) -> files.Content:
        bucket_files.put(KEY, ABSENT)
        raise FileNotFoundError

    with mock.patch.object(files, "read", slow):
        bucket_files.load(KEY)
    assert bucket_files.load(KEY) == (ABSENT, True, None)


def test_an_unreadable_bucket_is_looked_for_in_the_journal_once(root: int, tmp_path: Path) -> None:
    """Reading the journal takes the writers' time, and anybody may ask for such a bucket."""
    place = tmp_path / paths.path(KEY)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"no bucket")

    async def run() -> None:
        store = FileStore(os.dup(root), str(tmp_path), OPTIONS)
        for _ in range(3):
            with pytest.raises(BucketCorrupt):
                await settled(store.read(KEY))
        assert find.call_count == 1
        await store.commit(KEY, changes.replace({"n": 1}), Preconditions())
        await asyncio.sleep(0.1)
        place.write_bytes(b"no bucket, again")
        healed = await settled(store.read(KEY))
        assert (healed.bucket.text, healed.recovered and healed.recovered[0]) == (b'{"n":1}', 1)
        await store.close()

    with mock.patch.object(Journal, "find", autospec=True, side_effect=Journal.find) as find:
        asyncio.run(run())


def test_what_was_replayed_takes_no_more_memory(root: int, tmp_path: Path) -> None:
    async def run() -> None:
        store = FileStore(os.dup(root), str(tmp_path), OPTIONS)
        now = await store.commit(KEY, changes.replace({"n": 1}), Preconditions())
        await store.close()
        log = Journal(root, OPTIONS.journal_bytes)
        log.begin_segment()
        log.append([records.encode(Record(KEY, now.etag, ABSENT))])
        log.close()
        store = FileStore(os.dup(root), str(tmp_path), OPTIONS)
        assert (await store.check())["replayed_files"] == 1
        assert store._journal.replay == []
        await store.close()

    asyncio.run(run())
