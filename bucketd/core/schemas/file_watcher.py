"""Takes up changed schema files within a second, for as long as the daemon lives."""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module

from .registry import Registry

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5  # for a directory that does not exist yet, or was replaced


async def keep_current(registry: Registry, stop: asyncio.Event) -> None:
    """Rescan whenever something changes in the schema directories, until ``stop``."""
    # Not before the daemon serves, and not on the loop: it takes a tenth of a second.
    watchfiles = await asyncio.to_thread(import_module, "watchfiles")
    while not stop.is_set():
        watched = registry.directories
        if not watched:
            await _pause(stop)
            continue
        changes = watchfiles.awatch(
            *watched,
            stop_event=stop,
            debounce=100,
            step=20,
            rust_timeout=int(LOOK_SECONDS * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        try:
            first = True  # what changed before the watch was in place
            async for changed in changes:
                if changed or first:
                    await asyncio.to_thread(registry.rescan)
                first = False
                if registry.directories != watched:
                    break
        except (OSError, RuntimeError, watchfiles.RustNotifyError) as error:
            log.error("cannot watch the schema files: %s", error)
            await _pause(stop)


async def _pause(stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
    except TimeoutError:
        return
