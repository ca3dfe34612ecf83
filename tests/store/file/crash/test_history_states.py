"""Every state that a crash may leave: histories lead back through what was acknowledged, exactly.

The states are those of ``test_states``. A history must have a line for each change, none for what
was no change, and its inverses must give each earlier state byte for byte.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import orjson
import pytest
import test_states
from recorder import Disk, Op, crash_states, durable_from
from scratch import scratch
from test_states import DEVICE, HOT, OTHER, SEGMENT, WORKLOADS, Session, Workload, record

from bucketd.errors import BucketdError
from bucketd.fs import files
from bucketd.fs.locks import WriteLock
from bucketd.model import changes, inverses
from bucketd.model.bucket import BucketKey, Snapshot
from bucketd.model.revisions import HistoryLimits, chain
from bucketd.model.trashed import TrashedBucket
from bucketd.store.file import backlog, history_files, history_recovery, records, recovery
from bucketd.store.file.backlog import Backlog, line_of
from bucketd.store.file.batch import Batch, Transition
from bucketd.store.file.bucket_files import BucketFiles
from bucketd.store.file.history_files import HistoryFiles, Journaled, Place
from bucketd.store.file.journal import Journal
from bucketd.store.file.store import FileStoreOptions
from bucketd.store.file.trash import Trash

# So few revisions that the two segments of a history take turns all the time.
LIMITS = HistoryLimits(8, 1 << 30)
OPTIONS = FileStoreOptions(1 << 20, 5.0, SEGMENT, None, history=LIMITS)
KEYS = (HOT, OTHER, DEVICE)
# Revision, ETag and content.
State = tuple[int, str | None, bytes]
Past = dict[tuple[BucketKey, str | None], list[State]]


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_files, "MORE_LINES", 1)


class Found(NamedTuple):
    """A bucket after a start, the states that its history leads back to, and its newest line."""

    etag: str | None
    earlier: list[State]
    newest: str | None


async def trash_and_restores(session: Session) -> None:
    """Buckets that go into the trash and come back, all at once or with pauses between."""
    session.open()
    for number in range(session.rounds):
        await session.set(HOT, n=number, pad="x" * 400)
        if number % 4 == 1:
            last = await session.set(HOT, more=number)
            gone = await session.commit(HOT, changes.clear(30.0))
            if number % 3 == 0:
                await asyncio.sleep(0.03)
            if number % 8 == 5:
                # Another bucket lives and dies meanwhile.
                await session.set(HOT, other=number)
                await session.commit(HOT, changes.clear())
            assert gone.trash is not None
            trashed = TrashedBucket(gone.trash, HOT, last, {})
            await session.commit(HOT, changes.restore(trashed))
        if number % 5 == 4:
            await asyncio.sleep(0.03)
    await session.close()


ALL = (*WORKLOADS, trash_and_restores)


def recorded(workload: Workload, rounds: int = 60) -> list[Op]:
    with mock.patch.object(test_states, "OPTIONS", OPTIONS):
        return record(workload, rounds)


def recover(state: Disk) -> dict[BucketKey, Found | None]:
    """Return the buckets after a start on these files; None where one cannot be read."""
    with scratch() as path:
        state.write_out(path)
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        history = HistoryFiles(root, LIMITS)
        try:
            bucket_files, lock = BucketFiles(root, path, 1 << 20), WriteLock(root)
            # The state is on a real disk, where a sync would take long and show nothing.
            with (
                mock.patch.object(files, "syncfs", return_value=0),
                mock.patch.object(os, "fsync"),
            ):
                # A start may be interrupted as well, and comes to the same another time.
                for _ in range(2):
                    log = Journal(root, SEGMENT)
                    history_recovery.complete(history, log.replay)
                    log.close()
                log = Journal(root, SEGMENT)
                recovery.replay_under(lock, bucket_files, log, history, Trash(root))
            lock.close()
            log.close()
            return {key: _load(bucket_files, history, key) for key in KEYS}
        except records.JournalError:
            return dict.fromkeys(KEYS)
        finally:
            history.close()
            os.close(root)


def _load(bucket_files: BucketFiles, history: HistoryFiles, key: BucketKey) -> Found | None:
    try:
        now = bucket_files.load(key).snapshot
    except BucketdError:
        return None
    lines = history.read(history_files.place_of(key))
    newest = orjson.loads(lines[-1])["etag"] if lines else None
    return Found(now.etag, [*_walk_back(now, lines)], newest)


def _walk_back(now: Snapshot, lines: list[bytes]) -> Iterator[State]:
    bucket = now.bucket
    for revision in chain(now, lines[::-1], LIMITS):
        number, etag = revision.was
        if revision.inverse is None or etag is None:
            return
        bucket = inverses.take_back(bucket, revision.inverse)
        yield number, etag, bucket.text


def histories(ops: list[Op]) -> Past:
    """The states before each one that was ever acknowledged, as far as a history has to know."""
    before: dict[BucketKey, list[State]] = defaultdict(list)
    ids: dict[BucketKey, set[str]] = defaultdict(set)
    newest: dict[BucketKey, str | None] = {}
    trashed: dict[str, list[State]] = {}
    past: Past = {}
    for op in ops:
        if op.kind == "damage":
            before[op.note] = []
        if op.kind != "ack":
            continue
        key, _, (revision, etag, text, in_trash) = op.note
        put, taken = {one[0] for one in in_trash} - ids[key], ids[key] - {o[0] for o in in_trash}
        ids[key] = {one[0] for one in in_trash}
        if etag == newest.get(key):
            # A change that changes nothing, or the trash was emptied.
            continue
        if etag is None:
            trashed |= dict.fromkeys(put, before[key])
            before[key] = []
        else:
            for trash_id in taken:
                before[key] = trashed[trash_id]
            past[key, etag] = before[key]
            before[key] = [(revision, etag, text), *before[key]][: LIMITS.revisions]
        newest[key] = etag
    return past


def judge(past: Past, found: dict[BucketKey, Found | None]) -> list[str]:
    """Return the faults of histories; ``test_states`` checks the buckets."""
    wrong = []
    for key, one in found.items():
        if one is None or (one.etag is not None and (key, one.etag) not in past):
            continue
        if one.etag != one.newest:
            wrong.append(f"{key} is {one.etag}, its newest line is {one.newest}")
        elif one.etag is not None and one.earlier != past[key, one.etag]:
            led, should = ([s[0] for s in part] for part in (one.earlier, past[key, one.etag]))
            wrong.append(f"the history of {key} leads back to {led}, should lead to {should}")
    return wrong


def violations(ops: list[Op], every: int = 1, enough: float = math.inf) -> tuple[int, list[str]]:
    """Return the number of states tried, and the faults of any of them, up to ``enough``."""
    durable, seen, wrong, past = durable_from(ops), set(), [], histories(ops)
    for end in range(0, len(ops) + 1, every):
        for state in crash_states(ops, end, durable):
            if state.key() in seen:
                continue
            seen.add(state.key())
            if len(wrong) >= enough:
                return len(seen), wrong
            wrong += [f"after {end} ops: {text}" for text in judge(past, recover(state))]
    return len(seen), wrong


@pytest.mark.parametrize("workload", ALL, ids=lambda w: w.__name__)
@pytest.mark.timeout(1800)
def test_every_crash_state_has_its_history(workload: Workload, crash_scale: float) -> None:
    began = time.monotonic()
    ops = recorded(workload, rounds=160 if crash_scale >= 1 else 40)
    assert any(op.kind == "ack" for op in ops)
    tried, wrong = violations(ops, every=1 if crash_scale >= 1 else 13)
    print(
        f"{workload.__name__}: {len(ops)} calls, {tried} crash states, "
        f"{len(wrong)} histories wrong, {time.monotonic() - began:.1f} s"
    )
    assert not wrong, wrong[:5]


_write = Backlog.write
_late: list[BucketKey] = []


def _after_the_file(self: Backlog, key: BucketKey, is_trashed: object) -> None:
    """A store that writes lines only after the file that shows their changes."""
    late, _late[:] = [*_late], [key]
    for one in late:
        _write(self, one, is_trashed)  # type: ignore[arg-type]


def _forgotten(self: Backlog, key: BucketKey, is_trashed: object) -> None:
    """A store that takes lines for written where a write of them may have failed."""
    if len(self._owed.get(key, ())) > 1:
        del self._owed[key]
    _write(self, key, is_trashed)  # type: ignore[arg-type]


def _appended_again(
    self: HistoryFiles, place: Place, payloads: list[bytes], _journaled: Journaled
) -> None:
    """A start that does not look which lines are there already."""
    self._append(place, payloads)


def _too_early(_self: HistoryFiles, _tail: object, _lines: object, _text: object) -> bool:
    """A history that begins its other segment while the newer one has room."""
    return False


def _without_inverse(_self: Batch, record: records.Record, _before: object) -> records.Record:
    """A journal without what a start needs of a state that is in no file any more."""
    return record


def _left_behind(_self: HistoryFiles, _old: Place, _new: Place) -> None:
    """A history that stays where it is when its bucket goes into the trash, or comes back."""


def _not_continued(change: Transition, limits: HistoryLimits, *_members: object) -> bytes:
    """A restored bucket whose history begins anew."""
    return line_of(change._replace(restored=None), limits)


PLANTED = {
    "lines after the file": (Backlog, "write", _after_the_file),
    "a backlog forgotten": (Backlog, "write", _forgotten),
    "lines appended twice": (HistoryFiles, "_complete", _appended_again),
    "a segment begun too early": (HistoryFiles, "_fits", _too_early),
    "no inverse in the journal": (Batch, "_with_origin", _without_inverse),
    "left behind by its bucket": (HistoryFiles, "move", _left_behind),
    "begun anew by a restore": (backlog, "line_of", _not_continued),
}


@pytest.mark.parametrize("fault", PLANTED)
@pytest.mark.timeout(1800)
def test_the_harness_catches_a_planted_fault(fault: str, crash_scale: float) -> None:
    where, name, faulty = PLANTED[fault]
    _late.clear()
    workload: Workload = trash_and_restores if "bucket" in fault or "restore" in fault else HOTTEST
    with mock.patch.object(where, name, faulty):
        ops = recorded(workload, rounds=40)
        enough = math.inf if crash_scale >= 1 else 1
        _, wrong = violations(ops, every=5, enough=enough)
    print(f"{fault}: {len(wrong)} violations found")
    assert wrong


HOTTEST = WORKLOADS[0]


def test_a_sync_of_histories_that_was_left_out_is_found(crash_scale: float) -> None:
    """A store that syncs the file system before it has written its lines, or never."""
    ops = [op for op in recorded(HOTTEST) if op.kind != "syncall"]
    _, wrong = violations(ops, every=5, enough=math.inf if crash_scale >= 1 else 1)
    print(f"no syncfs: {len(wrong)} violations found")
    assert wrong
