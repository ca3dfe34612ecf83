"""Recover after a crash: bring every file to the newest state that the journal acknowledged.

For each bucket the journal gives a chain of ETags, from the state before its first record to the
last. The file determines the action:

    the last ETag, also below an edit made since    it is current: leave it
    an earlier one, or nothing                      it is behind: complete it
    an edit whose ingestion is the last record      it is behind: it has no checksum yet
    an edit made upon an earlier one                quarantine it, complete the file
    unreadable                                      quarantine it, complete the file
    verified, and not in the chain                  newer than the journal: leave it

The lines of its history come before a file, as they did before the crash: those that the journal
tells of and that are not there are appended, and a deleted bucket takes its lines along.

Recovery may run any number of times with the same result, so a crash during recovery needs no
special treatment.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...fs import errors, files
from ...fs.locks import WriteLock
from ...model.bucket import ABSENT, BucketKey, Snapshot
from . import envelope, history_recovery, paths
from .bucket_files import BucketFiles
from .history_files import HistoryFiles
from .journal import Journal
from .records import JournalError, Record
from .trash import Trash

log = logging.getLogger(__name__)
LOCK_SECONDS = 30.0


@dataclass(slots=True)
class _Chain:
    """The states of one bucket: the last state, and the ETags of all earlier ones."""

    etags: set[str | None] = field(default_factory=set)
    last: Snapshot = ABSENT

    def add(self, record: Record) -> None:
        self.etags.add(record.base)
        if self.last.etag is not None:
            self.etags.add(self.last.etag)
        self.last = record.after
        self.etags.discard(self.last.etag)


def replay_under(
    lock: WriteLock,
    bucket_files: BucketFiles,
    journal: Journal,
    history: HistoryFiles,
    trash: Trash,
) -> int:
    """Replay the journal under the lock; return how many files were completed."""
    if not journal.replay:
        return 0
    try:
        if not lock.acquire(LOCK_SECONDS, lambda: False):
            raise JournalError(
                f"cannot complete the files from the journal: another program has held write.lock "
                f"for over {LOCK_SECONDS:g} s; end that program"
            )
        try:
            completed = replay(bucket_files, journal.replay, history, trash)
            # Without this checkpoint, a file that somebody removes from now on would be restored
            # at the next start.
            journal.checkpoint_all()
            return completed
        finally:
            # The records may occupy much memory.
            journal.replay.clear()
            lock.release()
    except OSError as error:
        raise JournalError(
            f"cannot complete the files from the journal: {error.strerror}; nothing is lost, "
            "correct that and start again"
        ) from error


def replay(
    bucket_files: BucketFiles, records: Sequence[Record], history: HistoryFiles, trash: Trash
) -> int:
    """Complete the files durably; return how many were behind. Raises OSError."""
    chains: dict[BucketKey, _Chain] = {}
    for record in records:
        chains.setdefault(record.key, _Chain()).add(record)
    history_recovery.complete(history, records)
    behind = [(key, chain) for key, chain in chains.items() if _is_behind(bucket_files, key, chain)]
    try:
        trash.complete(records)
    except OSError as error:
        raise OSError(error.errno, f"the trash: {error.strerror}") from error
    for key, chain in behind:
        try:
            bucket_files.put(key, chain.last)
        except OSError as error:
            raise OSError(error.errno, f"{bucket_files.name(key)}: {error.strerror}") from error
    if chains:
        files.sync_all(bucket_files.root)
    if behind:
        log.info("completed %d of %d files from the journal", len(behind), len(chains))
    return len(behind)


def _is_behind(bucket_files: BucketFiles, key: BucketKey, chain: _Chain) -> bool:
    """Report whether to write the file again; first quarantine a content that is not known."""
    try:
        content = files.read(bucket_files.root, *paths.parts(key))
    except FileNotFoundError:
        return chain.last.revision > 0
    except OSError as error:
        if not errors.is_obstacle(error):
            raise
        return _quarantine(bucket_files, key, str(error.strerror))
    if not content.text.strip(b"\0"):
        # A power cut leaves zeros if the file's data had not reached the disk.
        return True
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
    # An ingested edit whose file was not written yet has the last ETag, but not in its seal.
    if now.etag in chain.etags or now.etag == last.etag:
        return True
    if stored.verified:
        log.warning(
            "%s: its file is newer than the journal, so it stays", key, extra={"fields": key.fields}
        )
        return False
    if stored.base is None and last.revision and now.revision >= last.revision:
        return False
    return _quarantine(bucket_files, key, "it was edited upon a state that was not the newest")


def _quarantine(bucket_files: BucketFiles, key: BucketKey, why: str) -> bool:
    kept = bucket_files.quarantine_name(key)
    what, about = "%s: its file is completed, and kept before as %s: %s", {"fields": key.fields}
    log.warning(what, key, kept, why, extra=about)
    bucket_files.quarantine(key, kept)
    return True
