"""After a crash: bring every file to what the journal says was acknowledged.

For each bucket the journal gives a chain of ETags, from the state before its
first record to the last. What the file shows decides:

    the last ETag, also below an edit made since    it is current: leave it
    an earlier one, or nothing                      it is behind: complete it
    an edit whose taking over is the last record    the same: it has no seal yet
    an edit made upon an earlier one                keep it in quarantine, complete the file
    unreadable                                      the same
    sealed by the daemon, and not in the chain      newer than the journal: leave it

Doing it twice is doing it once, so a crash in here is no other case.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...fs import errors, files
from ...fs.locks import WriteLock
from ...model.bucket import ABSENT, BucketKey, Snapshot
from . import envelope, paths
from .bucket_files import BucketFiles
from .journal import Journal
from .records import JournalError, Record

log = logging.getLogger(__name__)
LOCK_SECONDS = 30.0


@dataclass(slots=True)
class _Chain:
    """What one bucket went through: ``etags`` of all states but the last, and the last."""

    etags: set[str | None] = field(default_factory=set)
    last: Snapshot = ABSENT

    def add(self, record: Record) -> None:
        self.etags.add(record.base)
        if self.last.etag is not None:
            self.etags.add(self.last.etag)
        self.last = record.after
        self.etags.discard(self.last.etag)


def replay_under(lock: WriteLock, bucket_files: BucketFiles, journal: Journal) -> int:
    """``replay`` what the journal holds, with the lock; how many files had to be completed."""
    if not journal.replay:
        return 0
    try:
        if not lock.acquire(LOCK_SECONDS, lambda: False):
            raise JournalError(
                f"cannot complete the files from the journal: another program has held write.lock "
                f"for over {LOCK_SECONDS:g} s; end that program"
            )
        try:
            behind = replay(bucket_files, journal.replay)
            journal.note_all()  # else what somebody removes now would come back at the next start
            return behind
        finally:
            journal.replay.clear()  # it may be much
            lock.release()
    except OSError as error:
        raise JournalError(
            f"cannot complete the files from the journal: {error.strerror}; nothing is lost, "
            "mend that and start again"
        ) from error


def replay(bucket_files: BucketFiles, records: Iterable[Record]) -> int:
    """Complete the files, durably; how many had to be. Raises OSError."""
    chains: dict[BucketKey, _Chain] = {}
    for record in records:
        chains.setdefault(record.key, _Chain()).add(record)
    behind = [(key, chain) for key, chain in chains.items() if _is_behind(bucket_files, key, chain)]
    for key, chain in behind:
        _complete(bucket_files, key, chain.last)
    if chains:
        files.sync_all(bucket_files.root)
    if behind:
        log.info("completed %d of %d files from the journal", len(behind), len(chains))
    return len(behind)


def _complete(bucket_files: BucketFiles, key: BucketKey, last: Snapshot) -> None:
    try:
        bucket_files.put(key, last)
    except OSError as error:
        raise OSError(error.errno, f"{bucket_files.name(key)}: {error.strerror}") from error


def _is_behind(bucket_files: BucketFiles, key: BucketKey, chain: _Chain) -> bool:
    """Whether the file is to be written anew; what would be lost by that is set aside first."""
    try:
        content = files.read(bucket_files.root, *paths.parts(key))
    except FileNotFoundError:
        return chain.last.revision > 0
    except OSError as error:
        if not errors.is_obstacle(error):
            raise
        return _quarantine(bucket_files, key, str(error.strerror))
    if not content.text.strip(b"\0"):
        return True  # what a power cut leaves of a file whose data had not been written yet
    try:
        stored = envelope.read(content)
        if stored.key != key:
            raise envelope.Unreadable(f"it says that it is {stored.key}")
    except envelope.Unreadable as error:
        return _quarantine(bucket_files, key, str(error))
    return _is_older(bucket_files, key, chain, stored)


def _is_older(
    bucket_files: BucketFiles, key: BucketKey, chain: _Chain, stored: envelope.Stored
) -> bool:
    last, now = chain.last, stored.snapshot
    if stored.base is not None and stored.base == last.etag:
        return False
    if now.etag in chain.etags or now.etag == last.etag:
        return True  # the latter: an edit that was taken over, and not sealed yet
    if stored.verified:
        log.warning("%s: its file is newer than the journal, so it stays", key)
        return False
    if stored.base is None and last.revision and now.revision >= last.revision:
        return False
    return _quarantine(bucket_files, key, "it was edited upon a state that was not the newest")


def _quarantine(bucket_files: BucketFiles, key: BucketKey, why: str) -> bool:
    log.warning("%s: its file goes to the quarantine and is completed: %s", key, why)
    bucket_files.quarantine(key)
    return True
