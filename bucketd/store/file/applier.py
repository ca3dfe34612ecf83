"""What one commit does to a bucket, decided in memory: the rules, without threads or locks."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping

from ...errors import BucketCorrupt, BucketdError, Internal
from ...model.apply import apply, next_snapshot
from ...model.bucket import ABSENT, BucketKey, Snapshot
from .batch import Batch, Commit
from .bucket_files import BucketFiles, Loaded
from .journal import Journal

log = logging.getLogger(__name__)
MAX_UNRECOVERABLE = 10_000


class Applier:
    """Applies commits to the newest state: of the batch, of ``dirty``, or of the file.

    ``corrupt`` collects the buckets whose unreadable file goes to the quarantine before the next
    write of it, and under which name.
    """

    def __init__(
        self,
        files: BucketFiles,
        journal: Journal,
        dirty: Mapping[BucketKey, Snapshot],
        corrupt: dict[BucketKey, str],
    ) -> None:
        self._files, self._journal, self._dirty = files, journal, dirty
        self._corrupt = corrupt
        self._unrecoverable: set[BucketKey] = set()  # the journal holds nothing of them

    def apply(self, commit: Commit, batch: Batch) -> None:
        """Add the outcome of the commit to the batch, with what is to be journaled for it."""
        outcome: Snapshot | BucketdError
        try:
            outcome = self._evaluate(commit, batch)
        except BucketdError as error:
            # The traceback would keep the batch alive, and the batch holds this error: a cycle.
            outcome = error.with_traceback(None)
        except Exception as error:
            # Without its message, which may show a value of the bucket.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("unexpected error in a change: %s\n%s", type(error).__name__, where)
            outcome = Internal("cannot write the bucket: an internal error, see the daemon's log")
        batch.outcomes.append((commit, outcome))

    def _evaluate(self, commit: Commit, batch: Batch) -> Snapshot:
        key = commit.key
        newest = batch.newest.get(key) or self._dirty.get(key)
        try:
            loaded = Loaded(newest, verified=True) if newest is not None else self._files.load(key)
        except BucketCorrupt as error:
            good = self._last_good(key)
            if commit.change.overwrites and not commit.preconditions:
                return self._overwrite(commit, batch, good)
            if good is None:
                raise
            loaded = Loaded(self._restore(key, batch, good, error.damage), verified=True)
        now = loaded.snapshot
        if not loaded.verified:
            # Responses show the edit, whatever comes of this commit; so it must last from here on.
            self._add(batch, key, now, now, published=loaded.before)
        after = apply(commit.change, commit.preconditions, commit.automation, key, now)
        if after is now:
            return now
        self._add(batch, key, now, after, published=now)
        if now.recovered is None or not after.revision:
            return after
        return after._replace(recovered=now.recovered)

    def _overwrite(self, commit: Commit, batch: Batch, good: Snapshot | None) -> Snapshot:
        """Put a bucket, or none, in the place of a file that cannot be read."""
        change, last = commit.change, good or ABSENT
        bound = commit.automation or last.automation
        after = next_snapshot(last, change.result(None, bound), bound, change.metadata)
        self._add(batch, commit.key, last, after, published=good)
        self._corrupt[commit.key] = self._files.quarantine_name(commit.key)
        return after

    def _restore(self, key: BucketKey, batch: Batch, good: Snapshot, damage: str) -> Snapshot:
        """Put the last good generation in the place of a file that cannot be read.

        Responses tell of it up to the next change: who reads first may not be who has to know.
        """
        kept = self._files.quarantine_name(key)
        what = f"{damage}; kept as {self._files.path}/{kept}, revision {good.revision} goes on"
        log.error("cannot read %s: %s", key, what)
        good = good._replace(recovered=(good.revision, what))
        self._add(batch, key, good, good, published=good)
        self._corrupt[key] = kept
        return good

    def _last_good(self, key: BucketKey) -> Snapshot | None:
        """Return the newest generation known besides the file: of the cache, or of the journal."""
        entry = self._files.entry(key)
        if entry is not None and entry.snapshot.revision:
            return entry.snapshot
        # The journal is not searched again each time that somebody asks for a lost bucket.
        if key in self._unrecoverable:
            return None
        record = self._journal.find(key)
        if record is not None and record.after.revision:
            return record.after
        if len(self._unrecoverable) >= MAX_UNRECOVERABLE:
            self._unrecoverable.clear()
        self._unrecoverable.add(key)
        return None

    def _add(
        self,
        batch: Batch,
        key: BucketKey,
        before: Snapshot,
        after: Snapshot,
        published: Snapshot | None,
    ) -> None:
        self._files.check_writable(key)
        self._unrecoverable.discard(key)
        batch.add(key, before.etag, after, published)
