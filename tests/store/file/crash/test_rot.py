"""Rot: each bit flipped and each truncation, of a bucket file and of a journal.

Damage stays where it is, is reported, and is never served as data. Rot changes no times of a file;
a whole text whose times have changed is an edit in place.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from scratch import scratch

from bucketd.errors import BucketCorrupt
from bucketd.fs import files
from bucketd.model.bucket import ABSENT, BucketKey, Snapshot, timestamp
from bucketd.model.document import Document
from bucketd.model.revisions import DEFAULT_LIMITS
from bucketd.store.file import journal, quarantine, records, recovery
from bucketd.store.file.bucket_files import BeingEdited, BucketFiles
from bucketd.store.file.history_files import HistoryFiles
from bucketd.store.file.journal import Journal
from bucketd.store.file.records import Record
from bucketd.store.file.trash import Trash

KEY, BESIDE = BucketKey("phone", "login"), BucketKey("phone", "beside")
SEGMENT = 16 * 1024


@pytest.fixture
def home() -> Iterator[str]:
    with scratch() as path:
        yield path


def snapshot(revision: int) -> Snapshot:
    now = timestamp()
    bucket = b'{"sessionToken":"t-%d","loggedIn":true,"n":%d}' % (revision, revision)
    return Snapshot(Document(bucket), revision, f"{revision:016x}", "login", now, now)


def damages(text: bytes, scale: float) -> Iterator[bytes]:
    """Every flipped bit and every truncation, or a random part of them."""
    dice = random.Random(1)
    share = 1.0 if scale >= 1 else 0.1
    for index in range(len(text)):
        for bit in range(8):
            if dice.random() < share:
                changed = bytearray(text)
                changed[index] ^= 1 << bit
                yield bytes(changed)
    for length in range(len(text)):
        if dice.random() < share:
            yield text[:length]


@pytest.mark.timeout(1800)
def test_a_rotted_file_is_never_served_as_data(home: str, crash_scale: float) -> None:
    root = files.open_root(home)
    good, beside = snapshot(3), snapshot(7)
    writer = BucketFiles(root, home, 1 << 20)
    writer.put(KEY, good)
    writer.put(BESIDE, beside)
    path = Path(writer.name(KEY))
    text, status = path.read_bytes(), path.stat()
    tried = reported = 0
    for damaged in damages(text, crash_scale):
        # In place and with the same times, as with real rot.
        path.write_bytes(damaged)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        bucket_files = BucketFiles(root, home, 1 << 20)
        tried += 1
        try:
            now = bucket_files.load(KEY).snapshot
        except BucketCorrupt:
            reported += 1
        else:
            # Only the seal itself was hit: then the data is what it was.
            assert now.bucket == good.bucket
            assert now.automation == good.automation
        assert bucket_files.load(BESIDE).snapshot.bucket == beside.bucket
        assert path.read_bytes() == damaged
    print(f"bucket file of {len(text)} bytes: {tried} damages, {reported} reported, 0 served")
    assert reported > tried * 0.9
    os.close(root)


@pytest.mark.timeout(1800)
def test_what_is_half_written_in_place_is_never_served(home: str, crash_scale: float) -> None:
    """Each truncation, with new times: refused unless it is whole, as one that lacks a newline."""
    root, good = files.open_root(home), snapshot(3)
    writer = BucketFiles(root, home, 1 << 20)
    writer.put(KEY, good)
    path = Path(writer.name(KEY))
    text = path.read_bytes()
    for damaged in damages(text, crash_scale):
        if len(damaged) == len(text):
            continue
        path.write_bytes(damaged)
        try:
            now = BucketFiles(root, home, 1 << 20).load(KEY).snapshot
        except BucketCorrupt:
            continue
        assert now.bucket == good.bucket
    os.close(root)


def test_an_edit_in_place_is_told_from_rot_by_its_times(home: str) -> None:
    root = files.open_root(home)
    writer = BucketFiles(root, home, 1 << 20)
    writer.put(KEY, snapshot(3))
    path = Path(writer.name(KEY))
    written = path.stat()
    path.write_bytes(path.read_bytes().replace(b"t-3", b"t-9"))
    for files_ in (writer, BucketFiles(root, home, 1 << 20)):
        loaded = files_.load(KEY)
        assert b"t-9" in loaded.snapshot.bucket.text
        assert not loaded.verified
        assert loaded.snapshot.revision == 4
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    with pytest.raises(BucketCorrupt, match="damaged where they lie"):
        BucketFiles(root, home, 1 << 20).load(KEY)
    os.close(root)


def test_a_seal_without_a_time_is_still_read(home: str) -> None:
    """As earlier versions wrote it: any change in place is rot."""
    root = files.open_root(home)
    writer = BucketFiles(root, home, 1 << 20)
    writer.put(KEY, snapshot(3))
    path = Path(writer.name(KEY))
    path.write_bytes(re.sub(rb"@[0-9]+", b"", path.read_bytes()))
    assert BucketFiles(root, home, 1 << 20).load(KEY).verified
    path.write_bytes(path.read_bytes().replace(b"t-3", b"t-9"))
    with pytest.raises(BucketCorrupt, match="damaged where they lie"):
        BucketFiles(root, home, 1 << 20).load(KEY)
    os.close(root)


def test_a_text_is_not_judged_while_somebody_writes_it(home: str) -> None:
    root = files.open_root(home)
    writer = BucketFiles(root, home, 1 << 20)
    writer.put(KEY, snapshot(3))
    path = Path(writer.name(KEY))
    text = path.read_bytes()
    with path.open("wb") as editor:
        editor.write(text[:100])
        editor.flush()
        for files_ in (writer, BucketFiles(root, home, 1 << 20)):
            with pytest.raises(BeingEdited):
                files_.load(KEY)
            assert files_.take_unsettled() == {KEY}
        editor.write(text[100:].replace(b"t-3", b"t-9"))
    assert b"t-9" in writer.load(KEY).snapshot.bucket.text
    os.close(root)


def test_edits_with_equal_size_and_time_are_seen(home: str) -> None:
    """Also where the second has the inode of the first, as after two moves to and fro."""
    root = files.open_root(home)
    writer = BucketFiles(root, home, 1 << 20)
    writer.put(KEY, snapshot(3))
    path = Path(writer.name(KEY))
    written = path.stat()
    etags = set()
    for number in b"456789":
        path.write_bytes(path.read_bytes().replace(b"t-%c" % (number - 1), b"t-%c" % number))
        os.utime(path, ns=(written.st_atime_ns, 10**18))
        loaded = writer.load(KEY)
        assert b"t-%c" % number in loaded.snapshot.bucket.text
        etags.add(loaded.snapshot.etag)
        # The kernel's clock for the times of files has ticks.
        time.sleep(0.01)
    assert len(etags) == 6
    os.close(root)


def _journal_with_records(home: str, differences: bool = False) -> tuple[int, list[Record]]:
    """Five changes of a bucket; with ``differences`` all but the first are such in the journal."""
    root = files.open_root(home)
    journaled: list[Record] = []
    payloads = []
    before = ABSENT
    for revision in range(1, 6):
        after = snapshot(revision)
        if differences:
            kept = {"login": "x" * 60, "n": revision}
            after = after._replace(bucket=Document.of(kept))
        record = Record(KEY, before.etag, after)
        payloads.append(_payload(record, before, differences))
        journaled.append(record)
        before = after
    log = Journal(root, SEGMENT)
    log.begin_segment()
    log.append(payloads)
    log.sync()
    log.close()
    return root, journaled


def _payload(record: Record, before: Snapshot, differences: bool) -> bytes:
    if not differences or not before.revision:
        return records.encode(record)
    # Both are split, as a change leaves them.
    assert before.bucket.members
    assert record.after.bucket.members
    with mock.patch.object(records, "MIN_DIFFERENCE_BYTES", 0):
        payload = records.encode_difference(record, before.bucket)
    assert payload is not None
    return payload


@pytest.mark.parametrize("differences", [False, True], ids=["whole", "differences"])
@pytest.mark.timeout(1800)
def test_a_rotted_journal_gives_a_state_that_was(
    home: str, crash_scale: float, caplog: pytest.LogCaptureFixture, differences: bool
) -> None:
    root, journaled = _journal_with_records(home, differences)
    names = [Path(home, "journal", name) for name in journal.NAMES]
    path = next(p for p in names if p.read_bytes()[:8] == records.MAGIC)
    whole = path.read_bytes()
    end = max(i for i, byte in enumerate(whole) if byte) + 1
    states = {record.after.bucket.text for record in journaled}
    head, tail = whole[:24], whole[records.HEADER_BYTES : end]
    tried = shorter = silent = 0
    with caplog.at_level(logging.CRITICAL):
        for damaged in _journal_damages(whole, head, tail, crash_scale):
            path.write_bytes(damaged)
            log = Journal(root, SEGMENT)
            tried += 1
            found = [record.after.bucket.text for record in log.replay]
            assert found == [r.after.bucket.text for r in journaled][: len(found)]
            assert set(found) <= states
            if len(found) < len(journaled):
                shorter += 1
                # A torn tail is what a crash leaves; anything else is damage, and is said.
                silent += (
                    not log.damaged and len(found) < len(journaled) - 1 and len(damaged) >= end
                )
            log.close()
    print(f"journal: {tried} damages, {shorter} cut the log, {silent} of those unreported")
    assert silent == 0
    os.close(root)


def _journal_damages(whole: bytes, head: bytes, tail: bytes, scale: float) -> Iterator[bytes]:
    begin = records.HEADER_BYTES
    for damaged in damages(tail, scale):
        rest = whole[begin + len(tail) :] if len(damaged) == len(tail) else b""
        yield whole[:begin] + damaged + rest
    for damaged in damages(head, scale):
        if len(damaged) == len(head):
            yield damaged + whole[len(head) :]


def test_a_rotted_file_is_completed_from_the_journal(home: str) -> None:
    root, journaled = _journal_with_records(home)
    bucket_files = BucketFiles(root, home, 1 << 20)
    bucket_files.put(KEY, journaled[0].after)
    path = Path(bucket_files.name(KEY))
    damaged = path.read_bytes().replace(b"t-1", b"t-9")
    path.write_bytes(damaged)
    log = Journal(root, SEGMENT)
    history = HistoryFiles(root, DEFAULT_LIMITS)
    assert recovery.replay(bucket_files, log.replay, history, Trash(root)) == 1
    history.close()
    assert BucketFiles(root, home, 1 << 20).load(KEY).snapshot == journaled[-1].after
    kept = list(Path(home, quarantine.QUARANTINE).iterdir())
    assert [p.read_bytes() for p in kept] == [damaged]
    log.close()
    os.close(root)


@pytest.mark.parametrize("left", [b"", bytes(300)], ids=["empty", "zeros"])
def test_a_file_without_its_bytes_is_completed_and_not_kept(home: str, left: bytes) -> None:
    root, journaled = _journal_with_records(home)
    bucket_files = BucketFiles(root, home, 1 << 20)
    bucket_files.put(KEY, journaled[0].after)
    Path(bucket_files.name(KEY)).write_bytes(left)
    log = Journal(root, SEGMENT)
    history = HistoryFiles(root, DEFAULT_LIMITS)
    assert recovery.replay(bucket_files, log.replay, history, Trash(root)) == 1
    history.close()
    assert BucketFiles(root, home, 1 << 20).load(KEY).snapshot == journaled[-1].after
    assert not Path(home, quarantine.QUARANTINE).exists()
    log.close()
    os.close(root)


def test_a_journal_of_another_version_is_not_touched(home: str) -> None:
    root, _ = _journal_with_records(home)
    path = Path(home, "journal", journal.NAMES[0])
    path.write_bytes(records.header(records.VERSION + 1, 9).ljust(SEGMENT, b"\0"))
    with pytest.raises(records.JournalError, match=f"version {records.VERSION + 1}"):
        Journal(root, SEGMENT)
    os.close(root)
