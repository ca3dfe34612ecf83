"""Who works the commit pipeline, and when: the event loop where that is quick, else a thread.

What arrives in one round of the loop is committed together at its end, there
and then, as long as the disk's syncs are short: waking another thread and being
woken by it costs more than such a sync. Whatever may take long (a slow disk, a lock
that another program has, a full segment, writing files) is the thread's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Mapping

from ...errors import BucketdError, Overloaded, ShuttingDown
from ...fs.locks import WriteLock
from ...model.bucket import BucketKey, Snapshot
from ...model.preconditions import Preconditions
from ...stats import Histogram
from ..base import Subscriber
from . import pipeline
from .acknowledging import Acknowledger, release
from .batch import INGEST, Batch, Commit
from .bucket_files import BucketFiles
from .inbox import Inbox
from .journal import Journal
from .journal_writer import Counters
from .pipeline import Pipeline
from .records import EventId, JournalPosition

log = logging.getLogger(__name__)
MAX_WAITING = 10_000


class Committer:
    """Changes in, snapshots out. Use from one event loop; ``dirty`` from any thread."""

    def __init__(
        self,
        files: BucketFiles,
        log_: Journal,
        lock: WriteLock,
        lock_timeout: float,
        relaxed_seconds: float | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._pipeline = Pipeline(
            files,
            log_,
            lock,
            lock_timeout,
            relaxed_seconds,
            waiting=lambda: bool(self._inbox),
            step=self._step,
        )
        self._turn = threading.Lock()  # whoever holds it may work the pipeline
        self._gathered: list[Commit] = []
        self._asleep = False
        # Batches that the thread has answered, and those of which the loop has heard.
        self._answered = self._heard = 0
        self._acknowledger = Acknowledger(log_.last)
        self._closing = threading.Event()
        self._step_began: float | None = None  # None: nothing to do
        self._thread = threading.Thread(target=self._main, name="bucketd-commit", daemon=True)
        self._thread.start()

    @property
    def event_id(self) -> EventId:
        """Of the newest change that the loop has heard of."""
        return self._acknowledger.event_id

    def subscribe(self, listener: Subscriber) -> None:
        """From here on tell this one of every change."""
        self._acknowledger.listener = listener

    @property
    def dirty(self) -> Mapping[BucketKey, Snapshot]:
        """Acknowledged, and not yet in files."""
        return self._pipeline.dirty

    @property
    def counters(self) -> Counters:
        return self._pipeline.journaling.counters

    @property
    def histograms(self) -> dict[str, Histogram]:
        return {
            "bucketd_commit_seconds": self._pipeline.commit_seconds,
            "bucketd_commit_batch_size": self._pipeline.journaling.batch_sizes,
            "bucketd_fsync_seconds": self._pipeline.journaling.fsync_seconds,
        }

    @property
    def problem(self) -> BucketdError | None:
        """Why writes are refused now, if they are."""
        return self._pipeline.problem

    @property
    def end(self) -> JournalPosition:
        """Where what is durable in the journal ends."""
        return self._pipeline.journaling.end

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

    def begin(self, commit: Commit) -> asyncio.Future[Snapshot]:
        """To come: the state after the commit, once it is durable; or its BucketdError."""
        self._refuse_unless_ready()
        commit.future = future = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._commit_gathered)
        self._gathered.append(commit)
        return future

    async def settle(self) -> None:
        """Wait until the files hold all that is acknowledged, or cannot be brought to."""
        if self.dirty and not self._closing.is_set():
            settled = self._loop.create_future()
            self._inbox.settle(settled)
            await settled

    def _refuse_unless_ready(self) -> None:
        if self._closing.is_set():
            raise _stopping()
        if len(self._inbox) + len(self._gathered) >= MAX_WAITING:
            raise Overloaded(f"cannot write: {MAX_WAITING} writes are waiting; try again")

    def adopt(self, key: BucketKey) -> None:
        """Some time soon, make an edit from outside a revision of its own."""
        if not self._closing.is_set() and len(self._inbox) < MAX_WAITING:
            self._inbox.put(Commit(key, INGEST, Preconditions()))

    async def close(self) -> None:
        """Finish what was accepted, leave nothing to replay, let go of everything."""
        self._closing.set()
        self._hand_over()
        self._inbox.end()
        await asyncio.to_thread(self._thread.join)
        self._pipeline.close()

    # --- on the loop

    def _commit_gathered(self) -> None:
        if self._gathered and not self._commit_here():
            self._hand_over()

    def _hand_over(self) -> None:
        for commit in self._gathered:
            self._inbox.put(commit)
        self._gathered.clear()

    def _commit_here(self) -> bool:
        """Commit what was gathered, if that is quick."""
        if self._inbox or not self._turn.acquire(blocking=False):
            return False
        if self._answered != self._heard:  # changes are told of in their order
            self._turn.release()
            return False
        try:
            if not (self._pipeline.quick() and all(map(self._pipeline.light, self._gathered))):
                return False
            commits, self._gathered = self._gathered, []
            self._work(commits, self._acknowledger.resolve)
            wake, self._asleep = self._asleep, False
        finally:
            self._turn.release()
        if wake:
            self._inbox.wake()
        return True

    # --- the thread

    def _main(self) -> None:
        going = True
        while going:
            self._step_began = None
            work = self._inbox.take(self._patience())
            going = not work.last
            self._step()
            with self._turn:
                if work.commits:
                    self._work(work.commits, self._answer)
                self._tidy(work.settling)
        with self._turn:
            self._pipeline.finish()
        self._refuse_late()

    def _step(self) -> bool:
        """A sign of progress, before each thing that may take long; True: do not wait on."""
        self._step_began = time.monotonic()
        return self._closing.is_set()

    def _refuse_late(self) -> None:
        """Whoever slipped in behind the end gets an answer too."""
        for late in self._inbox.rest():
            if isinstance(late, Commit):
                self._answer(Batch(outcomes=[(late, _stopping())]))
            else:
                self._loop.call_soon_threadsafe(release, late)

    def _patience(self) -> float | None:
        """How long to wait for work; notes whether the loop has to wake the thread before."""
        with self._turn:
            patience = self._pipeline.patience()
            self._asleep = patience is None or patience > pipeline.LINGER_SECONDS
            return patience

    def _tidy(self, settling: asyncio.Future[None] | None) -> None:
        try:
            self._pipeline.tidy(now_please=settling is not None)
        except Exception:
            log.exception("the committer failed in a way that was not foreseen")
            self._pipeline.journaling.fail(None)
        if settling is not None:
            self._loop.call_soon_threadsafe(release, settling)

    def _answer(self, batch: Batch) -> None:
        """Resolve all futures in one visit to the loop."""
        self._answered += 1
        self._loop.call_soon_threadsafe(self._hear, batch)

    def _hear(self, batch: Batch) -> None:
        """On the loop again."""
        self._heard += 1
        self._acknowledger.resolve(batch)

    # --- either

    def _work(self, commits: list[Commit], answer: pipeline.Respond) -> None:
        try:
            self._pipeline.commit(commits, answer)
        except Exception:
            log.exception("the committer failed in a way that was not foreseen")
            failure = self._pipeline.journaling.fail(None)
            answer(Batch(outcomes=[(commit, failure) for commit in commits]))


def _stopping() -> ShuttingDown:
    return ShuttingDown("cannot write: the daemon is stopping; try again in a moment")
