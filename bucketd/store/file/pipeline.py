"""The commit pipeline, run by one thread at a time.

    write.lock → evaluate in memory → journal, one fdatasync → respond
                                           ↓ when idle, or after MAX_LOCK_HOLD
                release write.lock ← write each changed file once

The lock is released only once every acknowledged change is in its file, so the next holder sees
the newest state. Files are made durable in the background, and a checkpoint in the journal records
how far they are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ...concurrency import INLINE_MAX_BYTES
from ...errors import BucketdError, Overloaded, StorageFull
from ...fs import errors
from ...fs.locks import WriteLock
from ...stats import Histogram
from ..holds import HoldQueue
from .applier import Applier
from .backlog import Backlog
from .batch import Batch, Commit
from .bucket_files import BucketFiles
from .flusher import Flusher
from .journal import Journal
from .journal_writer import JournalWriter
from .trash import Trash, for_good

log = logging.getLogger(__name__)

# Seconds without a commit before changed files are written.
FLUSH_DELAY = 0.01
# Seconds for which other programs wait for the lock under steady load.
MAX_LOCK_HOLD = 0.2
# Seconds for which the lock is then free, so that a program in flock() can wake up.
LOCK_PAUSE = 0.001
CHECKPOINT_SECONDS = 5.0
RETRY_SECONDS = 1.0

Respond = Callable[[Batch], None]


class Pipeline:
    """Evaluate, journal and respond to commits, and write files, on one thread at a time.

    ``has_waiting`` reports whether commits wait. ``heartbeat`` is called before each step that may
    take long; it returns whether to give up waiting for the lock.
    """

    def __init__(
        self,
        files: BucketFiles,
        journal: Journal,
        lock: WriteLock,
        lock_timeout: float,
        relaxed_seconds: float | None,
        holds: HoldQueue,
        trash: Trash,
        backlog: Backlog,
        has_waiting: Callable[[], bool],
        heartbeat: Callable[[], bool],
    ) -> None:
        self._files, self._journal, self._lock, self._trash = files, journal, lock, trash
        self._lock_timeout = lock_timeout
        self._has_waiting, self._heartbeat = has_waiting, heartbeat
        self._committed_at = 0.0
        self.writer = JournalWriter(journal, relaxed_seconds, backlog, trash)
        self._history = backlog.limits
        self._flusher = Flusher(files, journal, self.writer, lock, has_waiting, heartbeat, trash)
        self.dirty = self.writer.dirty
        self._applier = Applier(files, journal, self.dirty, self._flusher.corrupt, holds, trash)
        self.commit_seconds = Histogram()

    @property
    def problem(self) -> BucketdError | None:
        """The error with which writes are refused now; None if they are not."""
        return self.writer.failure or self._flusher.flush_error

    def can_commit_inline(self) -> bool:
        """Take the lock, and report whether a commit now needs no wait and no long sync."""
        if self._flusher.flush_error is not None or not self.writer.can_write_inline():
            return False
        try:
            return self._lock.acquire()
        except OSError:
            # The thread tries again, and refuses the commits with the cause.
            return False

    def fits_inline(self, commit: Commit) -> bool:
        """Report whether a commit needs no file and little time."""
        if commit.change.offloaded:
            return False
        try:
            now = self.dirty.get(commit.key) or self._files.cached(commit.key)
        except BucketdError:
            return False
        if now is None:
            return False
        # A large bucket is written quickly only as a difference; into the trash it goes whole.
        is_difference = commit.change.by_members and not commit.change.trash_days
        is_quick = is_difference and self.writer.base_of(commit.key) == now.etag
        return now.bucket.size <= INLINE_MAX_BYTES or (is_quick and now.bucket.is_split)

    def poll_timeout(self) -> float | None:
        """Return after how many seconds without a commit to call ``maintain``; None: never."""
        if self._flusher.flush_error is not None:
            return RETRY_SECONDS
        if self._lock.held_since is not None:
            return FLUSH_DELAY
        due = self.writer.seconds_to_sync()
        if due is not None:
            return due
        return CHECKPOINT_SECONDS if self._flusher.has_work() else None

    # --- changes

    def commit(self, commits: list[Commit], respond: Respond, inline: bool = False) -> list[Commit]:
        """Evaluate commits, journal them, and respond to them.

        Return the commits that are left undone: with ``inline``, those that need a new segment,
        which may take long.
        """
        refusal = self._refusal()
        if refusal is not None:
            commits = self._refuse(commits, refusal, respond)
            if not commits:
                return []
        began = time.monotonic()
        batch, undone = Batch(self.writer.base_of, self._history), 0
        for number, commit in enumerate(commits, 1):
            self._applier.apply(commit, batch)
            if number == len(commits) or batch.whole_size > self._journal.max_batch_bytes:
                if inline and not self._journal.fits(batch.size):
                    break
                self._complete(batch, respond)
                batch, undone = Batch(self.writer.base_of, self._history), number
        if refusal is not None:
            # Only removals were let through; flushing them frees space.
            self._flusher.flush()
        self._committed_at = now = time.monotonic()
        self.commit_seconds.add(now - began)
        return commits[undone:]

    def _complete(self, batch: Batch, respond: Respond) -> None:
        """Make a batch durable, then respond to its commits."""
        if batch.payloads:
            refusal = self.writer.failure
            if refusal is None and not self._journal.fits(batch.size):
                refusal = self._next_segment()
                batch.make_whole()
            if refusal is None:
                refusal = self.writer.write(batch)
            if refusal is not None:
                # All commits are refused: even a failed precondition may have been evaluated on a
                # state of this batch, which is now void.
                batch = Batch(outcomes=[(commit, refusal) for commit, _ in batch.outcomes])
        respond(batch)
        self.writer.backlog.add()

    def _refusal(self) -> BucketdError | None:
        """Take the lock; return an error if nothing can be committed now."""
        if self.writer.failure is not None:
            return self.writer.failure
        if self._flusher.flush_error is not None:
            self._flusher.flush()
            if self._flusher.flush_error is not None:
                return self._flusher.flush_error
        try:
            if self._lock.acquire(self._lock_timeout, self._heartbeat):
                return None
        except OSError as error:
            log.error("cannot take write.lock: %s", error)
            return errors.refusal("write", error)
        return Overloaded(
            f"cannot write: another program has held write.lock for over {self._lock_timeout:g} s; "
            "nothing was changed, end that program or try again"
        )

    def _refuse(
        self, commits: list[Commit], refusal: BucketdError, respond: Respond
    ) -> list[Commit]:
        """Refuse commits; return the removals that are let through because they free space."""
        full = isinstance(refusal, StorageFull) and refusal is self._flusher.flush_error
        allowed: list[Commit] = []
        refused = Batch()
        for commit in commits:
            if full and commit.change.removes:
                if commit.change.trash_days:
                    log.error("%s", for_good(commit.key, "the disk is full"))
                    commit.change = commit.change._replace(trash_days=0.0)
                allowed.append(commit)
            else:
                refused.outcomes.append((commit, refusal))
        respond(refused)
        return allowed

    def _next_segment(self) -> BucketdError | None:
        """Continue in the other segment; return an error if that fails."""
        try:
            self.writer.sync()
            self._flusher.recycle()
        except OSError as error:
            self.writer.fail(error)
            return errors.refusal("recycle the journal", error)
        return self._flusher.flush_error

    # --- files

    def empty_trash(self, ids: list[str]) -> list[str]:
        """Delete buckets in the trash for good; return the ids of those that were there.

        Raises BucketdError.
        """
        refusal = self._refusal()
        # A full disk is a reason to empty the trash, not to refuse that.
        if refusal is not None and not isinstance(refusal, StorageFull):
            raise refusal
        try:
            if self._trash.is_journaled(ids):
                self._make_trash_durable()
            return self._trash.remove_all(ids)
        except OSError as error:
            raise errors.refusal("empty the trash", error) from error

    def _make_trash_durable(self) -> None:
        """Let a start read no record that would put a bucket into the trash again."""
        self._flusher.make_all_durable()
        if self._flusher.flush_error is not None:
            raise self._flusher.flush_error
        try:
            self._journal.checkpoint_all()
        except OSError as error:
            raise self.writer.fail(error) from error
        self._trash.forget_journaled()

    def maintain(self, flush_now: bool = False) -> None:
        """Write files once commits pause or the lock is held for long; then make them durable.

        With ``flush_now``, write the files at once.
        """
        now, held_since = time.monotonic(), self._lock.held_since
        quiet = flush_now or (not self._has_waiting() and now >= self._committed_at + FLUSH_DELAY)
        overdue = held_since is not None and now > held_since + MAX_LOCK_HOLD
        if held_since is not None and (quiet or overdue):
            self._flusher.flush(give_way=not overdue and not flush_now)
            if not self.dirty:
                self._lock.release()
                time.sleep(0 if quiet and not self._has_waiting() else LOCK_PAUSE)
        if self.writer.failure is not None:
            return
        try:
            if self.writer.seconds_to_sync() == 0:
                self.writer.sync()
            if not self.dirty:
                self._flusher.advance(quiet)
        except OSError as error:
            self.writer.fail(error)

    # --- the end

    def finish(self) -> None:
        """Make all files current and durable, and record that in the journal."""
        try:
            # If another program holds the lock, no file is dirty, so the lock is not needed.
            if self.writer.failure is None:
                self._flusher.make_all_durable()
            else:
                self._flusher.flush()
            if self._flusher.flush_error is not None:
                log.error("stopping while files are behind; the next start completes them")
            elif self.writer.failure is None:
                self._journal.checkpoint_all()
        except OSError:
            log.exception("cannot finish the journal; the next start completes the files")
        finally:
            if self._lock.held_since is not None:
                self._lock.release()

    def close(self) -> None:
        self._flusher.close()
        self._journal.close()
        self._lock.close()
