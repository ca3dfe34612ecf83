"""Write batches to the journal durably; after a failure, refuse all writes of this process."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from ...errors import BucketdError, ReadOnly
from ...fs import errors
from ...model.bucket import BucketKey, Snapshot
from ...stats import SIZES, Histogram
from .backlog import Backlog
from .batch import Batch
from .journal import Journal
from .trash import Trash

log = logging.getLogger(__name__)
# The event loop does not wait for longer syncs.
MAX_INLINE_SYNC_SECONDS = 0.001
MAX_INLINE_BATCH_BYTES = 128 * 1024
# The factor by which each later sync reduces the remembered time of a slow sync.
_DECAY = 0.9


@dataclass(slots=True)
class Counters:
    """Counts since the daemon started; bytes and calls are those of system calls."""

    commits: int = 0
    batches: int = 0
    journal_bytes: int = 0
    journal_syncs: int = 0
    file_syncs: int = 0


class JournalWriter:
    """Write batches, and hold the acknowledged states that are not in files yet (``dirty``).

    With ``relaxed_seconds`` None every batch is synced at once; otherwise the next ``sync`` is due
    after so many seconds. Use from one thread, but read ``dirty`` and ``end`` from any.
    """

    def __init__(
        self, journal: Journal, relaxed_seconds: float | None, backlog: Backlog, trash: Trash
    ) -> None:
        self._journal, self._relaxed = journal, relaxed_seconds
        self.backlog, self._trash = backlog, trash
        self._unsynced_since: float | None = None
        # Syncs count as slow until one was measured.
        self._recent_sync_seconds = MAX_INLINE_SYNC_SECONDS * 2
        # Acknowledged states that are not in files yet; readers must see them instead of the files.
        self.dirty: dict[BucketKey, Snapshot] = {}
        # The end of the changes in the journal.
        self.end = journal.position
        # The newest ETag of each bucket whose state a start finds in the journal alone.
        self._bases: dict[BucketKey, str] = {}
        # Set once and for all: only a new process can recover.
        self.failure: BucketdError | None = None
        self.counters = Counters()
        self.fsync_seconds, self.batch_sizes = Histogram(), Histogram(SIZES)

    def can_write_inline(self) -> bool:
        """Report whether a batch would need neither a long sync nor a new segment now."""
        return (
            self.failure is None
            and self._recent_sync_seconds <= MAX_INLINE_SYNC_SECONDS
            and self._journal.fits(min(MAX_INLINE_BATCH_BYTES, self._journal.max_batch_bytes))
        )

    def base_of(self, key: BucketKey) -> str | None:
        """Return the ETag of the state that the next change of a bucket may be a difference to."""
        return self._bases.get(key)

    def begin_whole(self) -> None:
        """Journal the next change of each bucket whole: a start may read from here on alone."""
        self._bases.clear()

    def write(self, batch: Batch) -> BucketdError | None:
        """Make a batch durable; return an error if that failed, and the outcome is unknown."""
        batch.start = self._journal.position
        try:
            self.counters.journal_bytes += self._journal.append(batch.payloads)
            if self._relaxed is None:
                self.sync()
            elif self._unsynced_since is None:
                self._unsynced_since = time.monotonic()
        except OSError as error:
            self.fail(error)
            return errors.refusal("write", errors.OutcomeUnknown(error.errno, error.strerror))
        # The trash comes before ``dirty``, so that a deleted bucket is always somewhere.
        if batch.trash:
            self._trash.apply(batch.trash, batch.start)
        self.backlog.announce(batch.transitions)
        self.dirty.update(batch.newest)
        for key, now in batch.newest.items():
            if now.etag is None:
                self._bases.pop(key, None)
            else:
                self._bases[key] = now.etag
        # ``end`` is set after ``dirty``, so that all changes before ``end`` can be read.
        self.end = self._journal.position
        self.counters.batches += 1
        self.counters.commits += len(batch.payloads)
        self.batch_sizes.add(len(batch.payloads))
        return None

    def sync(self) -> None:
        """Sync the journal. After an OSError nothing on its descriptor can be trusted."""
        began = time.monotonic()
        self._journal.sync()
        seconds = time.monotonic() - began
        self.fsync_seconds.add(seconds)
        self._recent_sync_seconds = max(self._recent_sync_seconds * _DECAY, seconds)
        self._unsynced_since = None
        self.counters.journal_syncs += 1

    def seconds_to_sync(self) -> float | None:
        """Return the seconds until the next sync is due; None if there is nothing to sync."""
        if self._unsynced_since is None or self._relaxed is None:
            return None
        return max(0.0, self._unsynced_since + self._relaxed - time.monotonic())

    def make_durable(self) -> bool:
        """Sync the journal if needed; return False after a failure.

        A record has to be durable before its file is renamed into place.
        """
        if self._unsynced_since is not None and self.failure is None:
            try:
                self.sync()
            except OSError as error:
                self.fail(error)
        return self._unsynced_since is None

    def fail(self, cause: OSError | None) -> BucketdError:
        """Stop writing for good: nothing on the descriptor can be trusted after a failed sync."""
        log.critical("no more writes until bucketd is started again: %s", cause or "see above")
        self.failure = self.failure or ReadOnly(
            "cannot write: the journal failed, so no write would be durable; "
            "reads go on, restart bucketd to recover"
        )
        return self.failure
