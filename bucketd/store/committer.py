"""The commit pipeline: one thread that journals what waits, answers, then writes files.

    gather → write.lock → apply in memory → journal, one fdatasync → answer
                                                  ↓ when idle, or after HOLD_SECONDS
                       release write.lock ← write each changed file once

The lock is let go only when every acknowledged change stands in its file, so
whoever gets it sees the newest state. What stands in files is made durable in
the background, and a checkpoint in the journal says how far that has come.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

from ..errors import (
    BucketdError,
    Overloaded,
    ReadOnly,
    ShuttingDown,
)
from ..model import BucketKey, Guard, Snapshot
from . import disk, journal
from .applying import Applier, Batch, Commit
from .bucketfiles import BucketFiles
from .checkpoint import Checkpoint
from .journal import Journal
from .locks import WriteLock

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
MAX_BATCH = 512
LINGER_SECONDS = 0.01  # with changed files to write: how long to wait for one more change first
HOLD_SECONDS = 0.2  # how long other programs may have to wait for the lock under steady load
YIELD_SECONDS = 0.001  # and how long it is then left free, so that a waiter of flock() can wake
CHECKPOINT_SECONDS = 5.0
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Settle:
    """Somebody waits for all files to be current."""

    future: asyncio.Future[None]


@dataclass(slots=True)
class Counters:
    """Since the daemon started; bytes and calls as handed to the kernel."""

    commits: int = 0
    batches: int = 0
    journal_bytes: int = 0
    journal_syncs: int = 0
    file_syncs: int = 0


class Committer:
    """Owns the journal and all changes of files. ``dirty`` may be read from any thread."""

    def __init__(
        self,
        files: BucketFiles,
        log_: Journal,
        lock: WriteLock,
        lock_timeout: float,
        relaxed_seconds: float | None,
    ) -> None:
        self._files, self._journal, self._lock = files, log_, lock
        self._lock_timeout, self._relaxed = lock_timeout, relaxed_seconds
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Commit | _Settle | None] = queue.SimpleQueue()
        self._settling: list[_Settle] = []
        self._closing = threading.Event()
        self._held_since: float | None = None
        self._unsynced_since: float | None = None
        self._checkpoint = Checkpoint(files.root, log_.position)
        self._data_end = log_.position
        # Acknowledged, and not yet in files: what readers must see instead of the files.
        self.dirty: dict[BucketKey, Snapshot] = {}
        self._applier = Applier(files, log_, self.dirty)
        self.failure: BucketdError | None = None  # for good: only a new process can recover
        self.behind: BucketdError | None = None  # for now: files cannot be written
        self.counters = Counters()
        self._step_began: float | None = None  # None: nothing to do
        self._thread = threading.Thread(target=self._main, name="bucketd-commit", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> BucketdError | None:
        """Why writes are refused now, if they are."""
        return self.failure or self.behind

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and self.problem is None

    @property
    def stalled_seconds(self) -> float:
        """How long the thread has been at one step: 0 with nothing to do, endless if it died."""
        began = self._step_began  # of the thread's; one read of one reference needs no lock
        if not self._thread.is_alive():
            return 0.0 if self._closing.is_set() else math.inf
        return 0.0 if began is None else time.monotonic() - began

    async def run(self, commit: Commit) -> Snapshot:
        """The state after the commit, once it is durable; or its BucketdError."""
        self._refuse_unless_ready()
        commit.future = self._loop.create_future()
        self._queue.put(commit)
        return await commit.future

    async def settle(self) -> None:
        """Wait until the files hold all that is acknowledged, or cannot be brought to."""
        if self.dirty and not self._closing.is_set():
            settle = _Settle(self._loop.create_future())
            self._queue.put(settle)
            await settle.future

    def _refuse_unless_ready(self) -> None:
        if self._closing.is_set():
            raise _stopping()
        if self._queue.qsize() >= MAX_WAITING:
            raise Overloaded(f"cannot write: {MAX_WAITING} writes are waiting; try again")

    def adopt(self, key: BucketKey) -> None:
        """Some time soon, make an edit from outside a revision of its own."""
        if not self._closing.is_set() and self._queue.qsize() < MAX_WAITING:
            self._queue.put(Commit(key, None, Guard()))

    def close(self) -> None:
        """Finish what was accepted, leave nothing to replay, let go of everything."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join()
        self._checkpoint.close()
        self._journal.close()
        self._lock.close()

    # --- the thread

    def _main(self) -> None:
        going = True
        while going:
            self._step_began = None
            batch, going = self._gather()
            self._step()
            try:
                if batch:
                    self._commit(batch)
                self._tidy(idle=not batch)
            except Exception:
                log.exception("the committer failed in a way that was not foreseen")
                self._fail(None)
                _answer(self._loop, [(commit, self.failure) for commit in batch])
        self._finish()
        self._refuse_late()

    def _step(self) -> None:
        """A sign of progress, before each thing that may take long."""
        self._step_began = time.monotonic()

    def _refuse_late(self) -> None:
        """Whoever slipped in behind the end gets an answer too."""
        while not self._queue.empty():
            late = self._queue.get()
            if isinstance(late, Commit):
                _answer(self._loop, [(late, _stopping())])
            elif late is not None:
                self._loop.call_soon_threadsafe(_release, [late])

    def _gather(self) -> tuple[list[Commit], bool]:
        """Everything that waits, up to MAX_BATCH; nothing after a pause; False at the end."""
        batch: list[Commit] = []
        try:
            commit = self._queue.get(timeout=self._patience())
            while commit is not None:
                if isinstance(commit, _Settle):
                    self._settling.append(commit)
                    return batch, True
                batch.append(commit)
                if len(batch) == MAX_BATCH or self._queue.empty():
                    return batch, True
                commit = self._queue.get()
        except queue.Empty:
            return batch, True
        return batch, False

    def _patience(self) -> float | None:
        """How long to wait for a commit before there is something else to do; None: forever."""
        if self.behind is not None:
            return RETRY_SECONDS
        if self._held_since is not None:
            return LINGER_SECONDS
        if self._unsynced_since is not None and self._relaxed is not None:
            return max(0.0, self._unsynced_since + self._relaxed - time.monotonic())
        return CHECKPOINT_SECONDS if self._checkpoint.open_until(self._data_end) else None

    def _commit(self, commits: list[Commit]) -> None:
        refusal = self._refusal()
        if refusal is not None:
            _answer(self._loop, [(commit, refusal) for commit in commits])
            return
        batch = Batch()
        for commit in commits:
            batch.answers.append((commit, self._applier.outcome(commit, batch)))
            if batch.size > self._journal.most_at_once:
                self._complete(batch)
                batch = Batch()
        self._complete(batch)

    def _complete(self, batch: Batch) -> None:
        """Journal what the batch has come to, then answer it."""
        refusal = self.failure
        if batch.payloads and refusal is None:
            refusal = self._write_journal(batch)
        if batch.payloads and refusal is not None:
            # All of them: even a refused guard may have judged by a state that is now void.
            batch.answers = [(commit, refusal) for commit, _ in batch.answers]
        _answer(self._loop, batch.answers)

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
            if not self._lock.acquire(self._lock_timeout, self._give_up):
                return _lock_busy(self._lock_timeout)
        except OSError as error:
            log.error("cannot take write.lock: %s", error)
            return disk.refusal("write", error)
        self._held_since = time.monotonic()
        return None

    def _give_up(self) -> bool:
        """Asked again and again while another program has the lock, which is no standstill."""
        self._step()
        return self._closing.is_set()

    def _write_journal(self, batch: Batch) -> BucketdError | None:
        """Make the batch durable; else why not. Only a failed write leaves the outcome open."""
        if not self._journal.fits(batch.size):
            refusal = self._next_segment()
            if refusal is not None:
                return refusal
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
        self._data_end = self._journal.position
        self.counters.batches += 1
        self.counters.commits += len(batch.payloads)
        return None

    def _sync_journal(self) -> None:
        self._journal.sync()
        self._unsynced_since = None
        self.counters.journal_syncs += 1

    def _next_segment(self) -> BucketdError | None:
        """Recycle the older segment, once all that it holds stands durably in files."""
        try:
            self._sync_journal()
            if not self._checkpoint.covers(self._journal.older_end):
                self._flush()
                if self.behind is not None:
                    return self.behind
                self._checkpoint.wait(self._journal.position)
            self._journal.begin_segment()
            self._journal.append([journal.encode_checkpoint(self._checkpoint.durable)])
        except OSError as error:
            self._fail(error)
            return disk.refusal("recycle the journal", error)
        return None

    # --- files

    def _tidy(self, idle: bool) -> None:
        now = time.monotonic()
        idle = idle or bool(self._settling)
        overdue = self._held_since is not None and now > self._held_since + HOLD_SECONDS
        if self._held_since is not None and (idle or overdue):
            self._flush(give_way=not overdue and not self._settling)
            if not self.dirty:
                self._lock.release()
                self._held_since = None
                time.sleep(0 if self._queue.empty() else YIELD_SECONDS)
        settled, self._settling = self._settling, []
        self._loop.call_soon_threadsafe(_release, settled)
        if self.failure is not None:
            return
        try:
            self._sync_when_due(now)
            if not self.dirty:
                self._advance_checkpoint(idle)
        except OSError as error:
            self._fail(error)

    def _flush(self, give_way: bool = False) -> None:
        """Write every changed file once; ``behind`` says why where one could not be.

        With ``give_way`` it stops as soon as a commit waits, which may make
        writing the rest of the files needless.
        """
        self.behind = None
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
            if give_way and not self._queue.empty():
                return

    def _sync_when_due(self, now: float) -> None:
        since = self._unsynced_since
        if since is not None and self._relaxed is not None and now >= since + self._relaxed:
            self._sync_journal()

    def _advance_checkpoint(self, idle: bool) -> None:
        """With all files current: begin to make them durable, note down how far that has come."""
        if idle and self._checkpoint.news():
            payload = journal.encode_checkpoint(self._checkpoint.durable)
            if self._journal.fits(journal.framed(payload)):
                self._journal.append([payload])
        if self._checkpoint.due(self._data_end, self._journal.halfway, idle):
            self._checkpoint.start(self._journal.position)
            self.counters.file_syncs += 1

    def _finish(self) -> None:
        """The clean stop: files current and durable, and the journal says so."""
        try:
            if self._held_since is None and self._take_lock() is not None:
                log.error("stopping without write.lock; the next start completes the files")
                return
            self._flush()
            if self.behind is None and self.failure is None:
                self._checkpoint.wait(self._journal.position)
                self._note_all_durable()
        except OSError:
            log.exception("cannot finish the journal; the next start completes the files")
        finally:
            if self._held_since is not None:
                self._lock.release()

    def _note_all_durable(self) -> None:
        if self._journal.nothing_to_note:
            return
        payload = journal.encode_checkpoint(self._journal.position)
        if not self._journal.fits(journal.framed(payload)):
            self._journal.begin_segment()
        self._journal.append([payload])
        self._sync_journal()

    def _fail(self, cause: OSError | None) -> None:
        """After a failed write or sync nothing on that descriptor can be trusted: stop writing."""
        log.critical("no more writes until bucketd is started again: %s", cause or "see above")
        self.failure = self.failure or ReadOnly(
            "cannot write: the journal failed, so nothing can be promised any more; "
            "reads go on, restart bucketd to recover"
        )


def _answer(loop: asyncio.AbstractEventLoop, answers: list[tuple[Commit, Any]]) -> None:
    """Resolve all futures in one visit to the loop."""
    for commit, outcome in answers:
        if commit.future is None and isinstance(outcome, BucketdError):
            log.warning("%s", outcome.message)
    loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[tuple[Commit, Any]]) -> None:
    for commit, outcome in answers:
        future = commit.future
        if future is None or future.done():  # nobody waits; it has happened all the same
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _release(settled: list[_Settle]) -> None:
    for settle in settled:
        if not settle.future.done():
            settle.future.set_result(None)


def _stopping() -> ShuttingDown:
    return ShuttingDown("cannot write: the daemon is stopping; try again in a moment")


def _lock_busy(seconds: float) -> Overloaded:
    return Overloaded(
        f"cannot write: another program has held write.lock for over {seconds:g} s; "
        "nothing was changed, end that program or try again"
    )
