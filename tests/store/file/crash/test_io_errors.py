"""Each file system call of a workload fails once, or from there on for ever, in every way.

Whatever happens: what was acknowledged is there, what was refused is not
(unless the refusal said that the outcome is unknown), nothing else is ever
read, and a start without the fault finds it all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from scratch import scratch

from bucketd.errors import BucketdError
from bucketd.fs import files, logfile
from bucketd.model import changes
from bucketd.model.bucket import ABSENT, BucketKey
from bucketd.model.changes import Change
from bucketd.model.document import Document
from bucketd.model.preconditions import Preconditions
from bucketd.store.base import Filter, settled
from bucketd.store.file import journal_writer, paths, pipeline, quarantine
from bucketd.store.file.records import JournalError
from bucketd.store.file.store import FileStore, FileStoreOptions

OPTIONS = FileStoreOptions(1 << 20, 1.0, 16 * 1024, None)
KEYS = (BucketKey("phone", "hot"), BucketKey("phone", "other"), BucketKey("tablet"))
ROTTEN = BucketKey("rotten", "job")
State = tuple[int, str | None]
UNREADABLE = b"not what a bucket holds"
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EROFS", "EACCES", "EINTR", "SHORT")
FALLIBLE = (
    *("open", "read", "write", "pread", "pwrite", "fsync", "fdatasync", "rename", "unlink"),
    *("mkdir", "stat", "fstat", "dup", "syncfs", "link"),
)


class FaultyOs:
    """Stands in for the store's ``os``; fails at the nth fallible call, or from there on."""

    def __init__(self, nth: int, error: str, forever: bool) -> None:
        self.nth, self.error, self.forever = nth, error, forever
        self.calls = 0
        self.active = True

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._wrapped(name, real) if name in FALLIBLE else real

    def syncfs(self, _root: int) -> int:
        return int(self._wrapped("syncfs", lambda: 0)())

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            due = self.calls == self.nth or (self.forever and self.calls > self.nth)
            if not (due and self.active):
                return real(*args, **kwargs)
            if self.error == "SHORT":
                return _short(name, real, args, kwargs)
            number = getattr(errno, self.error)
            raise OSError(number, os.strerror(number))

        return call


def _short(name: str, real: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    if name in ("write", "pwrite") and len(args[1]) > 1:
        return real(args[0], args[1][: len(args[1]) // 2], *args[2:], **kwargs)
    return real(*args, **kwargs)


@dataclass
class Witness:
    """What each bucket may hold, by what its writer was told."""

    allowed: dict[BucketKey, list[Document | None]] = field(
        default_factory=lambda: defaultdict(lambda: [None])
    )
    acknowledged: int = 0
    refused: int = 0
    # Revision and ETag of the states since the bucket was created, the newest first.
    states: dict[BucketKey, list[State]] = field(default_factory=lambda: defaultdict(list))
    unknown: set[BucketKey] = field(default_factory=set)
    # The buckets that each id in the trash may stand for, and the ids that are gone.
    trashed: dict[str, tuple[list[Document | None], list[State]]] = field(default_factory=dict)
    restored: set[str] = field(default_factory=set)

    async def restore(self, store: FileStore, key: BucketKey) -> None:
        """Bring the newest deletion of a bucket back, if it is there and can be read."""
        try:
            one = await store.trash.newest(key)
        except BucketdError:
            return
        if one is not None:
            await self.commit(store, key, changes.restore(one))

    async def check_trash(self, store: FileStore) -> list[str]:
        """Look whether the trash has what was deleted, once, and nothing that was restored."""
        page = await store.trash.list(Filter(), None, 100)
        wrong = [f"{name} is not readable" for name in page.unreadable]
        for row in page.rows:
            if row.id in self.restored:
                wrong.append(f"{row.id} was restored, and is in the trash")
            last = (await store.trash.read(row.id)).last.bucket
            allowed, _ = self.trashed.get(row.id, ([last], []))
            if last not in allowed:
                wrong.append(f"{row.id} is {last!r}, may be {allowed}")
        return wrong

    async def commit(self, store: FileStore, key: BucketKey, change: Change) -> None:
        before, states = self.allowed[key], self.states[key]
        try:
            after = await store.commit(key, change, Preconditions())
        except BucketdError as error:
            self.refused += 1
            if "unknown" in error.message:
                self.unknown.add(key)
                # Nothing is known of what nobody can read.
                known = [None if now == UNREADABLE else now for now in self.allowed[key]]
                self.allowed[key] += [change.apply(now) for now in known]
            return
        self.acknowledged += 1
        self.allowed[key] = [after.bucket if after.revision else None]
        earlier = states if after.revision else []
        if after.trash is not None:
            self.trashed[after.trash] = (before, states)
        if after.restored is not None:
            self.restored.add(after.restored)
            earlier = self.trashed[after.restored][1] if after.restored in self.trashed else []
        self.states[key] = [(after.revision, after.etag), *earlier] if after.revision else []

    async def check(self, store: FileStore, firm: bool) -> list[str]:
        wrong = []
        for key in (*KEYS, ROTTEN):
            try:
                now = await settled(store.read(key))
            except BucketdError as error:
                if firm and UNREADABLE not in self.allowed[key]:
                    wrong.append(f"{key}: {error.message}")
                continue
            shown = None if now == ABSENT or now.revision == 0 else now.bucket
            if shown not in self.allowed[key]:
                wrong.append(f"{key} is {shown!r}, may be {self.allowed[key]}")
        return wrong

    async def check_histories(self, store: FileStore, may_be_short: bool) -> list[str]:
        """Look whether histories lead through the acknowledged states, and no others."""
        wrong = []
        for key in {*KEYS, ROTTEN} - self.unknown:
            if UNREADABLE in self.allowed[key]:
                continue
            now, revisions = await store.history(key)
            found = [(now.revision, now.etag)] if now.revision else []
            found += [one.was for one in revisions if one.was[1] is not None]
            states = self.states[key]
            if found != (states[: len(found)] if may_be_short and found else states):
                wrong.append(f"the history of {key} is {found}, should be {states}")
        return wrong


async def workload(path: str, witness: Witness) -> list[str]:
    """Writes, reads, idle moments in which files are written, a recycled journal, a clean stop."""
    store = FileStore(files.open_root(path), path, OPTIONS)
    wrong: list[str] = []
    hot, other, device = KEYS
    for number in range(4):
        # Every other change is a difference in the journal.
        pad = f"{number // 2}" * 5000
        await witness.commit(store, hot, changes.merge({"n": number, "pad": pad}))
        await witness.commit(store, other, changes.replace({"n": number}))
        wrong += await witness.check(store, firm=False)
        await asyncio.sleep(0.004)
    await witness.commit(store, ROTTEN, changes.replace({"n": 1}))
    await witness.commit(store, device, changes.merge({"d": 1}))
    await witness.commit(store, other, changes.clear(30.0))
    await asyncio.sleep(0.004)
    await witness.restore(store, other)
    await witness.commit(store, device, changes.clear(30.0))
    await asyncio.sleep(0.004)
    await witness.commit(store, other, changes.clear(30.0))
    await asyncio.sleep(0.004)
    wrong += await witness.check(store, firm=False)
    await store.close()
    return wrong


def run(fault: FaultyOs) -> tuple[Witness, list[str]]:
    """The workload with the fault, then a look at what is there without it."""
    witness = Witness()
    # Half of the cases on the event loop, half on the thread.
    here = math.inf if fault.nth % 2 else 0.0
    quick = mock.patch.object(journal_writer, "MAX_INLINE_SYNC_SECONDS", here)
    brisk = mock.patch.multiple(pipeline, FLUSH_DELAY=0.001, RETRY_SECONDS=0.01)
    with scratch() as path:
        _plant_damage(path, witness)
        with (
            quick,
            brisk,
            mock.patch.object(files, "os", fault),
            mock.patch.object(logfile, "os", fault),
            mock.patch.object(quarantine, "os", fault),
            mock.patch.object(files, "syncfs", fault.syncfs),
            contextlib.suppress(OSError, JournalError),
        ):
            wrong = asyncio.run(workload(path, witness))
            return witness, wrong + asyncio.run(_look(path, witness, fault))
        return witness, asyncio.run(_look(path, witness, fault))


def _plant_damage(path: str, witness: Witness) -> None:
    place = Path(path, *paths.parts(ROTTEN)[0])
    place.mkdir(parents=True)
    (place / paths.parts(ROTTEN)[1]).write_bytes(UNREADABLE)
    witness.allowed[ROTTEN] = [UNREADABLE]


async def _look(path: str, witness: Witness, fault: FaultyOs) -> list[str]:
    fault.active = False
    store = FileStore(files.open_root(path), path, OPTIONS)
    wrong = await witness.check(store, firm=True)
    # The lines that a user may not write are lost, and nothing else.
    wrong += await witness.check_histories(store, may_be_short=fault.error == "EACCES")
    wrong += await witness.check_trash(store)
    before = witness.acknowledged
    await witness.commit(store, KEYS[0], changes.merge({"after": True}))
    if witness.acknowledged == before:
        wrong.append("a write after a start without the fault was refused")
    await store.close()
    return wrong


@pytest.mark.timeout(3600)
def test_every_failing_call(crash_scale: float) -> None:
    began = time.monotonic()
    clean = FaultyOs(0, "EIO", forever=False)
    witness, wrong = run(clean)
    assert not wrong
    assert witness.refused == 0
    cases = [
        (nth, error, forever)
        for nth in range(1, clean.calls + 1)
        for error in ERRORS
        for forever in (False, True)
    ]
    chosen = random.Random(7).sample(cases, max(60, int(len(cases) * crash_scale)))
    found: list[str] = []
    acknowledged = refused = 0
    for nth, error, forever in chosen if crash_scale < 1 else cases:
        witness, wrong = run(FaultyOs(nth, error, forever))
        acknowledged, refused = acknowledged + witness.acknowledged, refused + witness.refused
        found += [f"call {nth}, {error}, forever={forever}: {text}" for text in wrong]
    print(
        f"{clean.calls} calls, {len(chosen)} faults, {acknowledged} writes acknowledged, "
        f"{refused} refused, {len(found)} wrong, {time.monotonic() - began:.1f} s"
    )
    assert not found, found[:5]
