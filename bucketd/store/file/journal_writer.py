"""Batches into the journal, durably, until that fails: then never again in this process."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from ...errors import BucketdError, ReadOnly
from ...fs import errors
from ...model.bucket import BucketKey, Snapshot
from ...stats import SIZES, Histogram
from . import records
from .batch import Batch
from .journal import Journal
from .records import JournalPosition

log = logging.getLogger(__name__)
QUICK_SECONDS = 0.001  # a sync that takes longer is none to wait for on the event loop
QUICK_BYTES = 128 * 1024
_FORGET = 0.9  # so much of a slow sync is left after each one that follows


@dataclass(slots=True)
class Counters:
    """Since the daemon started; bytes and calls as handed to the kernel."""

    commits: int = 0
    batches: int = 0
    journal_bytes: int = 0
    journal_syncs: int = 0
    file_syncs: int = 0


class JournalWriter:
    """Owns what is written to the journal. One thread at a time, but for ``dirty`` and ``end``.

    ``relaxed_seconds`` None is strict: what is written is durable. Else it is at the next ``sync``,
    which is ``due`` after so long.
    """

    def __init__(self, log_: Journal, relaxed_seconds: float | None) -> None:
        self._journal, self._relaxed = log_, relaxed_seconds
        self._unsynced_since: float | None = None
        self._slow_sync = QUICK_SECONDS * 2  # until it is known better
        # Acknowledged, and not yet in files: what readers must see instead of the files.
        self.dirty: dict[BucketKey, Snapshot] = {}
        self.end = log_.position  # of the changes in the journal
        self.failure: BucketdError | None = None  # for good: only a new process can recover
        self.counters = Counters()
        self.fsync_seconds, self.batch_sizes = Histogram(), Histogram(SIZES)

    @property
    def quick(self) -> bool:
        """Whether a batch now would take no long sync, and no new segment."""
        return (
            self.failure is None
            and self._slow_sync <= QUICK_SECONDS
            and self._journal.fits(min(QUICK_BYTES, self._journal.most_at_once))
        )

    def fits(self, batch: Batch) -> bool:
        """Whether the batch goes into this segment; else ``recycle`` comes first."""
        return self._journal.fits(batch.size)

    def write(self, batch: Batch) -> BucketdError | None:
        """Make the batch durable; else why not, and then the outcome is open."""
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
        self.end = self._journal.position  # behind it: whoever is told up to there can read it
        self.counters.batches += 1
        self.counters.commits += len(batch.payloads)
        self.batch_sizes.add(len(batch.payloads))
        return None

    def sync(self) -> None:
        """Raises OSError, after which nothing on the journal's descriptor can be trusted."""
        began = time.monotonic()
        self._journal.sync()
        seconds = time.monotonic() - began
        self.fsync_seconds.add(seconds)
        self._slow_sync = max(self._slow_sync * _FORGET, seconds)
        self._unsynced_since = None
        self.counters.journal_syncs += 1

    def due(self) -> float | None:
        """In how many seconds the next sync is; 0: now; None: there is nothing to sync."""
        if self._unsynced_since is None or self._relaxed is None:
            return None
        return max(0.0, self._unsynced_since + self._relaxed - time.monotonic())

    def durable(self) -> bool:
        """Make it so, also in relaxed mode: a file renamed without may be empty after a cut."""
        if self._unsynced_since is not None and self.failure is None:
            try:
                self.sync()
            except OSError as error:
                self.fail(error)
        return self._unsynced_since is None

    def recycle(self, durable: JournalPosition) -> None:
        """Go on in the older segment, with all before ``durable`` in files. Raises OSError."""
        self._journal.begin_segment()
        self._journal.append([records.encode_checkpoint(durable)])

    def note(self, durable: JournalPosition) -> None:
        """Where a start has to look no further back than this, if it fits. Raises OSError."""
        payload = records.encode_checkpoint(durable)
        if self._journal.fits(records.framed_size(payload)):
            self._journal.append([payload])

    def note_the_end(self) -> None:
        """That there is nothing to replay, durably. Raises OSError."""
        if not self._journal.nothing_to_note:
            self._journal.note_all()

    def fail(self, cause: OSError | None) -> BucketdError:
        """After a failed write or sync nothing on that descriptor can be trusted: stop writing."""
        log.critical("no more writes until bucketd is started again: %s", cause or "see above")
        self.failure = self.failure or ReadOnly(
            "cannot write: the journal failed, so nothing can be promised any more; "
            "reads go on, restart bucketd to recover"
        )
        return self.failure
