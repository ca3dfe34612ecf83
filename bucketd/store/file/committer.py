"""Who works the commit pipeline, and when: the event loop where that is quick, else a thread.

What arrives in one round of the loop is committed together at its end, inline, as long as the
disk's syncs are short: waking another thread and being woken by it costs more than such a sync.
Whatever may take long (a slow disk, a lock that another program holds, a full segment, writing
files) is left to the thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from ...errors import BucketdError, Overloaded, ShuttingDown
from ...fs.locks import WriteLock
from ...model.bucket import BucketKey, Snapshot
from ...model.preconditions import Preconditions
from ...stats import Histogram
from ..base import ChangeEvent, Subscriber
from . import pipeline
from .batch import INGEST, Batch, Commit
from .bucket_files import BucketFiles
from .journal import Journal
from .journal_writer import Counters
from .pipeline import Pipeline, Respond
from .records import EventId, JournalPosition, framed_size

log = logging.getLogger(__name__)
MAX_WAITING = 10_000
MAX_BATCH = 512


class _Wake:
    """There are files to write before long."""


class _End:
    """Nothing follows that was accepted."""


class _Work(NamedTuple):
    """One round of the thread: what to commit, and a flush barrier behind that."""

    commits: list[Commit]
    barrier: asyncio.Future[None] | None = None
    is_last: bool = False


class Committer:
    """Changes in, snapshots out. Use from one event loop; ``dirty`` from any thread."""

    def __init__(
        self,
        files: BucketFiles,
        journal: Journal,
        lock: WriteLock,
        lock_timeout: float,
        relaxed_seconds: float | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        # To the thread, in order. A future is a flush barrier.
        self._inbox: queue.SimpleQueue[Commit | asyncio.Future[None] | _Wake | _End]
        self._inbox = queue.SimpleQueue()
        self._pipeline = Pipeline(
            files,
            journal,
            lock,
            lock_timeout,
            relaxed_seconds,
            has_waiting=lambda: not self._inbox.empty(),
            heartbeat=self._heartbeat,
        )
        self._pipeline_lock = threading.Lock()  # whoever holds it may work the pipeline
        self._gathered: list[Commit] = []  # in this round of the loop
        self._must_wake = False  # the thread sleeps for longer than FLUSH_DELAY
        # Batches that the thread has sent to the loop, and those that the loop has received.
        self._sent = self._received = 0
        self.event_id: EventId = journal.last_event_id  # of the newest change that was published
        self._subscriber: Subscriber | None = None
        self._closing = threading.Event()
        self._busy_since: float | None = None  # the thread's last sign of progress; None: idle
        self._thread = threading.Thread(target=self._run, name="bucketd-commit", daemon=True)
        self._thread.start()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Publish every change to this one from here on."""
        self._subscriber = subscriber

    @property
    def dirty(self) -> Mapping[BucketKey, Snapshot]:
        """Acknowledged, and not yet in files."""
        return self._pipeline.dirty

    @property
    def counters(self) -> Counters:
        return self._pipeline.writer.counters

    @property
    def histograms(self) -> dict[str, Histogram]:
        return {
            "bucketd_commit_seconds": self._pipeline.commit_seconds,
            "bucketd_commit_batch_size": self._pipeline.writer.batch_sizes,
            "bucketd_fsync_seconds": self._pipeline.writer.fsync_seconds,
        }

    @property
    def problem(self) -> BucketdError | None:
        """Why writes are refused now, if they are."""
        return self._pipeline.problem

    @property
    def end(self) -> JournalPosition:
        """Where what is durable in the journal ends."""
        return self._pipeline.writer.end

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and self.problem is None

    @property
    def stalled_seconds(self) -> float:
        """How long the thread has been at one step: 0 with nothing to do, infinite if it died."""
        # Written by the thread; reading one reference once needs no lock.
        since = self._busy_since
        if not self._thread.is_alive():
            return 0.0 if self._closing.is_set() else math.inf
        return 0.0 if since is None else time.monotonic() - since

    def commit(self, commit: Commit) -> asyncio.Future[Snapshot]:
        """Return the future state after the commit, once it is durable; or its BucketdError."""
        if self._closing.is_set():
            raise _stopping()
        if self._inbox.qsize() + len(self._gathered) >= MAX_WAITING:
            raise Overloaded(f"cannot write: {MAX_WAITING} writes are waiting; try again")
        commit.future = future = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._commit_gathered)
        self._gathered.append(commit)
        return future

    def ingest_edit(self, key: BucketKey) -> None:
        """Make an external edit a revision, some time soon."""
        if not self._closing.is_set() and self._inbox.qsize() < MAX_WAITING:
            self._inbox.put(Commit(key, INGEST, Preconditions()))

    async def wait_until_flushed(self) -> None:
        """Wait until the files hold all that is acknowledged, or cannot be brought to."""
        if self.dirty and not self._closing.is_set():
            barrier: asyncio.Future[None] = self._loop.create_future()
            self._inbox.put(barrier)
            await barrier

    async def close(self) -> None:
        """Finish what was accepted, leave nothing to replay, release everything."""
        self._closing.set()
        self._hand_over()
        self._inbox.put(_End())
        await asyncio.to_thread(self._thread.join)
        self._pipeline.close()

    # --- on the loop

    def _commit_gathered(self) -> None:
        try:
            done = not self._gathered or self._commit_inline()
        except Exception:
            # Commits that stayed here would never be scheduled again.
            log.exception("unexpected error before an inline commit")
            done = False
        if not done:
            self._hand_over()

    def _hand_over(self) -> None:
        """Leave to the thread what was gathered."""
        for commit in self._gathered:
            self._inbox.put(commit)
        self._gathered.clear()

    def _commit_inline(self) -> bool:
        """Commit what was gathered, if that is quick."""
        if not self._inbox.empty() or not self._pipeline_lock.acquire(blocking=False):
            return False
        try:
            # Changes are published in their order: first those that the thread has sent.
            if self._sent != self._received or not self._pipeline.can_commit_inline():
                return False
            if not all(map(self._pipeline.fits_inline, self._gathered)):
                return False
            commits, self._gathered = self._gathered, []
            self._gathered[:0] = self._work(commits, self._acknowledge, inline=True)
            wake, self._must_wake = self._must_wake, False
        finally:
            self._pipeline_lock.release()
        if wake:
            self._inbox.put(_Wake())
        return not self._gathered

    def _receive(self, batch: Batch) -> None:
        """Acknowledge what the thread has sent."""
        self._received += 1
        self._acknowledge(batch)

    def _acknowledge(self, batch: Batch) -> None:
        """Resolve who waits for these commits, then publish what was journaled."""
        for commit, outcome in batch.outcomes:
            future = commit.future
            if future is None:
                if isinstance(outcome, BucketdError):
                    log.warning("%s", outcome.message)
            elif future.done():
                # Nobody waits any more; the commit has happened all the same.
                continue
            elif isinstance(outcome, BucketdError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if batch.start is None:
            return
        generation, offset = batch.start.generation, batch.start.offset
        for (key, before, after), payload in zip(batch.transitions, batch.payloads, strict=True):
            event_id = EventId(generation, offset, after.etag)
            if self._subscriber is not None:
                self._subscriber.publish(ChangeEvent(key, before, after, str(event_id)))
            self.event_id = event_id
            offset += framed_size(payload)

    # --- on the thread

    def _run(self) -> None:
        running = True
        while running:
            self._busy_since = None
            work = self._take()
            running = not work.is_last
            self._heartbeat()
            with self._pipeline_lock:
                if work.commits:
                    self._work(work.commits, self._send)
                self._maintain(work.barrier)
        with self._pipeline_lock:
            self._pipeline.finish()
        # Whoever came after the end gets a response as well.
        while not self._inbox.empty():
            late = self._inbox.get()
            if isinstance(late, Commit):
                self._send(Batch(outcomes=[(late, _stopping())]))
            elif isinstance(late, asyncio.Future):
                self._loop.call_soon_threadsafe(_release, late)

    def _take(self) -> _Work:
        """Wait for work; return up to MAX_BATCH commits, up to the first barrier."""
        with self._pipeline_lock:
            timeout = self._pipeline.poll_timeout()
            self._must_wake = timeout is None or timeout > pipeline.FLUSH_DELAY
        commits: list[Commit] = []
        try:
            item = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return _Work(commits)
        while True:
            if isinstance(item, Commit):
                commits.append(item)
            elif isinstance(item, asyncio.Future):
                return _Work(commits, barrier=item)
            elif isinstance(item, _End):
                return _Work(commits, is_last=True)
            if len(commits) == MAX_BATCH or self._inbox.empty():
                return _Work(commits)
            item = self._inbox.get()

    def _heartbeat(self) -> bool:
        """Show progress, before each step that may take long; return True to stop waiting."""
        self._busy_since = time.monotonic()
        return self._closing.is_set()

    def _maintain(self, barrier: asyncio.Future[None] | None) -> None:
        try:
            self._pipeline.maintain(flush_now=barrier is not None)
        except Exception:
            log.exception("unexpected error in the committer")
            self._pipeline.writer.fail(None)
        if barrier is not None:
            self._loop.call_soon_threadsafe(_release, barrier)

    def _send(self, batch: Batch) -> None:
        """Have the loop acknowledge the whole batch in one callback."""
        self._sent += 1
        self._loop.call_soon_threadsafe(self._receive, batch)

    # --- on either

    def _work(self, commits: list[Commit], respond: Respond, inline: bool = False) -> list[Commit]:
        """Return the commits that are left undone."""
        try:
            return self._pipeline.commit(commits, respond, inline)
        except Exception:
            log.exception("unexpected error in the committer")
            failure = self._pipeline.writer.fail(None)
            respond(Batch(outcomes=[(commit, failure) for commit in commits]))
            return []


def _release(barrier: asyncio.Future[None]) -> None:
    if not barrier.done():
        barrier.set_result(None)


def _stopping() -> ShuttingDown:
    return ShuttingDown("cannot write: the daemon is stopping; try again in a moment")
