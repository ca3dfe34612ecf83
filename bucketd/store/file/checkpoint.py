"""How far the files are durable: ``syncfs`` on a thread of its own, so that no commit waits."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor

from ...fs import files
from .records import JournalPosition

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 5.0


class Checkpoint:
    """``durable``: every change journaled before this place stands durably in its file."""

    def __init__(self, root: int, durable: JournalPosition) -> None:
        self._root = root
        self._durable = self._noted = durable
        self._target = durable
        self._running: Future[None] | None = None
        self._began = 0.0
        # A failed sync: the kernel may have dropped what it had of files, and says so only once.
        self.failed = False
        self._thread = ThreadPoolExecutor(1, "bucketd-syncfs")

    @property
    def durable(self) -> JournalPosition:
        """As of now, picking up what has finished meanwhile."""
        if self._running is not None and self._running.done():
            error = self._running.exception()
            self._running = None
            if error is None:
                self._durable = self._target
            else:
                self.failed, self._target = True, self._durable
                log.error("cannot make files durable, the journal keeps their content: %s", error)
        return self._durable

    def includes(self, place: JournalPosition) -> bool:
        return not self.durable < place

    def news(self) -> bool:
        """Whether ``durable`` has moved since the last time that this said so."""
        moved = self._noted < self.durable
        self._noted = self._durable
        return moved

    def open_until(self, end: JournalPosition) -> bool:
        """Whether there is anything left to do for data up to ``end``."""
        return self.durable < end or self._noted < self._durable

    def due(self, end: JournalPosition, halfway: JournalPosition, idle: bool, many: bool) -> bool:
        """Whether to begin for data up to ``end``.

        Now and then when idle, else once a segment, or when ``many`` files wait for it.
        """
        if self._running is not None or not self._target < end:
            return False
        aged = time.monotonic() >= self._began + INTERVAL_SECONDS
        if self.failed:
            return aged
        return many or self._target < halfway <= end or (idle and aged)

    def start(self, target: JournalPosition) -> None:
        """Begin; files must hold all changes before ``target``."""
        self._target, self._began = target, time.monotonic()
        self._running = self._thread.submit(files.sync_all, self._root)

    def settle(self) -> None:
        """Wait for what was begun."""
        if self._running is not None:
            self._running.exception()
        _ = self.durable

    def wait(self, target: JournalPosition) -> bool:
        """Make all before ``target`` durable now; else it has ``failed``."""
        self.settle()
        if not self.failed and not self.includes(target):
            self.start(target)
            self.settle()
        return not self.failed

    def close(self) -> None:
        self._thread.shutdown()
