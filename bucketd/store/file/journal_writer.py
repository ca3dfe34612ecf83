"""Batches into the journal, durably, until that fails: then never again in this process."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from ...errors import BucketdError, ReadOnly
from ...fs import errors
from ...model.bucket import BucketKey, Snapshot
from ...stats import SIZES, Histogram
from .batch import Batch
from .journal import Journal

log = logging.getLogger(__name__)
MAX_INLINE_SYNC_SECONDS = 0.001  # the event loop does not wait for longer syncs
MAX_INLINE_BATCH_BYTES = 128 * 1024
_DECAY = 0.9  # of the time of a slow sync, with each sync that follows


@dataclass(slots=True)
class Counters:
    """Since the daemon started; bytes and calls as handed to the kernel."""

    commits: int = 0
    batches: int = 0
    journal_bytes: int = 0
    journal_syncs: int = 0
    file_syncs: int = 0


class JournalWriter:
    """Owns what is acknowledged and not yet in files. One thread, but for ``dirty`` and ``end``.

    ``relaxed_seconds`` None is strict: what is written is durable. Otherwise it is at the next
    ``sync``, which is due after so long.
    """

    def __init__(self, journal: Journal, relaxed_seconds: float | None) -> None:
        self._journal, self._relaxed = journal, relaxed_seconds
        self._unsynced_since: float | None = None
        self._recent_sync_seconds = MAX_INLINE_SYNC_SECONDS * 2  # until one was measured
        # Acknowledged and not yet in files: readers must see this instead of the files.
        self.dirty: dict[BucketKey, Snapshot] = {}
        self.end = journal.position  # of the changes in the journal
        self.failure: BucketdError | None = None  # for good: only a new process can recover
        self.counters = Counters()
        self.fsync_seconds, self.batch_sizes = Histogram(), Histogram(SIZES)

    def can_write_inline(self) -> bool:
        """Report whether a batch now would take no long sync and no new segment."""
        return (
            self.failure is None
            and self._recent_sync_seconds <= MAX_INLINE_SYNC_SECONDS
            and self._journal.fits(min(MAX_INLINE_BATCH_BYTES, self._journal.max_batch_bytes))
        )

    def write(self, batch: Batch) -> BucketdError | None:
        """Make the batch durable; return why not, and then the outcome is unknown."""
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
        self.dirty.update(batch.newest)
        # After ``dirty``: whoever is told of changes up to here can read them.
        self.end = self._journal.position
        self.counters.batches += 1
        self.counters.commits += len(batch.payloads)
        self.batch_sizes.add(len(batch.payloads))
        return None

    def sync(self) -> None:
        """Raise OSError, after which nothing on the journal's descriptor can be trusted."""
        began = time.monotonic()
        self._journal.sync()
        seconds = time.monotonic() - began
        self.fsync_seconds.add(seconds)
        self._recent_sync_seconds = max(self._recent_sync_seconds * _DECAY, seconds)
        self._unsynced_since = None
        self.counters.journal_syncs += 1

    def seconds_to_sync(self) -> float | None:
        """Return in how many seconds the next sync is due; None if there is nothing to sync."""
        if self._unsynced_since is None or self._relaxed is None:
            return None
        return max(0.0, self._unsynced_since + self._relaxed - time.monotonic())

    def make_durable(self) -> bool:
        """Sync what is not synced, which a file needs before its rename; False after a failure."""
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
            "cannot write: the journal failed, so nothing can be promised any more; "
            "reads go on, restart bucketd to recover"
        )
        return self.failure
