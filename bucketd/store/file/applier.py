"""Apply commits in memory, including to damaged and edited files; no threads, no locks."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping

from ...errors import BucketCorrupt, BucketdError, Internal
from ...fs import errors
from ...model.apply import apply, next_snapshot
from ...model.author import EDIT, UNKNOWN
from ...model.bucket import ABSENT, BucketKey, Snapshot, timestamp
from ...model.trashed import TrashedBucket, new_id
from ..holds import HoldQueue
from ..trash import not_in_trash
from .batch import INGEST, Batch, Commit
from .bucket_files import BucketFiles, Loaded
from .journal import Journal
from .trash import Trash, for_good

log = logging.getLogger(__name__)
MAX_UNRECOVERABLE = 10_000


class Applier:
    """Apply commits to the newest state: of the batch, of ``dirty``, or of the file.

    ``corrupt`` collects the buckets whose unreadable file has to be moved to the quarantine before
    the file is written, with the names there.
    """

    def __init__(
        self,
        files: BucketFiles,
        journal: Journal,
        dirty: Mapping[BucketKey, Snapshot],
        corrupt: dict[BucketKey, str],
        holds: HoldQueue,
        trash: Trash,
    ) -> None:
        self._files, self._journal, self._dirty, self._holds = files, journal, dirty, holds
        self._trash = trash
        self._corrupt = corrupt
        # Buckets whose file is unreadable and that are not in the journal.
        self._unrecoverable: set[BucketKey] = set()

    def apply(self, commit: Commit, batch: Batch) -> None:
        """Add the outcome of a commit and its journal records to the batch."""
        outcome: Snapshot | BucketdError
        try:
            outcome = self._evaluate(commit, batch)
        except BucketdError as error:
            # The traceback would keep the batch alive, and the batch holds this error: a cycle.
            outcome = error.with_traceback(None)
        except Exception as error:
            # The error's message is left out, since it may show a value of the bucket.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("unexpected error in a change: %s\n%s", type(error).__name__, where)
            outcome = Internal("cannot write the bucket: an internal error, see the daemon's log")
        batch.outcomes.append((commit, outcome))

    def _evaluate(self, commit: Commit, batch: Batch) -> Snapshot:
        key, fences = commit.key, commit.preconditions.fences
        # An edit by another program has happened, and a file is restored, whoever holds what.
        if (fences or self._holds.exclusive) and commit.change is not INGEST:
            self._holds.check(key, fences)
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
            # Responses show the edit even if this commit fails, so the edit is journaled first.
            self._check_writable(key)
            batch.add(key, now, now, loaded.before, EDIT)
        after, warnings = apply(commit.change, commit.preconditions, commit.automation, key, now)
        if after is now:
            return now.with_warnings(warnings)
        if not after.revision:
            return self._delete(commit, batch, now, now)
        if (restored := commit.change.restores) is not None:
            return self._restore_deleted(batch, commit, restored, after)
        self._add(batch, commit, now, after, now)
        after = after.with_warnings(warnings)
        return after if now.recovered is None else after._replace(recovered=now.recovered)

    def _delete(
        self, commit: Commit, batch: Batch, last: Snapshot, published: Snapshot | None
    ) -> Snapshot:
        """Remove a bucket, into the trash where the change asks for that and it is possible."""
        trashed = None
        if commit.change.trash_days and last.revision:
            why = self._trash.refusal(last.bucket.size)
            if why is None:
                by = commit.author.members(last.automation)
                trashed = TrashedBucket(new_id(commit.key), commit.key, last, by)
            else:
                log.error("%s", for_good(commit.key, why))
        self._add(batch, commit, last, ABSENT, published, trashed)
        return ABSENT if trashed is None else ABSENT._replace(trash=trashed.id)

    def _restore_deleted(
        self, batch: Batch, commit: Commit, restored: TrashedBucket, after: Snapshot
    ) -> Snapshot:
        """Bring a bucket back from the trash, which has each deleted bucket once."""
        try:
            found = self._trash.has(restored.id, batch.trash)
        except OSError as error:
            raise errors.refusal("read the trash", error) from error
        if not found:
            raise not_in_trash(restored.id)
        self._add(batch, commit, ABSENT, after, ABSENT)
        return after._replace(restored=restored.id)

    def _overwrite(self, commit: Commit, batch: Batch, good: Snapshot | None) -> Snapshot:
        """Replace or remove a bucket whose file cannot be read."""
        change, last = commit.change, good or ABSENT
        bound = commit.automation or last.automation
        # Nothing can be tolerated without a bucket to compare with.
        bucket, _ = change.result(None, bound)
        after = next_snapshot(last, bucket, bound, change.metadata)
        if after.revision:
            self._add(batch, commit, last, after, good)
        else:
            after = self._delete(commit, batch, last, good)
        self._corrupt[commit.key] = self._files.quarantine_name(commit.key)
        return after

    def _restore(self, key: BucketKey, batch: Batch, good: Snapshot, damage: str) -> Snapshot:
        """Replace a file that cannot be read by the last good generation.

        Every response reports the restoration until the next change, since the first reader may
        not be the person who has to know.
        """
        kept = self._files.quarantine_name(key)
        what = f"{damage}; kept as {self._files.path}/{kept}, revision {good.revision} goes on"
        log.error("cannot read %s: %s", key, what)
        good = good._replace(recovered=(good.revision, what))
        self._check_writable(key)
        batch.add(key, good, good, good, UNKNOWN)
        self._corrupt[key] = kept
        return good

    def _last_good(self, key: BucketKey) -> Snapshot | None:
        """Return the newest generation in the cache or in the journal; None if neither has one."""
        entry = self._files.entry(key)
        if entry is not None and entry.snapshot.revision:
            return entry.snapshot
        # Repeated reads of a lost bucket must not search the journal each time.
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
        commit: Commit,
        before: Snapshot,
        after: Snapshot,
        published: Snapshot | None,
        trashed: TrashedBucket | None = None,
    ) -> None:
        change, at = commit.change, None
        if change.metadata is not None and change.metadata.updated_at is not None:
            at = timestamp()
        self._check_writable(commit.key)
        batch.add(
            commit.key,
            before,
            after,
            published,
            commit.author,
            at,
            change.undoes,
            trashed,
            change.restores,
        )

    def _check_writable(self, key: BucketKey) -> None:
        self._files.check_writable(key)
        self._unrecoverable.discard(key)
