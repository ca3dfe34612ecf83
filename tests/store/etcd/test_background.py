"""Work beside requests: an error that nobody expected is told by the status, and survived."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from fleet import Cluster

from bucketd.core.schemas import replication
from bucketd.core.schemas.registry import Registry
from bucketd.core.schemas.replication import ReplicatedSchemas
from bucketd.model import changes
from bucketd.model.bucket import BucketKey
from bucketd.model.preconditions import Preconditions
from bucketd.store.base import ChangeEvent
from bucketd.store.etcd import EtcdOptions, EtcdSchemas, EtcdStore, session

KEY = BucketKey("d", "j")


class Failing(Exception):
    """What no code foresees."""


class FailingSubscriber:
    """Want everything, and fail at the first change."""

    interests = None

    def __init__(self) -> None:
        self.published: list[ChangeEvent] = []
        self.gaps = self.failures = 0

    def publish(self, changed: ChangeEvent) -> None:
        if not self.failures:
            self.failures += 1
            raise Failing
        self.published.append(changed)

    def gap(self) -> None:
        self.gaps += 1


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


def store(etcd: Cluster, prefix: str) -> EtcdStore:
    return EtcdStore(EtcdOptions((etcd.nodes[0].url,), prefix, 2.0))


async def problems(of: EtcdStore) -> list[str]:
    return list((await of.check())["problems"])


async def test_a_session_that_fails_is_told_and_goes_on(
    etcd: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RENEW_SECONDS", 0.1)
    renew, broken = session.Session._renew, True

    async def failing(self: session.Session) -> bool:
        if broken:
            raise Failing
        return await renew(self)

    monkeypatch.setattr(session.Session, "_renew", failing)
    one, stop = store(etcd, "/session/"), asyncio.Event()
    running = asyncio.create_task(one.run_background(stop))

    async def told() -> bool:
        return any("lease" in problem and "Failing" in problem for problem in await problems(one))

    async def announced() -> bool:
        return len((await one.check())["hosts"]) == 1 and not await problems(one)

    await until(told)
    assert (await one.check())["healthy"]
    broken = False
    await until(announced)
    stop.set()
    await running
    await one.close()


async def test_a_change_that_cannot_be_published_is_a_gap_and_later_ones_are(etcd: Cluster) -> None:
    one, watcher = store(etcd, "/watch/"), FailingSubscriber()
    one.subscribe(watcher)
    await one.wait_until_watching(None)
    for number in range(2):
        await one.commit(KEY, changes.replace({"n": number}), Preconditions())
    async with asyncio.timeout(10):
        while not watcher.published:
            await asyncio.sleep(0.05)
    assert (watcher.gaps, watcher.failures) == (1, 1)
    assert [change.after.bucket.text for change in watcher.published] == [b'{"n":1}']
    await one.close()


async def test_following_schemas_that_fails_is_told_and_goes_on(
    etcd: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "RETRY_SECONDS", 0.1)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    registry = Registry(root, str(tmp_path), str(tmp_path / "etc"))
    one, other, stop = store(etcd, "/schemas/"), store(etcd, "/schemas/"), asyncio.Event()
    follow, broken = EtcdSchemas.changes_after, True

    async def failing(self: EtcdSchemas, revision: int) -> AsyncGenerator[Any, None]:
        if broken:
            raise Failing
        async for batch in follow(self, revision):
            yield batch

    monkeypatch.setattr(EtcdSchemas, "changes_after", failing)
    writer = ReplicatedSchemas(registry, one.shared_schemas())
    following = asyncio.create_task(writer.keep_current(stop))

    async def told() -> bool:
        return any("shared schemas" in p and "Failing" in p for p in await problems(one))

    async def copied() -> bool:
        return registry.find("mail") is not None and not await problems(one)

    await until(told)
    broken = False
    await other.shared_schemas().put("mail", {"type": "object"})
    await until(copied)
    stop.set()
    await following
    await one.close()
    await other.close()
    os.close(root)
