"""The edit watcher: find edits by other programs while subscribers watch the buckets.

The kernel reports which files changed (inotify, through watchfiles). The daemon rechecks these
buckets; after one of its own writes a recheck is one ``stat``. While the kernel's inotify instances
or watches are used up, the watcher compares the status of the files instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Set
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from ...fs import filenames, files
from ...model.bucket import BucketKey
from ..base import Subscriber
from . import envelope, paths
from .bucket_files import BucketFiles

log = logging.getLogger(__name__)
# The interval of checks for new interests, new directories and unsettled files, and of polling.
TICK_SECONDS = 0.5
# How long to poll before inotify is tried again.
RETRY_SECONDS = 30.0
# Polling takes at most 1/20 of the time.
POLL_SHARE = 20
Recheck = Callable[[BucketKey], Awaitable[None]]
Statuses = dict[str, files.StatKey]


class EditWatcher:
    """Watch files on a thread while the subscriber has interests; ``close`` when done.

    ``problem`` says why edits are found late or not at all.
    """

    def __init__(self, bucket_files: BucketFiles, subscriber: Subscriber, recheck: Recheck) -> None:
        self._files, self._path = bucket_files, bucket_files.path
        self._subscriber, self._recheck = subscriber, recheck
        self.problem: str | None = None
        self._loop = asyncio.get_running_loop()
        self._stop, self._stopping = threading.Event(), asyncio.Event()
        # Starting to watch a large tree takes long, and watching occupies a thread.
        self._thread = ThreadPoolExecutor(1, "bucketd-edits")
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._stop.set()
        self._stopping.set()
        await self._task
        self._thread.shutdown()

    async def _run(self) -> None:
        while not self._stop.is_set():
            interests, places = self._subscriber.interests, self._places()
            try:
                if places:
                    await self._loop.run_in_executor(self._thread, self._watch, interests, places)
                    continue
            except Exception as error:
                log.exception("unexpected error while watching for edits; trying again")
                self.problem = f"cannot watch for edits of bucket files: {type(error).__name__}"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TICK_SECONDS)

    def _places(self) -> frozenset[str]:
        """Return the directories to watch now; a watched directory includes all below it."""
        interests = self._subscriber.interests
        if interests is None:
            places = {paths.DEVICES}
        else:
            places = {"/".join(paths.parts(key)[0]) for key in interests}
        found = (f"{self._path}/{place}" for place in places)
        return frozenset(path for path in found if os.path.isdir(path))

    # --- on the thread

    def _watch(self, interests: Set[BucketKey] | None, places: frozenset[str]) -> None:
        """Recheck the buckets whose files change in these places, until the interests change."""
        # The import takes a tenth of a second, and most daemons never need it.
        watchfiles = import_module("watchfiles")
        changes = watchfiles.watch(
            *places,
            stop_event=self._stop,
            watch_filter=None,
            debounce=50,
            step=10,
            rust_timeout=int(TICK_SECONDS * 1000),
            yield_on_timeout=True,
            recursive=interests is None,
        )
        try:
            # Files may have changed before the watch began.
            keys = self._files.stale(interests)
            for changed in changes:
                self._recheck_all([*keys, *self._keys({path for _, path in changed})])
                if self.problem is not None:
                    log.info("watching for edits of bucket files by inotify again")
                    self.problem = None
                keys = []
                if self._places() != places:
                    return
        # watchfiles raises a RuntimeError if the kernel grants no instance or watch.
        except (OSError, RuntimeError) as error:
            if not all(map(os.path.isdir, places)):
                return
            if self.problem is None:
                self.problem = (
                    f"cannot watch for edits of bucket files by inotify ({error}), so they are "
                    "polled; raise fs.inotify.max_user_instances or fs.inotify.max_user_watches"
                )
                log.warning("%s", self.problem)
            self._poll(interests, places)

    def _poll(self, interests: Set[BucketKey] | None, places: frozenset[str]) -> None:
        """Recheck the buckets whose files' status changes, for ``RETRY_SECONDS``."""
        before = self._statuses(interests)
        keys = self._files.stale(interests)
        until, pause = time.monotonic() + RETRY_SECONDS, TICK_SECONDS
        while True:
            self._recheck_all(keys)
            if time.monotonic() > until or self._stop.wait(pause) or self._places() != places:
                return
            began = time.monotonic()
            now = self._statuses(interests)
            pause = max(TICK_SECONDS, POLL_SHARE * (time.monotonic() - began))
            differing = {path for path, _ in before.items() ^ now.items()}
            keys, before = self._keys({f"{self._path}/{path}" for path in differing}), now

    def _statuses(self, interests: Set[BucketKey] | None) -> Statuses:
        if interests is None:
            found = [
                f"{place}/{name}" for place in self._directories() for name in self._names(place)
            ]
        else:
            found = [paths.path(key) for key in interests]
        statuses: Statuses = {}
        for path in found:
            # A read of the bucket reports a file without a status.
            with contextlib.suppress(OSError):
                status = files.stat_key(self._files.root, path)
                if status is not None:
                    statuses[path] = status
        return statuses

    def _directories(self) -> list[str]:
        devices = files.names(self._files.root, (paths.DEVICES,), files=False)
        homes = [f"{paths.DEVICES}/{device}" for device in devices]
        return [*homes, *(f"{home}/{paths.JOBS}" for home in homes)]

    def _names(self, place: str) -> list[str]:
        try:
            names = files.names(self._files.root, tuple(place.split("/")))
        except OSError:
            return []
        return [name for name in names if name.endswith(filenames.SUFFIX)]

    def _recheck_all(self, keys: list[BucketKey]) -> None:
        """Recheck these buckets, and those whose files were being edited."""
        unsettled = self._files.take_unsettled()

        async def recheck() -> None:
            for key in {*keys, *unsettled}:
                await self._recheck(key)

        if keys or unsettled:
            asyncio.run_coroutine_threadsafe(recheck(), self._loop).result()

    def _keys(self, paths: Set[str]) -> list[BucketKey]:
        """Return the buckets whose files these are."""
        below = len(self._path) + 1
        return [key for path in paths if (key := self._key(path[below:])) is not None]

    def _key(self, path: str) -> BucketKey | None:
        *directories, name = path.split("/")
        if not name.endswith(filenames.SUFFIX) or name.startswith("."):
            return None
        key = paths.key_of(tuple(directories), name)
        if key is not None:
            return key
        # A long name is shortened in the file name; only the envelope has the whole name.
        try:
            key = envelope.read(files.read(self._files.root, tuple(directories), name)).key
        except (OSError, envelope.Unreadable):
            return None
        return key if paths.path(key) == path else None
