"""Run background tasks until the daemon stops; report failures and restart the tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)
# Seconds before a failed task is restarted; each failure doubles the pause.
FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
# A restarted task counts as working again after so long.
STABLE_SECONDS = 30.0
# So many failures take about five minutes. Then only a restart of the whole daemon may help.
MAX_FAILURES = 10


@dataclass(slots=True)
class _Task:
    name: str
    # Failures in a row.
    failures: int = 0
    cause: str = ""
    started: float = 0.0
    running: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def stable(self) -> bool:
        return self.running and time.monotonic() - self.started >= STABLE_SECONDS


class Supervisor:
    """Run background tasks until ``stop``; ``problems`` and ``healthy`` report their state."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._tasks: list[_Task] = []

    def start(self, name: str, run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Start a task; its function takes ``stop``, and has to return once that is set."""
        entry = _Task(name)
        entry.task = asyncio.create_task(self._keep_running(entry, run))
        self._tasks.append(entry)

    def problems(self) -> list[str]:
        """Return a sentence for each task that has failed and is not stable again."""
        return [
            f"the background task {entry.name!r} has failed ({entry.cause}) and is "
            + ("running again" if entry.running else "restarted in a moment")
            + "; the log says more"
            for entry in self._tasks
            if entry.failures and not entry.stable
        ] + [
            f"the background task {entry.name!r} has ended; restart bucketd"
            for entry in self._tasks
            if self._has_ended(entry)
        ]

    @property
    def healthy(self) -> bool:
        """Report whether all tasks run; if not, the watchdog is no longer notified."""
        return not any(
            self._has_ended(entry) or (entry.failures >= MAX_FAILURES and not entry.stable)
            for entry in self._tasks
        )

    async def wait(self) -> None:
        """Return once all tasks have ended, after ``stop``."""
        tasks = [entry.task for entry in self._tasks if entry.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has_ended(self, entry: _Task) -> bool:
        """Report whether a task was cancelled or raised before ``stop``."""
        task = entry.task
        return (
            not self._stop.is_set()
            and task is not None
            and task.done()
            and (task.cancelled() or task.exception() is not None)
        )

    async def _keep_running(
        self, entry: _Task, run: Callable[[asyncio.Event], Awaitable[None]]
    ) -> None:
        while not self._stop.is_set():
            entry.started, entry.running = time.monotonic(), True
            try:
                await run(self._stop)
                return
            except Exception as error:
                entry.failures = 1 if entry.stable else entry.failures + 1
                entry.running, entry.cause = False, type(error).__name__
                pause = min(FIRST_PAUSE * 2 ** (entry.failures - 1), MAX_PAUSE)
                log.exception(
                    "the background task %r has failed; it starts again in %.0f s",
                    entry.name,
                    pause,
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
