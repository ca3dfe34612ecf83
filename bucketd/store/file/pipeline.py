"""The commit pipeline: what is done with changes, step by step, by whoever's turn it is.

    write.lock → apply in memory → journal, one fdatasync → answer
                                        ↓ when idle, or after HOLD_SECONDS
             release write.lock ← write each changed file once

The lock is let go only when every acknowledged change stands in its file, so
whoever gets it sees the newest state. What stands in files is made durable in
the background, and a checkpoint in the journal says how far that has come.
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
from .applier import Applier, Batch, Commit
from .bucket_files import BucketFiles
from .flusher import Flusher
from .journal import Journal
from .journal_writer import JournalWriter

log = logging.getLogger(__name__)

LINGER_SECONDS = 0.01  # with changed files to write: how long to wait for one more change first
HOLD_SECONDS = 0.2  # how long other programs may have to wait for the lock under steady load
YIELD_SECONDS = 0.001  # and how long it is then left free, so that a waiter of flock() can wake
CHECKPOINT_SECONDS = 5.0
RETRY_SECONDS = 1.0

Answer = Callable[[Batch], None]


class Pipeline:
    """Judges, journals and answers commits, and has files written. One thread at a time.

    ``waiting`` is asked whether commits wait; ``step`` is told of each thing that may take long,
    and says whether to give up waiting for the lock.
    """

    def __init__(
        self,
        files: BucketFiles,
        log_: Journal,
        lock: WriteLock,
        lock_timeout: float,
        relaxed_seconds: float | None,
        waiting: Callable[[], bool],
        step: Callable[[], bool],
    ) -> None:
        self._files, self._journal, self._lock = files, log_, lock
        self._lock_timeout, self._waiting, self._step = lock_timeout, waiting, step
        self._committed_at = 0.0
        self.journaling = JournalWriter(log_, relaxed_seconds)
        self._flusher = Flusher(files, log_, self.journaling, lock, waiting, step)
        self.dirty = self.journaling.dirty
        self._applier = Applier(files, log_, self.dirty, self._flusher.corrupt)
        self.commit_seconds = Histogram()

    @property
    def problem(self) -> BucketdError | None:
        """Why writes are refused now, if they are."""
        return self.journaling.failure or self._flusher.behind

    def quick(self) -> bool:
        """Whether a commit now would have to wait for nobody, and not for long; takes the lock."""
        if self._flusher.behind is not None or not self.journaling.quick:
            return False
        try:
            return self._lock.acquire()
        except OSError:
            return False  # whoever waits for it hears why it cannot be had

    def light(self, commit: Commit) -> bool:
        """Whether it takes no reading of files, and not long."""
        if commit.change is None or commit.change.large:
            return False
        try:
            now = self.dirty.get(commit.key) or self._files.cached(commit.key)
        except BucketdError:
            return False
        return now is not None and len(now.bucket) <= INLINE_MAX_BYTES

    def patience(self) -> float | None:
        """Seconds without a commit after which there is something else to do; None: for ever."""
        if self._flusher.behind is not None:
            return RETRY_SECONDS
        if self._lock.held_since is not None:
            return LINGER_SECONDS
        due = self.journaling.due()
        if due is not None:
            return due
        return CHECKPOINT_SECONDS if self._flusher.open else None

    # --- changes

    def commit(self, commits: list[Commit], answer: Answer) -> None:
        """Judge, journal and answer them, in this order."""
        refusal = self._refusal()
        if refusal is not None:
            commits = self._refuse(commits, refusal, answer)
            if not commits:
                return
        began = time.monotonic()
        batch = Batch()
        for commit in commits:
            batch.answers.append((commit, self._applier.outcome(commit, batch)))
            if batch.size > self._journal.most_at_once:
                self._complete(batch, answer)
                batch = Batch()
        self._complete(batch, answer)
        if refusal is not None:
            self._flusher.flush()  # the removals come first
        self._committed_at = now = time.monotonic()
        self.commit_seconds.add(now - began)

    def _complete(self, batch: Batch, answer: Answer) -> None:
        """Journal what the batch has come to, then answer it."""
        refusal = self.journaling.failure
        if batch.payloads and refusal is None:
            refusal = self._write(batch)
        if batch.payloads and refusal is not None:
            # All of them: even a refused guard may have judged by a state that is now void.
            batch = Batch(answers=[(commit, refusal) for commit, _ in batch.answers])
        answer(batch)

    def _refusal(self) -> BucketdError | None:
        """Why nothing can be committed now; takes the lock where nothing is in the way."""
        if self.journaling.failure is not None:
            return self.journaling.failure
        if self._flusher.behind is not None:
            self._flusher.flush()
        return self._flusher.behind or self._take_lock()

    def _refuse(self, commits: list[Commit], refusal: BucketdError, answer: Answer) -> list[Commit]:
        """Answer them with it; those that are left over are let through, to make space."""
        frees = isinstance(refusal, StorageFull) and refusal is self._flusher.behind
        let: list[Commit] = []
        refused = Batch()
        for commit in commits:
            if frees and commit.change is not None and commit.change.removes:
                let.append(commit)
            else:
                refused.answers.append((commit, refusal))
        answer(refused)
        return let

    def _take_lock(self) -> BucketdError | None:
        """Hold write.lock from here on; else why not."""
        try:
            if not self._lock.acquire(self._lock_timeout, self._step):
                return _lock_busy(self._lock_timeout)
        except OSError as error:
            log.error("cannot take write.lock: %s", error)
            return errors.refusal("write", error)
        return None

    def _write(self, batch: Batch) -> BucketdError | None:
        """Make the batch durable; else why not."""
        refusal = None if self.journaling.fits(batch) else self._next_segment()
        return self.journaling.write(batch) if refusal is None else refusal

    def _next_segment(self) -> BucketdError | None:
        try:
            self.journaling.sync()
            self._flusher.recycle()
        except OSError as error:
            self.journaling.fail(error)
            return errors.refusal("recycle the journal", error)
        return self._flusher.behind

    # --- files

    def tidy(self, now_please: bool = False) -> None:
        """Write files when nothing is committed any more, or it is time; then make them durable.

        With ``now_please`` somebody waits for it.
        """
        now, held_since = time.monotonic(), self._lock.held_since
        quiet = now_please or (not self._waiting() and now >= self._committed_at + LINGER_SECONDS)
        overdue = held_since is not None and now > held_since + HOLD_SECONDS
        if held_since is not None and (quiet or overdue):
            self._flusher.flush(give_way=not overdue and not now_please)
            if not self.dirty:
                self._lock.release()
                time.sleep(0 if quiet and not self._waiting() else YIELD_SECONDS)
        if self.journaling.failure is not None:
            return
        try:
            if self.journaling.due() == 0:
                self.journaling.sync()
            if not self.dirty:
                self._flusher.advance(quiet)
        except OSError as error:
            self.journaling.fail(error)

    # --- the end

    def finish(self) -> None:
        """The clean stop: files current and durable, and the journal says so."""
        try:
            # Without the lock nothing is dirty: whoever has it does not matter then.
            if self.journaling.failure is None:
                self._flusher.make_all_durable()
            else:
                self._flusher.flush()
            if self._flusher.behind is not None:
                log.error("stopping while files are behind; the next start completes them")
            elif self.journaling.failure is None:
                self.journaling.note_the_end()
        except OSError:
            log.exception("cannot finish the journal; the next start completes the files")
        finally:
            if self._lock.held_since is not None:
                self._lock.release()

    def close(self) -> None:
        self._flusher.close()
        self._journal.close()
        self._lock.close()


def _lock_busy(seconds: float) -> Overloaded:
    return Overloaded(
        f"cannot write: another program has held write.lock for over {seconds:g} s; "
        "nothing was changed, end that program or try again"
    )
