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
from dataclasses import dataclass

from ..counting import SIZES, Histogram
from ..errors import BucketdError, Overloaded, ReadOnly
from ..model import BucketKey, Snapshot
from . import disk, records
from .applying import Applier, Batch, Commit
from .bucketfiles import BucketFiles
from .checkpoint import Checkpoint
from .journal import Journal
from .locks import WriteLock

log = logging.getLogger(__name__)

LINGER_SECONDS = 0.01  # with changed files to write: how long to wait for one more change first
HOLD_SECONDS = 0.2  # how long other programs may have to wait for the lock under steady load
YIELD_SECONDS = 0.001  # and how long it is then left free, so that a waiter of flock() can wake
CHECKPOINT_SECONDS = 5.0
MANY_FILES = 4000  # so many may wait to be durable: a start may have to write them all again
RETRY_SECONDS = 1.0
QUICK_SECONDS = 0.001  # a sync that takes longer is none to wait for on the event loop
QUICK_BYTES = 128 * 1024
LIGHT_BYTES = 64 * 1024
_FORGET = 0.9  # so much of a slow sync is left after each one that follows

Answer = Callable[[Batch], None]


@dataclass(slots=True)
class Counters:
    """Since the daemon started; bytes and calls as handed to the kernel."""

    commits: int = 0
    batches: int = 0
    journal_bytes: int = 0
    journal_syncs: int = 0
    file_syncs: int = 0


class Pipeline:
    """Owns the journal and all changes of files. One thread at a time, but for ``dirty``.

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
        self._lock_timeout, self._relaxed = lock_timeout, relaxed_seconds
        self._waiting, self._step = waiting, step
        self._held_since: float | None = None
        self._committed_at = 0.0
        self._unsynced_since: float | None = None
        self._slow_sync = QUICK_SECONDS * 2  # until it is known better
        self._checkpoint = Checkpoint(files.root, log_.position)
        self._writes_begun = 0  # files written before the newest checkpoint was begun
        self.data_end = log_.position
        # Acknowledged, and not yet in files: what readers must see instead of the files.
        self.dirty: dict[BucketKey, Snapshot] = {}
        self._applier = Applier(files, log_, self.dirty)
        self.failure: BucketdError | None = None  # for good: only a new process can recover
        self.behind: BucketdError | None = None  # for now: files cannot be written
        self.counters = Counters()
        self.commit_seconds, self.fsync_seconds = Histogram(), Histogram()
        self.batch_sizes = Histogram(SIZES)

    @property
    def problem(self) -> BucketdError | None:
        """Why writes are refused now, if they are."""
        return self.failure or self.behind

    def quick(self) -> bool:
        """Whether a commit now would have to wait for nobody, and not for long; takes the lock."""
        if self.problem is not None or self._slow_sync > QUICK_SECONDS:
            return False
        if not self._journal.fits(min(QUICK_BYTES, self._journal.most_at_once)):
            return False
        try:
            if self._held_since is None and self._lock.acquire(0, lambda: True):
                self._held_since = time.monotonic()
        except OSError:
            return False  # whoever waits for it hears why it cannot be had
        return self._held_since is not None

    def light(self, commit: Commit) -> bool:
        """Whether it takes no reading of files, and not long."""
        if commit.change is None or commit.change.large:
            return False
        try:
            now = self.dirty.get(commit.key) or self._files.peek(commit.key)
        except BucketdError:
            return False
        return now is not None and len(now.bucket) <= LIGHT_BYTES

    def patience(self) -> float | None:
        """Seconds without a commit after which there is something else to do; None: for ever."""
        if self.behind is not None:
            return RETRY_SECONDS
        if self._held_since is not None:
            return LINGER_SECONDS
        if self._unsynced_since is not None and self._relaxed is not None:
            return max(0.0, self._unsynced_since + self._relaxed - time.monotonic())
        return CHECKPOINT_SECONDS if self._checkpoint.open_until(self.data_end) else None

    def commit(self, commits: list[Commit], answer: Answer) -> None:
        """Judge, journal and answer them, in this order."""
        refusal = self._refusal()
        if refusal is not None:
            answer(Batch(answers=[(commit, refusal) for commit in commits]))
            return
        began = time.monotonic()
        batch = Batch()
        for commit in commits:
            batch.answers.append((commit, self._applier.outcome(commit, batch)))
            if batch.size > self._journal.most_at_once:
                self._complete(batch, answer)
                batch = Batch()
        self._complete(batch, answer)
        self._committed_at = now = time.monotonic()
        self.commit_seconds.add(now - began)

    def _complete(self, batch: Batch, answer: Answer) -> None:
        """Journal what the batch has come to, then answer it."""
        refusal = self.failure
        if batch.payloads and refusal is None:
            refusal = self._write_journal(batch)
        if batch.payloads and refusal is not None:
            # All of them: even a refused guard may have judged by a state that is now void.
            batch = Batch(answers=[(commit, refusal) for commit, _ in batch.answers])
        answer(batch)

    def _refusal(self) -> BucketdError | None:
        """Why nothing can be committed now; takes the lock where nothing is in the way."""
        if self.failure is not None:
            return self.failure
        if self.behind is not None:
            self._flush()
        if self.behind is not None:
            return self.behind
        return self._take_lock() if self._held_since is None else None

    def _take_lock(self) -> BucketdError | None:
        """Hold write.lock from here on; else why not."""
        try:
            if not self._lock.acquire(self._lock_timeout, self._step):
                return _lock_busy(self._lock_timeout)
        except OSError as error:
            log.error("cannot take write.lock: %s", error)
            return disk.refusal("write", error)
        self._held_since = time.monotonic()
        return None

    def _write_journal(self, batch: Batch) -> BucketdError | None:
        """Make the batch durable; else why not. Only a failed write leaves the outcome open."""
        if not self._journal.fits(batch.size):
            refusal = self._next_segment()
            if refusal is not None:
                return refusal
        batch.place = self._journal.position
        try:
            self.counters.journal_bytes += self._journal.append(batch.payloads)
            if self._relaxed is None:
                self._sync_journal()
            elif self._unsynced_since is None:
                self._unsynced_since = time.monotonic()
        except OSError as error:
            self._fail(error)
            return disk.refusal("write", disk.OutcomeUnknown(error.errno, error.strerror))
        self.dirty.update(batch.after)
        self.data_end = self._journal.position
        self.counters.batches += 1
        self.counters.commits += len(batch.payloads)
        self.batch_sizes.add(len(batch.payloads))
        return None

    def _sync_journal(self) -> None:
        began = time.monotonic()
        self._journal.sync()
        seconds = time.monotonic() - began
        self.fsync_seconds.add(seconds)
        self._slow_sync = max(self._slow_sync * _FORGET, seconds)
        self._unsynced_since = None
        self.counters.journal_syncs += 1

    def _next_segment(self) -> BucketdError | None:
        """Recycle the older segment, once all that it holds stands durably in files."""
        try:
            self._sync_journal()
            if not self._checkpoint.covers(self._journal.older_end):
                self._make_all_durable()
                if self.behind is not None:
                    return self.behind
            self._journal.begin_segment()
            self._journal.append([records.encode_checkpoint(self._checkpoint.durable)])
        except OSError as error:
            self._fail(error)
            return disk.refusal("recycle the journal", error)
        return None

    # --- files

    def tidy(self, now_please: bool = False) -> None:
        """Write files when nothing is committed any more, or it is time; then make them durable.

        With ``now_please`` somebody waits for it.
        """
        now = time.monotonic()
        quiet = now_please or (not self._waiting() and now >= self._committed_at + LINGER_SECONDS)
        overdue = self._held_since is not None and now > self._held_since + HOLD_SECONDS
        if self._held_since is not None and (quiet or overdue):
            self._flush(give_way=not overdue and not now_please)
            if not self.dirty:
                self._lock.release()
                self._held_since = None
                time.sleep(0 if quiet and not self._waiting() else YIELD_SECONDS)
        if self.failure is not None:
            return
        try:
            self._sync_when_due(now)
            if not self.dirty:
                self._advance_checkpoint(quiet)
        except OSError as error:
            self._fail(error)

    def _flush(self, give_way: bool = False) -> None:
        """Write every changed file once; ``behind`` says why where one could not be.

        With ``give_way`` it stops as soon as a commit waits, which may make
        writing the rest of the files needless.
        """
        self.behind = None
        if self.dirty and not self._journal_durable():
            return
        for key, snapshot in list(self.dirty.items()):
            self._step()
            try:
                if key in self._applier.corrupt:
                    self._files.set_aside(key)
                    self._applier.corrupt.discard(key)
                self._files.put(key, snapshot)
            except OSError as error:
                self.behind = disk.refusal("write while files cannot be brought up to date", error)
                log.error("cannot write %s: %s", self._files.name(key), error)
                return
            del self.dirty[key]
            if give_way and self._waiting():
                return

    def _journal_durable(self) -> bool:
        """Make it so, also in relaxed mode: a file renamed without may be empty after a cut."""
        if self._unsynced_since is not None and self.failure is None:
            try:
                self._sync_journal()
            except OSError as error:
                self._fail(error)
        if self._unsynced_since is not None:
            self.behind = self.failure
        return self._unsynced_since is None

    def _sync_when_due(self, now: float) -> None:
        since = self._unsynced_since
        if since is not None and self._relaxed is not None and now >= since + self._relaxed:
            self._sync_journal()

    def _advance_checkpoint(self, idle: bool) -> None:
        """With all files current: begin to make them durable, note down how far that has come."""
        if self._checkpoint.news():  # even if busy: a start reads only what comes after it
            payload = records.encode_checkpoint(self._checkpoint.durable)
            if self._journal.fits(records.framed(payload)):
                self._journal.append([payload])
        many = self._files.writes >= self._writes_begun + MANY_FILES
        if not self._checkpoint.due(self.data_end, self._journal.halfway, idle, many):
            return
        if self._checkpoint.failed:
            self._write_again()
        if not self.dirty and not self._checkpoint.failed:
            self._writes_begun = self._files.writes
            self._checkpoint.start(self._journal.position)
            self.counters.file_syncs += 1

    def _make_all_durable(self) -> None:
        """Now; ``behind`` says why not where files cannot be written. Raises OSError."""
        self._checkpoint.settle()
        if self._checkpoint.failed:
            self._write_again()
        self._flush()
        if self.behind is None:
            self._checkpoint.wait(self._journal.position)

    def _write_again(self) -> None:
        """Make those files dirty that a failed syncfs may have lost; not while the lock is busy."""
        if self._held_since is None:
            if not self._lock.acquire(0, lambda: True):
                return
            self._held_since = time.monotonic()
        for key, after in self._journal.newest_since(self._checkpoint.durable).items():
            if key not in self.dirty and after.revision and self._files.shows(key, after):
                self.dirty[key] = after
        self._checkpoint.failed = False

    # --- the end

    def finish(self) -> None:
        """The clean stop: files current and durable, and the journal says so."""
        try:
            # Without the lock nothing is dirty: whoever has it does not matter then.
            if self.failure is None:
                self._make_all_durable()
            else:
                self._flush()
            if self.behind is not None:
                log.error("stopping while files are behind; the next start completes them")
            elif self.failure is None:
                self._note_all_durable()
        except OSError:
            log.exception("cannot finish the journal; the next start completes the files")
        finally:
            if self._held_since is not None:
                self._lock.release()

    def close(self) -> None:
        self._checkpoint.close()
        self._journal.close()
        self._lock.close()

    def _note_all_durable(self) -> None:
        if self._journal.nothing_to_note:
            return
        payload = records.encode_checkpoint(self._journal.position)
        if not self._journal.fits(records.framed(payload)):
            self._journal.begin_segment()
        self._journal.append([payload])
        self._sync_journal()

    def give_up(self) -> BucketdError:
        """No more writes after something that was not foreseen; what to answer from here on."""
        return self._fail(None)

    def _fail(self, cause: OSError | None) -> BucketdError:
        """After a failed write or sync nothing on that descriptor can be trusted: stop writing."""
        log.critical("no more writes until bucketd is started again: %s", cause or "see above")
        self.failure = self.failure or ReadOnly(
            "cannot write: the journal failed, so nothing can be promised any more; "
            "reads go on, restart bucketd to recover"
        )
        return self.failure


def _lock_busy(seconds: float) -> Overloaded:
    return Overloaded(
        f"cannot write: another program has held write.lock for over {seconds:g} s; "
        "nothing was changed, end that program or try again"
    )
