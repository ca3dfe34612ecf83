"""The one thread that changes bucket files, holding ``write.lock`` once for all that wait."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import BucketdError, Internal, Overloaded, ShuttingDown
from .disk import WriteLock

log = logging.getLogger(__name__)
T = TypeVar("T")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any] | None"]

MAX_WAITING = 10_000
HOLD_SECONDS = 0.05  # under steady load, how long other programs may have to wait for the lock
YIELD_SECONDS = 0.001  # and how long it is then left free, so that a waiter of flock() can wake


class Writer:
    """Runs functions one after another on its own thread, each with the lock held."""

    def __init__(self, lock: WriteLock, lock_timeout: float) -> None:
        self._lock, self._timeout = lock, lock_timeout
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._main, name="bucketd-writer", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive()

    async def run(self, function: Callable[[], T]) -> T:
        """The function's result or its BucketdError; Overloaded when too many wait."""
        self._refuse_unless_ready()
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((function, future))
        return await future

    def submit(self, function: Callable[[], Any]) -> None:
        """Run it some time, with nobody waiting; dropped when there is too much to do."""
        if not self._closing.is_set() and self._jobs.qsize() < MAX_WAITING:
            self._jobs.put((function, None))

    def close(self) -> None:
        """Finish what was accepted, then end the thread and let go of the lock."""
        self._closing.set()
        self._jobs.put(None)
        self._thread.join()
        self._lock.close()

    def _refuse_unless_ready(self) -> None:
        if self._closing.is_set():
            raise ShuttingDown("cannot write: the daemon is stopping; try again in a moment")
        if self._jobs.qsize() >= MAX_WAITING:
            raise Overloaded(f"cannot write: {MAX_WAITING} writes are waiting; try again")

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self._acquire():
                _answer(self._loop, job, _lock_busy(self._timeout))
                continue
            try:
                last = self._run_batch(job)
            finally:
                self._lock.release()
            if last:
                return
            time.sleep(YIELD_SECONDS if not self._jobs.empty() else 0)

    def _acquire(self) -> bool:
        try:
            return self._lock.acquire(self._timeout, self._closing.is_set)
        except OSError:
            log.exception("cannot take write.lock")
            return False

    def _run_batch(self, job: _Job | None) -> bool:
        """Run what waits, for a bounded time; True when the thread is to end."""
        until = time.monotonic() + HOLD_SECONDS
        while job is not None:
            _answer(self._loop, job, _outcome(job[0]))
            if time.monotonic() > until or self._jobs.empty():
                return False
            job = self._jobs.get()
        return True


def _outcome(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except BucketdError as error:
        return error
    except Exception:
        log.exception("a write failed in a way that was not foreseen")
        return Internal("cannot write the bucket: an internal error, see the daemon's log")


def _answer(loop: asyncio.AbstractEventLoop, job: _Job, outcome: Any) -> None:
    future = job[1]
    if future is not None:
        loop.call_soon_threadsafe(_resolve, future, outcome)
    elif isinstance(outcome, BucketdError):
        log.warning("%s", outcome.message)


def _resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():  # the caller has gone; what it asked for has happened all the same
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _lock_busy(seconds: float) -> Overloaded:
    return Overloaded(
        f"cannot write: another program has held write.lock for over {seconds:g} s; "
        "nothing was changed, end that program or try again"
    )
