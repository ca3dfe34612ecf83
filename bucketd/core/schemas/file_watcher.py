"""Load changed schema files within a second: by inotify, or by polling while it is unavailable."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from importlib import import_module
from typing import Any

from .registry import Registry

log = logging.getLogger(__name__)
# The interval at which the files are checked: inotify does not report the target of a link, nor a
# directory that does not exist yet or was replaced.
POLL_SECONDS = 0.5
# The interval at which inotify is tried again.
RETRY_SECONDS = 30.0


class FileWatcher:
    """Keep a registry current with the schema files of this host."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rescan_requested = asyncio.Event()
        self._polling = False

    def request_rescan(self) -> None:
        """Request a check of all files now, whether they changed or not; call on the event loop."""
        self._rescan_requested.set()

    def problems(self) -> list[str]:
        """Return what is wrong with the directories of the schemas."""
        return self._registry.directory_problems()

    async def run(self, stop: asyncio.Event) -> None:
        """Load changed schema files until ``stop``."""
        # The import takes a tenth of a second, so it is delayed until the daemon serves, and runs
        # off the event loop.
        watchfiles = await asyncio.to_thread(import_module, "watchfiles")
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            watched = self._registry.directories
            cause = await self._watch(watchfiles, watched, stop) if watched else None
            if cause is not None:
                self._report_polling(cause)
                await self._poll(stop, loop.time() + RETRY_SECONDS)
            elif not watched:
                await self._poll(stop, loop.time() + POLL_SECONDS)

    async def _watch(
        self, watchfiles: Any, watched: list[str], stop: asyncio.Event
    ) -> OSError | RuntimeError | None:
        """Follow directories by inotify until the registry names others; return any error."""
        try:
            changes = watchfiles.awatch(
                *watched,
                stop_event=stop,
                debounce=100,
                step=20,
                rust_timeout=int(POLL_SECONDS * 1000),
                yield_on_timeout=True,
                recursive=False,
            )
            async with contextlib.aclosing(changes):
                async for _ in changes:
                    if self._polling:
                        self._polling = False
                        log.info("inotify follows the schema files again")
                    # The timeout leads here as well, since inotify does not report the target of
                    # a link.
                    await self._rescan()
                    if self._registry.directories != watched:
                        return None
        except (OSError, RuntimeError) as error:
            return error
        return None

    async def _poll(self, stop: asyncio.Event, until: float) -> None:
        """Check the files at intervals until the loop's clock shows ``until``."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            await self._rescan()
            if loop.time() >= until:
                return
            await self._pause(stop)

    async def _rescan(self) -> None:
        force = self._rescan_requested.is_set()
        self._rescan_requested.clear()
        await asyncio.to_thread(self._registry.rescan, force)

    async def _pause(self, stop: asyncio.Event) -> None:
        waiting = {
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(self._rescan_requested.wait()),
        }
        try:
            await asyncio.wait(waiting, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _report_polling(self, cause: Exception) -> None:
        if not self._polling:
            log.warning(
                "cannot follow the schema files by inotify: %s; they are polled every %g s",
                cause,
                POLL_SECONDS,
            )
        self._polling = True
