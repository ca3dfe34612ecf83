"""Every state that a crash may leave, built from a recording, must recover to what was promised.

A workload runs on the real store over a real directory while each of its file
system calls is recorded. After every one of them the possible crash states are
built (see ``recorder``), and recovery is run on each.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pytest
from recorder import Disk, Op, Recorder, crash_states, durable_from
from scratch import scratch

from bucketd.errors import BucketdError
from bucketd.fs import files, logfile
from bucketd.fs.locks import WriteLock
from bucketd.model import changes
from bucketd.model.bucket import BucketKey, Snapshot
from bucketd.model.changes import Change
from bucketd.model.preconditions import Preconditions
from bucketd.model.revisions import DEFAULT_LIMITS
from bucketd.model.trashed import TrashedBucket
from bucketd.store.file import envelope, journal, pipeline, records, recovery
from bucketd.store.file import quarantine as quarantine_module
from bucketd.store.file.batch import Batch
from bucketd.store.file.bucket_files import BucketFiles
from bucketd.store.file.history_files import HistoryFiles
from bucketd.store.file.journal import Journal
from bucketd.store.file.journal_writer import JournalWriter
from bucketd.store.file.store import FileStore, FileStoreOptions
from bucketd.store.file.trash import Trash

SEGMENT = 12 * 1024
OPTIONS = FileStoreOptions(1 << 20, 5.0, SEGMENT, None)
# The trash of a bucket: id, revision, ETag and text of each.
Trashed = frozenset[tuple[str, int, str | None, bytes]]
# A bucket's revision, ETag and text, and its trash.
State = tuple[int, str | None, bytes, Trashed]
GONE: State = (0, None, b"{}", frozenset())
UNREADABLE: State = (-1, None, b"", frozenset())
HOT, OTHER, DEVICE = BucketKey("phone", "hot"), BucketKey("phone", "b/c"), BucketKey("phone")
Workload = Callable[["Session"], Awaitable[None]]


class Session:
    """Runs commits and notes in the recording when each was asked for and when acknowledged."""

    def __init__(self, recorder: Recorder, root: str, rounds: int) -> None:
        self.recorder, self.root, self.rounds = recorder, root, rounds
        self.store: FileStore | None = None
        self.last: dict[BucketKey, Snapshot] = {}
        self.trash: dict[BucketKey, Trashed] = defaultdict(frozenset)

    def open(self) -> None:
        self.store = FileStore(files.open_root(self.root), self.root, OPTIONS)

    async def close(self) -> None:
        assert self.store is not None
        await self.store.close()

    async def commit(self, key: BucketKey, change: Change) -> Snapshot:
        assert self.store is not None
        asked = len(self.recorder.ops)
        after = await self.store.commit(key, change, Preconditions())
        if after.trash is not None:
            self.trash[key] |= {(after.trash, *shown(self.last[key]))}
        if after.restored is not None:
            self._take_out(key, after.restored)
        self.last[key] = after
        self._acknowledge(key, asked)
        return after

    def _take_out(self, key: BucketKey, trash_id: str) -> None:
        self.trash[key] = frozenset(one for one in self.trash[key] if one[0] != trash_id)

    def _acknowledge(self, key: BucketKey, asked: int) -> None:
        state = (*shown(self.last[key]), self.trash[key])
        self.recorder.note(Op("ack", note=(key, asked, state)))

    async def delete(self, key: BucketKey) -> str:
        return (await self.commit(key, changes.clear(30.0))).trash or ""

    async def restore(self, trash_id: str) -> None:
        assert self.store is not None
        trashed = await self.store.trash.read(trash_id)
        await self.commit(trashed.key, changes.restore(trashed))

    async def empty(self, key: BucketKey, trash_id: str) -> None:
        assert self.store is not None
        asked = len(self.recorder.ops)
        await self.store.trash.remove(trash_id)
        self._take_out(key, trash_id)
        self._acknowledge(key, asked)

    async def set(self, key: BucketKey, **data: object) -> Snapshot:
        return await self.commit(key, changes.merge(data))


async def sets_and_recycling(session: Session) -> None:
    """A hot bucket, others beside it, deletion and re-creation, until both segments were reused."""
    session.open()
    for number in range(session.rounds):
        await session.set(HOT, n=number, pad="x" * 700)
        if number % 3 == 0:
            await asyncio.gather(session.set(OTHER, n=number), session.set(DEVICE, n=number))
        if number % 5 == 4:
            await session.commit(OTHER, changes.clear())
            await asyncio.sleep(0.03)  # idle: the files are written
    await session.close()


async def differences(session: Session) -> None:
    """Small changes of a large bucket, which the journal holds as differences, among large ones."""
    session.open()
    for number in range(session.rounds):
        # They are so large that a segment ends before a difference as often as before a state.
        note, login = f"{number:03}" * 500, f"{number // 6}" * 4500
        await session.set(HOT, note=note, login=login)
        if number % 4 == 3:
            await session.commit(HOT, changes.remove(["note"]))
        if number % 7 == 0:
            # In one batch, so that a difference builds upon one beside it.
            await asyncio.gather(session.set(HOT, a=number), session.set(HOT, b=number))
        if number % 11 == 10:
            await session.commit(HOT, changes.clear())
        if number % 5 == 4:
            # Idle: the files are written and synced, and the next change is whole.
            await asyncio.sleep(0.03)
    await session.close()


async def stop_and_start(session: Session) -> None:
    """Clean stops, and a start without one, each followed by more."""
    for number in range(session.rounds // 15):
        session.open()
        await session.set(HOT, n=number)
        await session.set(DEVICE, n=number)
        await session.close()


async def quarantine(session: Session) -> None:
    """A file that nobody can read is replaced, and one is deleted."""
    session.open()
    await session.set(OTHER, n=1)
    await asyncio.sleep(0.03)
    home = Path(session.root) / "devices" / "phone"
    for path in (home / "jobs" / "hot.json", home / "device.json"):
        path.write_bytes(b"\x00 not an envelope")
        inode, name = path.stat().st_ino, str(path.relative_to(session.root))
        created = session.recorder.created(inode, name)
        session.recorder.note(created)
        session.recorder.note(Op("data", created.inode, data=path.read_bytes()))
        session.recorder.note(Op("syncall", note=len(session.recorder.ops)))
        session.recorder.note(Op("damage", note=HOT if "hot" in name else DEVICE))
    await session.commit(HOT, changes.replace({"good": True}))
    await session.commit(DEVICE, changes.clear())
    await asyncio.sleep(0.03)
    await session.set(HOT, more=1)
    await session.close()


async def deletions(session: Session) -> None:
    """Buckets go into the trash and come back, alone and in one batch; some go for good."""
    session.open()
    for number in range(session.rounds // 3):
        await session.set(HOT, n=number, pad="x" * 500)
        trash_id = await session.delete(HOT)
        if number % 4 != 1:
            await asyncio.sleep(0.03)  # idle: the files are written
        if number % 3 == 0:
            await session.restore(trash_id)
        if number % 3 == 1:
            await asyncio.gather(session.set(OTHER, n=number), session.delete(OTHER))
        if number % 3 == 2:
            await session.empty(HOT, trash_id)
        if number % 7 == 6:
            await session.close()
            session.open()
    await session.close()


WORKLOADS: tuple[Workload, ...] = (
    *(sets_and_recycling, differences, stop_and_start, quarantine),
    deletions,
)


@contextmanager
def recording(root: str) -> Iterator[Recorder]:
    recorder = Recorder(root)
    with (
        mock.patch.object(files, "os", recorder),
        mock.patch.object(logfile, "os", recorder),
        mock.patch.object(quarantine_module, "os", recorder),
        mock.patch.object(files, "syncfs", recorder.syncfs),
    ):
        yield recorder


def record(workload: Workload, rounds: int = 60) -> list[Op]:
    async def run(recorder: Recorder, root: str) -> None:
        await workload(Session(recorder, root, rounds))

    with scratch() as root, recording(root) as recorder:
        asyncio.run(run(recorder, root))
        return recorder.ops


def shown(now: Snapshot) -> tuple[int, str | None, bytes]:
    return now.revision, now.etag, now.bucket.text


def promises(ops: list[Op], end: int) -> dict[BucketKey, list[State]]:
    """The states each bucket may be found in: the last acknowledged, or one asked for since."""
    allowed: dict[BucketKey, list[State]] = defaultdict(lambda: [GONE])
    for index, op in enumerate(ops):
        if op.kind == "damage" and index < end:
            allowed[op.note] = [UNREADABLE]
        if op.kind != "ack":
            continue
        key, asked, after = op.note
        if index < end:
            allowed[key] = [after]
        elif asked < end:
            allowed[key] = [*allowed[key], after]
    return allowed


def recover(state: Disk) -> dict[BucketKey, State | str]:
    """What a start on these files comes to; a text where a bucket cannot be read."""
    with scratch() as path:
        state.write_out(path)
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            log = Journal(root, SEGMENT)
            bucket_files = BucketFiles(root, path, 1 << 20)
            lock, trash = WriteLock(root), Trash(root)
            history = HistoryFiles(root, DEFAULT_LIMITS)
            # The state is on a real disk, where a sync would take long and show nothing.
            with (
                mock.patch.object(files, "syncfs", return_value=0),
                mock.patch.object(os, "fsync"),
            ):
                recovery.replay_under(lock, bucket_files, log, history, trash)
            lock.close()
            log.close()
            history.close()
            trashed = [trash.read(one) for one in trash.entries()[0]]
            return {key: _load(bucket_files, key, trashed) for key in (HOT, OTHER, DEVICE)}
        except (records.JournalError, envelope.Unreadable) as error:
            return dict.fromkeys((HOT, OTHER, DEVICE), str(error))
        finally:
            os.close(root)


def _load(bucket_files: BucketFiles, key: BucketKey, trashed: list[TrashedBucket]) -> State | str:
    own = frozenset((one.id, *shown(one.last)) for one in trashed if one.key == key)
    try:
        return (*shown(bucket_files.load(key).snapshot), own)
    except BucketdError as error:
        return error.message


def violations(ops: list[Op], every: int = 1, enough: float = math.inf) -> tuple[int, list[str]]:
    """How many states were tried, and what was wrong with any of them, or with ``enough``."""
    durable, seen, wrong = durable_from(ops), set(), []
    for end in range(0, len(ops) + 1, every):
        allowed = promises(ops, end)
        for state in crash_states(ops, end, durable):
            mark = (state.key(), _mark(allowed))
            if mark in seen:
                continue
            seen.add(mark)
            if len(wrong) >= enough:
                return len(seen), wrong
            wrong += [f"after {end} ops: {text}" for text in _judge(allowed, recover(state))]
    return len(seen), wrong


def _mark(allowed: dict[BucketKey, list[State]]) -> str:
    named = {k: [(s[1], sorted(one[0] for one in s[3])) for s in v] for k, v in allowed.items()}
    return repr(sorted((str(k), v) for k, v in named.items()))


def _judge(allowed: dict[BucketKey, list[State]], found: dict[BucketKey, State | str]) -> list[str]:
    wrong = []
    for key, now in found.items():
        if key not in allowed:
            continue
        if isinstance(now, str) and UNREADABLE in allowed[key]:
            continue  # damaged by the workload itself, and not yet replaced
        if now not in allowed[key]:
            wrong.append(f"{key} is {now}, may be {allowed[key]}")
    return wrong


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.__name__)
@pytest.mark.timeout(1800)
def test_every_crash_state_recovers(workload: Workload, crash_scale: float) -> None:
    began = time.monotonic()
    ops = record(workload, rounds=160 if crash_scale >= 1 else 60)
    assert any(op.kind == "ack" for op in ops)
    tried, wrong = violations(ops, every=1 if crash_scale >= 1 else 9)
    print(
        f"{workload.__name__}: {len(ops)} calls, {tried} crash states, "
        f"{len(wrong)} lost or torn, {time.monotonic() - began:.1f} s"
    )
    assert not wrong, wrong[:5]


@pytest.mark.timeout(1800)
def test_relaxed_leaves_whole_states(crash_scale: float) -> None:
    """Acknowledged before it is durable, a change may be lost, but never what was there before."""
    with mock.patch.dict(globals(), OPTIONS=replace(OPTIONS, relaxed_seconds=60.0)):
        ops = record(sets_and_recycling, rounds=60 if crash_scale >= 1 else 8)
    firm = promises(ops, 0)
    for op in ops:
        if op.kind == "ack":
            firm[op.note[0]].append(op.note[2])
    with mock.patch.dict(globals(), promises=lambda _ops, _end: firm):
        tried, wrong = violations(ops)
    print(f"relaxed: {tried} crash states, {len(wrong)} torn")
    assert not wrong, wrong[:5]


def _no_sync(_fd: int) -> None:
    """A store that forgets to make its journal durable."""


def _early(self: pipeline.Pipeline, batch: Batch, respond: pipeline.Respond) -> None:
    """A store that acknowledges before it journals."""
    respond(Batch(outcomes=batch.outcomes))
    batch.outcomes = []
    time.sleep(0.005)
    _complete(self, batch, respond)


_complete = pipeline.Pipeline._complete


def _no_checksum(text: bytes, generation: int, offset: int) -> bytes | None:
    """A journal that believes every record whose length fits."""
    if offset + records._FRAME.size > len(text):
        return None
    tag, length, _crc = records._FRAME.unpack_from(text, offset)
    begin = offset + records._FRAME.size
    if tag != records._tag(generation) or begin + length > len(text):
        return None
    payload = text[begin : begin + length]
    try:
        orjson.loads(payload)
    except ValueError:
        return b'{"device":"phone","job":"hot","base":null,"after":null}'
    return payload


def _never_whole(_self: object) -> None:
    """A journal of which a start may need what is not in it any more, or is not durable."""


def _upon(record: records.Record, before: Snapshot, removed: list[str]) -> records.Record:
    assert record.difference is not None
    bucket = before.bucket.changed(record.difference.set, removed)
    return records.Record(record.key, record.base, record.after._replace(bucket=bucket))


def _removed_left_out(self: records.Record, before: Snapshot | None) -> records.Record:
    """A start that overlooks the keys which a difference removed."""
    assert before is not None or self.difference is None
    return self if before is None or self.difference is None else _upon(self, before, [])


_whole: dict[BucketKey, Snapshot] = {}


def _base_skipped(self: records.Record, before: Snapshot | None) -> records.Record:
    """A start that takes the last whole state for the base of each difference."""
    if self.difference is None:
        _whole[self.key] = self.after
        return self
    return _upon(self, _whole[self.key], self.difference.removed)


_after_checkpoint = journal._after_checkpoint


def _applied_twice(segments: list[journal._Segment]) -> list[records.Record]:
    """A start that comes to the first difference of a bucket once more at the end."""
    found = _after_checkpoint(segments)
    changes_again = (record for segment in segments for record in segment.changes_from(None))
    again = next((r for r in changes_again if r.difference and r.after.revision), None)
    newest = next((r for r in reversed(found) if again and r.key == again.key), None)
    if again is None or newest is None or not newest.after.revision:
        return found
    assert again.difference is not None
    return [*found, _upon(again, newest.after, again.difference.removed)]


def _not_done(*_arguments: object) -> None:
    """A store that leaves out a step of the way into the trash, or out of it."""


_complete_trash = Trash.complete


def _restores_overlooked(self: Trash, found: Iterable[records.Record]) -> None:
    """A start that puts into the trash what was restored since."""
    _complete_trash(self, (record._replace(restores=None) for record in found))


def _files_trusted(self: Trash, found: Iterable[records.Record]) -> None:
    """A start that takes each file in the trash for whole."""
    missing = [r for r in found if r.restores or (r.trashed and not self.is_stored(r.trashed.id))]
    _complete_trash(self, missing)


_encode = records.encode


def _without_trash(record: records.Record) -> bytes:
    """A journal that does not have what a deletion puts into the trash."""
    return _encode(record._replace(trashed=None))


_trashed = records._trashed


def _wrong_revision(*arguments: Any) -> TrashedBucket | None:
    """A start that forgets how far the revisions of a bucket had come."""
    found = _trashed(*arguments)
    return found and found._replace(last=found.last._replace(revision=1))


PLANTED_IN_TRASH = {
    "a deletion that a start does not complete": (Trash, "complete", _not_done),
    "a restore that a start overlooks": (Trash, "complete", _restores_overlooked),
    "a torn file in the trash": (Trash, "complete", _files_trusted),
    "a deletion without the last state": (records, "encode", _without_trash),
    "a restored bucket left in the trash": (Trash, "remove_restored", _not_done),
    "emptied, and in the journal": (pipeline.Pipeline, "_make_trash_durable", _not_done),
    "another revision in the journal": (records, "_trashed", _wrong_revision),
}
PLANTED_IN_DIFFERENCES = {
    "a difference after a checkpoint": (JournalWriter, "begin_whole", _never_whole),
    "a difference to the segment before": (Batch, "make_whole", _never_whole),
    "removed keys left out": (records.Record, "completed", _removed_left_out),
    "a base skipped": (records.Record, "completed", _base_skipped),
    "a difference applied twice": (journal, "_after_checkpoint", _applied_twice),
}
PLANTED = {
    "no fdatasync": (logfile, "sync_data", _no_sync),
    "no syncfs before recycling": (files, "sync_all", _no_sync),
    "no checksum": (records, "payload_at", _no_checksum),
    "acknowledged early": (pipeline.Pipeline, "_complete", _early),
}


def _enough(crash_scale: float) -> float:
    """One violation shows that the harness sees the fault; the long form counts them all."""
    return math.inf if crash_scale >= 1 else 1


@pytest.mark.timeout(1800)
def test_the_harness_catches_a_store_that_syncs_no_directory(crash_scale: float) -> None:
    ops = [Op("nothing") if op.kind == "syncdir" else op for op in record(sets_and_recycling)]
    _, wrong = violations(ops, every=5, enough=_enough(crash_scale))
    print(f"no directory sync: {len(wrong)} violations found")
    assert wrong


@pytest.mark.parametrize("fault", [*PLANTED, *PLANTED_IN_DIFFERENCES, *PLANTED_IN_TRASH])
@pytest.mark.timeout(1800)
def test_the_harness_catches_a_planted_fault(fault: str, crash_scale: float) -> None:
    where, name, faulty = (PLANTED | PLANTED_IN_DIFFERENCES | PLANTED_IN_TRASH)[fault]
    workload = sets_and_recycling if fault in PLANTED else differences
    workload = deletions if fault in PLANTED_IN_TRASH else workload
    with mock.patch.object(where, name, faulty):
        ops = record(workload)
        _, wrong = violations(ops, every=5, enough=_enough(crash_scale))
    print(f"{fault}: {len(wrong)} violations found")
    assert wrong
