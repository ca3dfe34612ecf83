"""What waits for the thread that commits: changes, and whoever wants all files current."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from typing import NamedTuple

from .batch import Commit

MAX_BATCH = 512


class _Wake:
    """There are files to write before long."""


class _End:
    """Nothing follows that was accepted."""


class Work(NamedTuple):
    """One turn of the thread: what to commit, then whom to tell that files are current."""

    commits: list[Commit]
    settling: asyncio.Future[None] | None = None
    last: bool = False


class Inbox:
    """In order. The event loop puts in, the thread takes out."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Commit | asyncio.Future[None] | _Wake | _End]
        self._queue = queue.SimpleQueue()

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, commit: Commit) -> None:
        self._queue.put(commit)

    def settle(self, future: asyncio.Future[None]) -> None:
        """To be resolved once files hold all that was put in before, or cannot be brought to."""
        self._queue.put(future)

    def wake(self) -> None:
        """Have the thread look what there is to do besides."""
        self._queue.put(_Wake())

    def end(self) -> None:
        self._queue.put(_End())

    def take(self, patience: float | None) -> Work:
        """Everything that waits, up to MAX_BATCH; nothing after so many seconds (None: never)."""
        commits: list[Commit] = []
        try:
            item = self._queue.get(timeout=patience)
        except queue.Empty:
            return Work(commits)
        while True:
            if isinstance(item, Commit):
                commits.append(item)
            elif isinstance(item, asyncio.Future):
                return Work(commits, settling=item)
            elif isinstance(item, _End):
                return Work(commits, last=True)
            if len(commits) == MAX_BATCH or self._queue.empty():
                return Work(commits)
            item = self._queue.get()

    def rest(self) -> Iterator[Commit | asyncio.Future[None]]:
        """What slipped in behind the end."""
        while not self._queue.empty():
            item = self._queue.get()
            if not isinstance(item, (_Wake, _End)):
                yield item
