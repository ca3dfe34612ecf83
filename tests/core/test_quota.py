"""What a device has is counted exactly: under many writers, failures, edits, and many devices."""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from bucketd.core import quota
from bucketd.core.buckets import Buckets
from bucketd.core.quota import Quota
from bucketd.core.schemas.registry import Registry
from bucketd.errors import BucketdError, StorageFull, TooLarge
from bucketd.fs import files
from bucketd.model import changes
from bucketd.model.author import UNKNOWN, Author
from bucketd.model.bucket import BucketKey, Snapshot
from bucketd.model.changes import Change
from bucketd.model.preconditions import Preconditions
from bucketd.store.base import Filter, Page, settled
from bucketd.store.file import paths
from bucketd.store.file.store import FileStore, FileStoreOptions

ROOM = 10_000
JOBS = (None, "a", "b", "c")


@pytest.fixture
def home() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bd-") as path:
        yield path


class Full(FileStore):
    """A store whose disk is full now and then, or slow to write what was judged, or to list."""

    full = False
    write_on: asyncio.Event | None = None  # to be waited for, if any
    list_on: asyncio.Event | None = None
    judged = listed = 0

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
        author: Author = UNKNOWN,
    ) -> asyncio.Future[Snapshot]:
        return asyncio.ensure_future(self._commit(key, change, preconditions, automation, author))

    async def _commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None,
        author: Author,
    ) -> Snapshot:
        if self.full or self.write_on:
            now = await settled(self.read(key))
            change.result(now.bucket if now.revision else None, None)
            self.judged += 1
        if self.full:
            raise StorageFull("cannot write: it is full")
        if self.write_on:
            await self.write_on.wait()
        return await super().commit(key, change, preconditions, automation, author)

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        page = await super().list(only, cursor, limit)
        self.listed += 1
        if self.list_on:
            await self.list_on.wait()
        return page


@asynccontextmanager
async def opened(home: str) -> AsyncIterator[Full]:
    store = Full(files.open_root(home), home, FileStoreOptions(1 << 20, 5.0, 1 << 22, None))
    try:
        yield store
    finally:
        await store.close()


class NoSchemas:
    def find(self, _automation: str | None) -> None:
        return None


async def put(store: Full, books: Quota, key: BucketKey, size: int) -> bool:
    """Whether a bucket of that size was taken; 0 removes it."""
    change = changes.replace({"p": "x" * (size - 8)}) if size else changes.clear()
    try:
        buckets = Buckets(store, cast(Registry, NoSchemas()), 1 << 20, books)
        await buckets.commit(key, change, Preconditions())
    except TooLarge:
        return False
    return True


async def stored(store: Full, device: str = "d") -> int:
    return sum(row.size for row in (await store.list(Filter(device=device), None, 1000)).rows)


async def has_just(store: Full, books: Quota, room: int) -> bool:
    """Whether that much is free by the books, to the byte."""
    probe = BucketKey("d", "probe")
    over = await put(store, books, probe, room + 1)
    return not over and await put(store, books, probe, room)


def test_many_writers_leave_exact_books(home: str) -> None:
    async def run() -> None:
        async with opened(home) as store:
            books = Quota(store, ROOM)

            async def writer(seed: int) -> int:
                dice, refused = random.Random(seed), 0
                for _ in range(60):
                    size = dice.choice((0, dice.randint(8, 6000), dice.randint(8, 6000)))
                    refused += not await put(store, books, BucketKey("d", dice.choice(JOBS)), size)
                return refused

            async with asyncio.TaskGroup() as group:
                writers = [group.create_task(writer(seed)) for seed in range(8)]
            assert sum(task.result() for task in writers) > 20
            now = await stored(store)
            assert now <= ROOM
            if ROOM - now >= 8:
                assert await has_just(store, books, ROOM - now)

    asyncio.run(run())


def test_adding_up_again_loses_no_write(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(quota, "MEASURING_SHARE", 0)
    test_many_writers_leave_exact_books(home)


def test_more_devices_than_are_remembered(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_DEVICES", 2)

    async def run() -> None:
        async with opened(home) as store:
            books = Quota(store, ROOM)
            keys = [BucketKey(f"d{n}", job) for job in "abcd" for n in range(12)]
            async with asyncio.TaskGroup() as group:
                for key in keys:
                    group.create_task(put(store, books, key, 4000))
            totals = {await stored(store, f"d{n}") for n in range(12)}
            assert totals == {8000}

    asyncio.run(run())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0)


def test_what_is_written_while_it_is_added_up(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with opened(home) as store:
            books = Quota(store, ROOM)
            assert await put(store, books, BucketKey("d", "a"), 1000)
            monkeypatch.setattr(quota, "FRESH_SECONDS", 0.0)
            monkeypatch.setattr(quota, "MEASURING_SHARE", 0)
            books._usages["d"].due, store.list_on = 0.0, asyncio.Event()
            assert await put(store, books, BucketKey("d", "a"), 2000)
            await until(lambda: store.listed == 2)
            assert await put(store, books, BucketKey("d", "b"), 3000)
            monkeypatch.setattr(quota, "FRESH_SECONDS", 60.0)
            store.list_on.set()
            await until(lambda: not books._measuring)
            store.list_on = None
            assert await has_just(store, books, 5000)

    asyncio.run(run())


@pytest.mark.parametrize("others", [0, 3])
def test_what_is_judged_counts_before_it_is_written(
    home: str, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """However often it is added up meanwhile, and whoever else is remembered."""
    monkeypatch.setattr(quota, "MAX_DEVICES", 2)

    async def run() -> None:
        async with opened(home) as store:
            books = Quota(store, ROOM)
            assert await put(store, books, BucketKey("d", "a"), 1000)
            store.write_on = asyncio.Event()
            under_way = asyncio.create_task(put(store, books, BucketKey("d", "b"), 3000))
            await until(lambda: store.judged == 1)
            gate, store.write_on = store.write_on, None
            for n in range(others):
                assert await put(store, books, BucketKey(f"other {n}"), 100)
            if not others:
                books._usages["d"].due = 0.0
            assert await put(store, books, BucketKey("d", "a"), 2000)
            await until(lambda: not books._measuring)
            assert not await put(store, books, BucketKey("d", "c"), 5001)
            gate.set()
            assert await under_way
            assert await has_just(store, books, 5000)

    asyncio.run(run())


def test_a_failed_write_takes_no_room(home: str) -> None:
    async def run() -> None:
        async with opened(home) as store:
            books = Quota(store, ROOM)
            await put(store, books, BucketKey("d", "a"), 4000)
            store.full = True
            for _ in range(3):
                with pytest.raises(BucketdError, match="full"):
                    await put(store, books, BucketKey("d", "b"), 5000)
                with pytest.raises(BucketdError, match="full"):
                    await put(store, books, BucketKey("d", "a"), 0)
            store.full = False
            assert await has_just(store, books, 6000)

    asyncio.run(run())


def test_edits_by_hand_count_before_long(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "FRESH_SECONDS", 0.0)

    async def run() -> None:
        async with opened(home) as store:
            books, key = Quota(store, ROOM), BucketKey("d", "a")
            assert await put(store, books, key, 4000)
            await store.check()  # so that its file is current
            path = Path(home, paths.path(key))
            envelope = json.loads(path.read_text())
            new = path.with_name("new")
            new.write_text(json.dumps({**envelope, "bucket": {"p": "x" * 9000}}))
            os.rename(new, path)
            deadline = asyncio.get_running_loop().time() + 20
            while await put(store, books, BucketKey("d", "b"), 2000):
                assert asyncio.get_running_loop().time() < deadline
                assert await put(store, books, BucketKey("d", "b"), 0)

    asyncio.run(run())


def test_adding_up_is_seldom(home: str) -> None:
    async def run() -> None:
        async with opened(home) as store:
            books = Quota(store, ROOM)
            for n in range(200):
                await put(store, books, BucketKey("d", JOBS[n % 4]), 100 + n)
            assert store.listed == 1

    asyncio.run(run())
