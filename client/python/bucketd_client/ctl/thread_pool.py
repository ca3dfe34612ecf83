"""A thread pool for calls to the daemon; items with the same key stay in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Generic, TypeVar

T = TypeVar("T")
WORKERS, WAITING = 8, 32


class ThreadPool(Generic[T]):
    """Call ``work`` with each item on a thread; raise the first failure, which ends the pool."""

    def __init__(self, work: Callable[[T], None]) -> None:
        self._work = work
        self._failure: BaseException | None = None
        self._queues: list[Queue[T | None]] = [Queue(WAITING) for _ in range(WORKERS)]
        self._threads = [threading.Thread(target=self._run, args=(q,)) for q in self._queues]
        for thread in self._threads:
            # Ctrl-C must not wait for the threads.
            thread.daemon = True
            thread.start()

    def put(self, key: object, item: T) -> None:
        """Add an item; wait while too many are in progress."""
        if self._failure is not None:
            raise self._failure
        self._queues[hash(key) % WORKERS].put(item)

    def finish(self) -> None:
        """Wait until all items are done."""
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self, queue: Queue[T | None]) -> None:
        while (item := queue.get()) is not None:
            try:
                if self._failure is None:
                    self._work(item)
            except BaseException as problem:
                self._failure = problem
