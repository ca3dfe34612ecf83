"""Every state that a crash may leave, built from a recording, must recover to what was promised.

A workload runs on the real store over a real directory while each of its file
system calls is recorded. After every one of them the possible crash states are
built (see ``recorder``), and recovery is run on each.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import orjson
import pytest
from recorder import Disk, Op, Recorder, crash_states, durable_from

from bucketd.errors import BucketdError
from bucketd.fs import files, logfile
from bucketd.fs.locks import WriteLock
from bucketd.model import changes, inverses
from bucketd.model.bucket import ABSENT, BucketKey, Snapshot
from bucketd.model.changes import Change
from bucketd.model.preconditions import Preconditions
from bucketd.model.revisions import HistoryLimits, chain
from bucketd.store.file import history_files, journal, pipeline, records, recovery
from bucketd.store.file import quarantine as quarantine_module
from bucketd.store.file.backlog import Backlog
from bucketd.store.file.batch import Batch
from bucketd.store.file.bucket_files import BucketFiles
from bucketd.store.file.history_files import HistoryFiles, Journaled, Place
from bucketd.store.file.journal import Journal
from bucketd.store.file.journal_writer import JournalWriter
from bucketd.store.file.store import FileStore, FileStoreOptions

SEGMENT = 12 * 1024
# So few revisions that the two segments of a history take turns all the time.
LIMITS = HistoryLimits(8, 1 << 30)
OPTIONS = FileStoreOptions(1 << 20, 5.0, SEGMENT, None, history=LIMITS)
UNREADABLE = Snapshot(revision=-1)
HOT, OTHER, DEVICE = BucketKey("phone", "hot"), BucketKey("phone", "b/c"), BucketKey("phone")
# Revision, ETag and content.
State = tuple[int, str | None, bytes]
Workload = Callable[["Session"], Awaitable[None]]


class Session:
    """Runs commits and notes in the recording when each was asked for and when acknowledged."""

    def __init__(self, recorder: Recorder, root: str, rounds: int) -> None:
        self.recorder, self.root, self.rounds = recorder, root, rounds
        self.store: FileStore | None = None

    def open(self) -> None:
        self.store = FileStore(files.open_root(self.root), self.root, OPTIONS)

    async def close(self) -> None:
        assert self.store is not None
        await self.store.close()

    async def commit(self, key: BucketKey, change: Change) -> Snapshot:
        assert self.store is not None
        asked = len(self.recorder.ops)
        after = await self.store.commit(key, change, Preconditions())
        self.recorder.note(Op("ack", note=(key, asked, after)))
        return after

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


WORKLOADS: tuple[Workload, ...] = (sets_and_recycling, differences, stop_and_start, quarantine)


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

    with tempfile.TemporaryDirectory(prefix="bd-") as root, recording(root) as recorder:
        asyncio.run(run(recorder, root))
        return recorder.ops


def promises(ops: list[Op], end: int) -> dict[BucketKey, list[Snapshot]]:
    """The states each bucket may be found in: the last acknowledged, or one asked for since."""
    allowed: dict[BucketKey, list[Snapshot]] = defaultdict(lambda: [ABSENT])
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


class Found(NamedTuple):
    """What a start comes to: a bucket, or why it cannot be read, and all that its history has.

    ``earlier``: the states that its inverses lead back to, the newest first. ``newest``: the ETag
    of the last line.
    """

    now: Snapshot | str
    earlier: list[State] = []  # noqa: RUF012  (nobody changes it)
    newest: str | None = None


def recover(state: Disk) -> dict[BucketKey, Found]:
    """What a start on these files comes to."""
    with tempfile.TemporaryDirectory(prefix="bd-") as path:
        state.write_out(path)
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            log = Journal(root, SEGMENT)
            bucket_files = BucketFiles(root, path, 1 << 20)
            lock, history = WriteLock(root), HistoryFiles(root, LIMITS)
            # The state is on a real disk, where a sync would take long and show nothing.
            with (
                mock.patch.object(files, "syncfs", return_value=0),
                mock.patch.object(os, "fsync"),
            ):
                recovery.replay_under(lock, bucket_files, log, history)
            lock.close()
            log.close()
            return {key: _load(bucket_files, history, key) for key in (HOT, OTHER, DEVICE)}
        except records.JournalError as error:
            return dict.fromkeys((HOT, OTHER, DEVICE), Found(str(error)))
        finally:
            os.close(root)


def _load(bucket_files: BucketFiles, history: HistoryFiles, key: BucketKey) -> Found:
    try:
        now = bucket_files.load(key).snapshot
    except BucketdError as error:
        return Found(error.message)
    lines = history.read(history_files.place_of(key))
    newest = orjson.loads(lines[-1])["etag"] if lines else None
    return Found(now, [*_walk_back(now, lines)], newest)


def _walk_back(now: Snapshot, lines: list[bytes]) -> Iterator[State]:
    bucket = now.bucket
    for revision in chain(now, lines[::-1], LIMITS):
        number, etag = revision.was
        if revision.inverse is None or etag is None:
            return
        bucket = inverses.take_back(bucket, revision.inverse)
        yield number, etag, bucket.text


def violations(ops: list[Op], every: int = 1, enough: float = math.inf) -> tuple[int, list[str]]:
    """How many states were tried, and what was wrong with any of them, or with ``enough``."""
    durable, seen, wrong = durable_from(ops), set(), []
    past = histories(ops)
    for end in range(0, len(ops) + 1, every):
        allowed = promises(ops, end)
        for state in crash_states(ops, end, durable):
            mark = (state.key(), _mark(allowed))
            if mark in seen:
                continue
            seen.add(mark)
            if len(wrong) >= enough:
                return len(seen), wrong
            wrong += [f"after {end} ops: {text}" for text in _judge(allowed, past, recover(state))]
    return len(seen), wrong


def _mark(allowed: dict[BucketKey, list[Snapshot]]) -> str:
    return repr(sorted((str(k), [s.etag for s in v]) for k, v in allowed.items()))


def histories(ops: list[Op]) -> dict[tuple[BucketKey, str | None], list[State]]:
    """The states before each one that was ever acknowledged, as far as a history has to know."""
    before: dict[BucketKey, list[State]] = defaultdict(list)
    past: dict[tuple[BucketKey, str | None], list[State]] = {}
    for op in ops:
        if op.kind == "damage":
            before[op.note] = []
        if op.kind != "ack":
            continue
        key, _, after = op.note
        if (key, after.etag) not in past:
            past[key, after.etag] = before[key]
        if not after.revision:
            before[key] = []
        elif not before[key] or before[key][0][1] != after.etag:
            state = after.revision, after.etag, after.bucket.text
            before[key] = [state, *before[key]][: LIMITS.revisions]
    return past


def _judge(
    allowed: dict[BucketKey, list[Snapshot]],
    past: dict[tuple[BucketKey, str | None], list[State]],
    found: dict[BucketKey, Found],
) -> list[str]:
    wrong = []
    for key, (now, earlier, newest) in found.items():
        if key not in allowed:
            continue
        states = [(s.revision, s.etag, s.bucket.text) for s in allowed[key] if s is not UNREADABLE]
        shown = (now.revision, now.etag, now.bucket.text) if isinstance(now, Snapshot) else now
        if isinstance(now, str) and UNREADABLE in allowed[key]:
            continue  # damaged by the workload itself, and not yet replaced
        if shown not in states:
            wrong.append(f"{key} is {shown}, may be {states}")
        elif isinstance(now, Snapshot) and now.etag != newest:
            wrong.append(f"{key} is {now.etag}, its newest line is {newest}")
        elif isinstance(now, Snapshot) and now.revision and earlier != past[key, now.etag]:
            led, should = ([state[0] for state in one] for one in (earlier, past[key, now.etag]))
            wrong.append(f"the history of {key} leads back to {led}, should lead to {should}")
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


_write, _late = Backlog.write, list[BucketKey]()


def _after_the_file(self: Backlog, key: BucketKey) -> None:
    """A store that writes lines only after the file that shows their changes."""
    late, _late[:] = [*_late], [key]
    for one in late:
        _write(self, one)


def _forgotten(self: Backlog, key: BucketKey) -> None:
    """A store that takes lines for written where a write of them may have failed."""
    if len(self._owed.get(key, ())) > 1:
        del self._owed[key]
    _write(self, key)


def _appended_again(
    self: HistoryFiles, place: Place, payloads: list[bytes], journaled: Journaled
) -> None:
    """A start that does not look which lines are there already."""
    self._append(place, payloads)


def _too_early(_self: HistoryFiles, _tail: object, _lines: object, _text: object) -> bool:
    """A history that begins its other segment while the newer one has room."""
    return False


def _without_inverse(_self: Batch, record: records.Record, _before: object) -> records.Record:
    """A journal without what a start needs of a state that is in no file any more."""
    return record


def _any_line(line: bytes) -> bytes | None:
    """A history that believes every line that is JSON."""
    try:
        orjson.loads(line[9:])
    except ValueError:
        return None
    return line[9:]


PLANTED_IN_HISTORIES = {
    "lines after the file": (Backlog, "write", _after_the_file),
    "a backlog forgotten": (Backlog, "write", _forgotten),
    "lines appended twice": (HistoryFiles, "_complete", _appended_again),
    "a segment begun too early": (HistoryFiles, "_fits", _too_early),
    "no inverse in the journal": (Batch, "_with_origin", _without_inverse),
    "no checksum of lines": (history_files, "_payload", _any_line),
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


ALL_PLANTED = PLANTED | PLANTED_IN_DIFFERENCES | PLANTED_IN_HISTORIES


@pytest.mark.parametrize("fault", ALL_PLANTED)
@pytest.mark.timeout(1800)
def test_the_harness_catches_a_planted_fault(fault: str, crash_scale: float) -> None:
    where, name, faulty = ALL_PLANTED[fault]
    workload = differences if fault in PLANTED_IN_DIFFERENCES else sets_and_recycling
    with mock.patch.object(where, name, faulty):
        ops = record(workload)
        _, wrong = violations(ops, every=5, enough=_enough(crash_scale))
    print(f"{fault}: {len(wrong)} violations found")
    assert wrong
