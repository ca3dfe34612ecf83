"""Edits by other programs, noticed while somebody watches those buckets.

The kernel tells which files changed (through watchfiles); looking at such a
bucket once more is all that is needed, and for the daemon's own writes that is
one ``stat``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Set
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from ...fs import filenames, files
from ...model.bucket import BucketKey
from ..base import Subscriber
from . import envelope, paths
from .bucket_files import BucketFiles

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5  # for changes in what is wanted, or a directory that does not exist yet
RETRY_SECONDS = 30.0  # after a failure, which may have taken long
Look = Callable[[BucketKey], Awaitable[None]]


class EditWatcher:
    """Works beside the event loop for as long as a listener wants any bucket; ``close`` it."""

    def __init__(self, bucket_files: BucketFiles, listener: Subscriber, look: Look) -> None:
        self._files, self._path = bucket_files, bucket_files.path
        self._listener, self._look = listener, look
        self._loop = asyncio.get_running_loop()
        self._stop, self._stopping = threading.Event(), asyncio.Event()
        # Of its own: to begin to watch a large tree takes long, and to follow it all the time.
        self._thread = ThreadPoolExecutor(1, "bucketd-notice")
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._stop.set()
        self._stopping.set()
        await self._task
        self._thread.shutdown()

    async def _run(self) -> None:
        while not self._stop.is_set():
            wanted, places = self._listener.interests, self._places()
            if places:
                await self._loop.run_in_executor(self._thread, self._follow, wanted, places)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)

    def _places(self) -> frozenset[str]:
        """The directories to watch now; that of all buckets with all below it."""
        wanted = self._listener.interests
        if wanted is None:
            places = {paths.DEVICES}
        else:
            places = {"/".join(paths.parts(key)[0]) for key in wanted}
        found = (f"{self._path}/{place}" for place in places)
        return frozenset(path for path in found if os.path.isdir(path))

    # --- on the thread

    def _follow(self, wanted: Set[BucketKey] | None, places: frozenset[str]) -> None:
        """Look at what changes below these, until others are wanted."""
        # Which takes a tenth of a second, and most daemons never need.
        watchfiles = import_module("watchfiles")
        changes = watchfiles.watch(
            *places,
            stop_event=self._stop,
            watch_filter=None,
            debounce=50,
            step=10,
            rust_timeout=int(LOOK_SECONDS * 1000),
            yield_on_timeout=True,
            recursive=wanted is None,
        )
        try:
            keys = self._files.stale(wanted)  # what changed before the watch began
            for changed in changes:
                self._look_at([*keys, *self._keys({path for _, path in changed})])
                keys = []
                if self._places() != places:
                    return
        except (OSError, RuntimeError, watchfiles.RustNotifyError) as error:
            log.error(
                "cannot notice edits of bucket files: %s; they are told of when the bucket is "
                "next read; see fs.inotify.max_user_watches",
                error,
            )
            self._stop.wait(RETRY_SECONDS)

    def _look_at(self, keys: list[BucketKey]) -> None:
        async def look() -> None:
            for key in keys:
                await self._look(key)

        if keys:
            asyncio.run_coroutine_threadsafe(look(), self._loop).result()

    def _keys(self, paths: Set[str]) -> list[BucketKey]:
        """The buckets that stand in these files."""
        below = len(self._path) + 1
        return [key for path in paths if (key := self._key(path[below:])) is not None]

    def _key(self, path: str) -> BucketKey | None:
        *directories, name = path.split("/")
        if not name.endswith(filenames.SUFFIX) or name.startswith("."):
            return None
        key = paths.key_of(tuple(directories), name)
        if key is not None:
            return key
        try:  # a name that was cut: only the envelope knows
            key = envelope.read(files.read(self._files.root, tuple(directories), name)).key
        except (OSError, envelope.Unreadable):
            return None
        return key if paths.path(key) == path else None
