"""One bucket that cannot be read is named, and every other one is served and validated."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ctl_shell import Shell
from harness import Daemon, pair

from bucketd.core.buckets import Buckets
from bucketd.core.schemas.registry import Registry
from bucketd.core.schemas.validator import compile_schema
from bucketd.errors import BucketdError, Overloaded
from bucketd.fs import files
from bucketd.model import changes
from bucketd.model.bucket import BucketKey, Snapshot
from bucketd.model.preconditions import Preconditions
from bucketd.store.base import Filter, Page
from bucketd.store.file.store import FileStore, FileStoreOptions

NUMBER = {"fields": [{"name": "n", "type": "number"}]}
SECRET = "hunter2"


class Failing(FileStore):
    """Cannot read the bucket of job "b" once a list has shown it."""

    failure: Callable[[], Exception] | None = None

    def read(self, key: BucketKey, _stale_ok: bool = False) -> Any:
        if key.job == "b" and self.failure is not None:
            raise self.failure()
        return super().read(key)


def read_only() -> Exception:
    return BucketdError("cannot read it: Permission denied")


def in_use() -> Exception:
    return Overloaded("cannot read it: another program has it")


async def with_store(
    path: Path, failure: Callable[[], Exception], use: Callable[[Buckets], Any]
) -> None:
    options = FileStoreOptions(1 << 20, 5.0, 1 << 22, None)
    store = Failing(files.open_root(str(path)), str(path), options)
    schemas = Registry(files.open_root(str(path)), str(path), str(path / "config"))
    for job in ("a", "b", "c"):
        await store.commit(
            BucketKey("d", job), changes.merge({"n": job}), Preconditions(), "numbers"
        )
    store.failure = failure
    try:
        await use(Buckets(store, schemas, 1 << 20))
    finally:
        await store.close()


async def export(buckets: Buckets) -> tuple[list[tuple[BucketKey, Snapshot]], Page]:
    return await buckets.export(Filter(), None, 1000)


def test_what_cannot_be_read_since_it_was_listed_is_named(tmp_path: Path) -> None:
    async def use(buckets: Buckets) -> None:
        stored, page = await export(buckets)
        assert [key.job for key, _ in stored] == ["a", "c"]
        assert page.unreadable == [str(BucketKey("d", "b"))]
        found = await buckets.violations_of("numbers", compile_schema(NUMBER), 100)
        assert (found.count, [row["job"] for row in found.details]) == (2, ["a", "c"])
        assert found.unreadable == [str(BucketKey("d", "b"))]

    asyncio.run(with_store(tmp_path, read_only, use))


def test_what_another_try_can_read_is_not_left_out(tmp_path: Path) -> None:
    async def use(buckets: Buckets) -> None:
        with pytest.raises(Overloaded):
            await export(buckets)
        with pytest.raises(Overloaded):
            await buckets.violations_of("numbers", compile_schema(NUMBER), 100)

    asyncio.run(with_store(tmp_path, in_use, use))


def damage(daemon: Daemon) -> str:
    """Leave a bucket that nobody can read any more beside a good one; return its name."""
    daemon.request("PUT", pair("d", "good") + "?automation=numbers", {"n": 1})
    daemon.request("GET", "/v1/status")
    (daemon.state_dir / "devices" / "d" / "jobs" / "bad.json").write_text(f'{{"n": "{SECRET}')
    return "devices/d/jobs/bad.json"


def test_a_schema_is_never_said_to_fit_what_cannot_be_read(daemon: Daemon) -> None:
    name, ctl = damage(daemon), Shell(daemon)
    told = daemon.request("PUT", "/v1/schemas/numbers?dry_run=true", NUMBER).json
    assert (told["count"], told["unreadable"]) == (0, [name])
    for verb, said in (("check", "no stored bucket violates it"), ("set", "is set")):
        done = ctl("schema", verb, "numbers", "-", stdin=json.dumps(NUMBER))
        assert (done.returncode, f"not checked, because it cannot be read: {name}" in done.stderr) \
            == (1, True), (said, done)  # fmt: skip
        assert SECRET not in done.stdout + done.stderr
    assert daemon.request("GET", "/v1/schemas/numbers").json["schema"] == NUMBER
    narrow = json.dumps({"fields": [{"name": "n", "type": "string"}]})
    assert ctl("schema", "check", "numbers", "-", stdin=narrow).returncode == 5


def test_a_plan_tells_what_could_not_be_checked(daemon: Daemon, tmp_path: Path) -> None:
    name = damage(daemon)
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "numbers.json").write_text(json.dumps(NUMBER))
    done = Shell(daemon)("apply", "-f", str(tmp_path), "--dry-run")
    (step,) = json.loads(done.stdout)["plan"]
    assert step["unchecked"] == f"not checked: 1 stored bucket that cannot be read ({name})"
    assert step["refused"] == []


def test_a_file_that_fails_to_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk is of one file, whatever kind of error it is."""
    real = files.read

    def read(root: int, parts: tuple[str, ...], name: str, *more: Any) -> files.Content:
        if name == "b.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(root, parts, name, *more)

    async def use(buckets: Buckets) -> None:
        await buckets.store.check()
        path = tmp_path / "devices" / "d" / "jobs" / "b.json"
        path.write_bytes(path.read_bytes() + b" ")
        buckets.store.failure = None  # type: ignore[attr-defined]
        monkeypatch.setattr(files, "read", read)
        stored, page = await export(buckets)
        assert [key.job for key, _ in stored] == ["a", "c"]
        assert page.unreadable == ["devices/d/jobs/b.json"]

    asyncio.run(with_store(tmp_path, read_only, use))
