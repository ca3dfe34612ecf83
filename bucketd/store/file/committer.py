"""Run the commit pipeline on the event loop where that is quick, else on a thread.

Commits that arrive in one iteration of the loop form one batch. The loop commits the batch inline
as long as the disk's syncs are short, since two switches between threads cost more than such a
sync. Work that may take long (a slow disk, a lock that another program holds, a full segment,
writing files) is left to the thread.
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
from ..holds import HoldQueue
from . import pipeline
from .backlog import Backlog
from .batch import INGEST, Batch, Commit
from .bucket_files import BucketFiles
from .journal import Journal
from .journal_writer import Counters
from .pipeline import Pipeline, Respond
from .records import EventId, JournalPosition, framed_size
from .trash import Trash

log = logging.getLogger(__name__)
MAX_WAITING = 10_000
MAX_BATCH = 512


class _Wake:
    """Wake the thread: files have to be written soon."""


class _End:
    """End the thread: all accepted commits precede this item."""


class _Emptying(NamedTuple):
    """Delete buckets in the trash for good; the future gets the ids of those that were there."""

    ids: list[str]
    future: asyncio.Future[list[str]]


class _Work(NamedTuple):
    """One iteration of the thread: the commits, and what follows once files are written."""

    commits: list[Commit]
    barrier: asyncio.Future[None] | None = None
    emptying: _Emptying | None = None
    is_last: bool = False


class Committer:
    """Commit changes and publish them. Use from one event loop; ``dirty`` from any thread."""

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
    ) -> None:
        self._loop = asyncio.get_running_loop()
        # The thread's work, in order. A future is a flush barrier.
        self._inbox: queue.SimpleQueue[Commit | asyncio.Future[None] | _Emptying | _Wake | _End]
        self._inbox = queue.SimpleQueue()
        self._pipeline = Pipeline(
            files,
            journal,
            lock,
            lock_timeout,
            relaxed_seconds,
            holds,
            trash,
            backlog,
            has_waiting=lambda: not self._inbox.empty(),
            heartbeat=self._heartbeat,
        )
        # Held by the thread that runs the pipeline.
        self._pipeline_lock = threading.Lock()
        # The commits of this iteration of the loop.
        self._gathered: list[Commit] = []
        # Whether the thread sleeps for longer than FLUSH_DELAY.
        self._must_wake = False
        # The number of batches that the thread has sent, and that the loop has received.
        self._sent = self._received = 0
        # The id of the newest published change.
        self.event_id: EventId = journal.last_event_id
        self._subscriber: Subscriber | None = None
        self._closing = threading.Event()
        # The time of the thread's last heartbeat; None while it is idle.
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="bucketd-commit", daemon=True)
        self._thread.start()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Publish every later change to this subscriber."""
        self._subscriber = subscriber

    @property
    def dirty(self) -> Mapping[BucketKey, Snapshot]:
        """The acknowledged states that are not in files yet."""
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
        """The error with which writes are refused now; None if they are not."""
        return self._pipeline.problem

    @property
    def end(self) -> JournalPosition:
        """The end of the durable records in the journal."""
        return self._pipeline.writer.end

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and self.problem is None

    @property
    def stalled_seconds(self) -> float:
        """The seconds since the thread's last heartbeat; 0 while idle, infinite if it died."""
        # The thread writes this attribute; reading one reference once needs no lock.
        since = self._busy_since
        if not self._thread.is_alive():
            return 0.0 if self._closing.is_set() else math.inf
        return 0.0 if since is None else time.monotonic() - since

    def commit(self, commit: Commit) -> asyncio.Future[Snapshot]:
        """Return a future of the state after the commit, done once that state is durable."""
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
        """Schedule a commit that makes an external edit a revision."""
        if not self._closing.is_set() and self._inbox.qsize() < MAX_WAITING:
            self._inbox.put(Commit(key, INGEST, Preconditions()))

    async def wait_until_flushed(self) -> None:
        """Wait until the files hold all acknowledged states, or cannot be written."""
        if self.dirty:
            await self.settle()

    async def settle(self) -> None:
        """Wait until all commits that are in progress now are done, and their files written."""
        if not self._closing.is_set():
            barrier: asyncio.Future[None] = self._loop.create_future()
            self._inbox.put(barrier)
            await barrier

    async def empty_trash(self, ids: list[str]) -> list[str]:
        """Delete buckets in the trash for good; return the ids of those that were there."""
        if self._closing.is_set():
            raise _stopping()
        future: asyncio.Future[list[str]] = self._loop.create_future()
        self._inbox.put(_Emptying(ids, future))
        return await future

    async def close(self) -> None:
        """Finish the accepted commits, leave nothing to replay, release everything."""
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
            # Commits that stayed in the list would never be scheduled again.
            log.exception("unexpected error before an inline commit")
            done = False
        if not done:
            self._hand_over()

    def _hand_over(self) -> None:
        """Hand the gathered commits over to the thread."""
        for commit in self._gathered:
            self._inbox.put(commit)
        self._gathered.clear()

    def _commit_inline(self) -> bool:
        """Commit the gathered commits now if that is quick; return whether all are done."""
        if not self._inbox.empty() or not self._pipeline_lock.acquire(blocking=False):
            return False
        try:
            # Changes are published in order, so batches of the thread come first.
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
        """Acknowledge a batch of the thread."""
        self._received += 1
        self._acknowledge(batch)

    def _acknowledge(self, batch: Batch) -> None:
        """Resolve the futures of a batch's commits, then publish its changes."""
        for commit, outcome in batch.outcomes:
            future = commit.future
            if future is None:
                if isinstance(outcome, BucketdError):
                    log.warning("%s", outcome.message)
            elif future.done():
                # The request was cancelled; the commit has happened nevertheless.
                continue
            elif isinstance(outcome, BucketdError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if batch.start is None:
            return
        generation, offset = batch.start.generation, batch.start.offset
        for change, payload in zip(batch.transitions, batch.payloads, strict=True):
            event_id = EventId(generation, offset, change.after.etag)
            if self._subscriber is not None:
                self._subscriber.publish(
                    ChangeEvent(change.key, change.before, change.after, str(event_id))
                )
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
                self._maintain(work)
        with self._pipeline_lock:
            self._pipeline.finish()
        # Commits that arrived after the end are refused.
        while not self._inbox.empty():
            late = self._inbox.get()
            if isinstance(late, Commit):
                self._send(Batch(outcomes=[(late, _stopping())]))
            elif isinstance(late, asyncio.Future):
                self._loop.call_soon_threadsafe(_release, late)
            elif isinstance(late, _Emptying):
                self._loop.call_soon_threadsafe(_settle, late.future, _stopping())

    def _take(self) -> _Work:
        """Wait for work; return at most MAX_BATCH commits, up to the first barrier."""
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
            elif isinstance(item, _Emptying):
                return _Work(commits, emptying=item)
            elif isinstance(item, _End):
                return _Work(commits, is_last=True)
            if len(commits) == MAX_BATCH or self._inbox.empty():
                return _Work(commits)
            item = self._inbox.get()

    def _heartbeat(self) -> bool:
        """Record progress before a step that may take long; return True to stop waiting."""
        self._busy_since = time.monotonic()
        return self._closing.is_set()

    def _maintain(self, work: _Work) -> None:
        barrier, emptying = work.barrier, work.emptying
        try:
            self._pipeline.maintain(flush_now=barrier is not None or emptying is not None)
        except Exception:
            log.exception("unexpected error in the committer")
            self._pipeline.writer.fail(None)
        if barrier is not None:
            self._loop.call_soon_threadsafe(_release, barrier)
        if emptying is not None:
            outcome = self._empty_trash(emptying.ids)
            self._loop.call_soon_threadsafe(_settle, emptying.future, outcome)

    def _empty_trash(self, ids: list[str]) -> list[str] | BucketdError:
        try:
            return self._pipeline.empty_trash(ids)
        except BucketdError as error:
            return error
        except Exception:
            log.exception("unexpected error in the committer")
            return self._pipeline.writer.fail(None)

    def _send(self, batch: Batch) -> None:
        """Schedule the acknowledgement of a whole batch on the loop, in one callback."""
        self._sent += 1
        self._loop.call_soon_threadsafe(self._receive, batch)

    # --- on either

    def _work(self, commits: list[Commit], respond: Respond, inline: bool = False) -> list[Commit]:
        """Run the pipeline on commits, and return those that are left to the thread."""
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


def _settle(future: asyncio.Future[list[str]], outcome: list[str] | BucketdError) -> None:
    if future.done():
        return
    if isinstance(outcome, BucketdError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _stopping() -> ShuttingDown:
    return ShuttingDown("cannot write: the daemon is stopping; try again in a moment")
