"""FileStore: the embedded engine, one JSON file per bucket behind a commit journal.

Reads run on the event loop: what is acknowledged and not yet in its file comes
from memory; for all else one ``stat`` shows whether the cached snapshot is
still what the file holds, so an edit by another program is seen at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import BucketCorrupt, BucketdError
from ...fs import errors, unlinked
from ...fs.locks import WriteLock
from ...model.bucket import ABSENT, BucketKey, Change, Snapshot
from ...model.preconditions import Preconditions
from ...stats import Histogram
from ..base import ChangeEvent, Filter, Page, Subscriber, settled
from . import listing, recovery
from .applier import Commit
from .bucket_files import BucketFiles
from .committer import Committer
from .edit_watcher import EditWatcher
from .journal import Journal
from .records import Mark

log = logging.getLogger(__name__)
MOST_SCANS = 64  # of the journal, one after the other


@dataclass(frozen=True, slots=True)
class FileStoreOptions:
    """How the engine works; sizes in bytes, times in seconds.

    ``relaxed_seconds`` None is strict: nothing is acknowledged before it is durable.
    ``unsafe`` says why the file system may break that promise, for the status page.
    """

    cache_bytes: int
    lock_timeout: float
    journal_bytes: int
    relaxed_seconds: float | None
    unsafe: str | None = None


class FileStore:
    """Use from one event loop; ``close`` it when done. Owns the descriptor ``root``."""

    def __init__(self, root: int, path: str, options: FileStoreOptions) -> None:
        self._root, self._options = root, options
        self._files = BucketFiles(root, path, options.cache_bytes)
        self._counts = listing.Counts(root)
        self._journal, lock = Journal(root, options.journal_bytes), WriteLock(root)
        journal = self._journal
        self._damaged = journal.damaged
        self._replayed = recovery.replay_under(lock, self._files, journal)
        self._committer = Committer(
            self._files, journal, lock, options.lock_timeout, options.relaxed_seconds
        )
        self._dirty = self._committer.dirty
        self._noticer: EditWatcher | None = None
        self._scanning, self._scans = asyncio.Lock(), 0

    def cached(self, key: BucketKey) -> Snapshot:
        entry = self._dirty.get(key) or self._files.cached(key)
        return ABSENT if entry is None else entry if isinstance(entry, Snapshot) else entry.snapshot

    def read(self, key: BucketKey, _stale_ok: bool = False) -> Snapshot | Awaitable[Snapshot]:
        return self._dirty.get(key) or self._files.peek(key) or self._load(key)

    async def _load(self, key: BucketKey) -> Snapshot:
        """Read the file, and ingest what somebody else has written there."""
        try:
            loaded = await asyncio.to_thread(self._files.load, key)
        except BucketCorrupt:
            return await self._committer.begin(Commit(key, None, Preconditions()))
        if not loaded.sealed:
            self._committer.adopt(key)
        return self._dirty.get(key, loaded.snapshot)

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
    ) -> asyncio.Future[Snapshot]:
        return self._committer.begin(Commit(key, change, preconditions, automation))

    @property
    def mark(self) -> str:
        return str(self._committer.mark)

    def subscribe(self, listener: Subscriber) -> None:
        self._committer.subscribe(listener)
        self._noticer = EditWatcher(self._files, listener, self._look)

    async def wait_until_watching(self, _key: BucketKey | None) -> None:
        """It always is."""

    def includes(self, _mark: str, _changed: ChangeEvent) -> bool:
        return False  # whoever has a mark was told after the listener

    async def catch_up(self) -> None:
        """A change is told before it is answered."""

    async def changes_after(self, mark: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        after = Mark.read(mark)
        if after is None:
            return None
        if after == self._committer.mark:
            return []
        if self._scans >= MOST_SCANS:
            return None  # reading anew is less than to wait for so many
        self._scans += 1
        try:
            async with self._scanning:  # it takes a while, and others want the processor, too
                steps = await asyncio.to_thread(
                    self._journal.changes_after, after, key, self._committer.end
                )
        except OSError as error:
            raise errors.refusal("read the journal", error) from error
        finally:
            self._scans -= 1
        if steps is None:
            return None
        return [
            ChangeEvent(record.key, before, record.after, str(at)) for before, record, at in steps
        ]

    async def _look(self, key: BucketKey) -> None:
        """Take up what somebody else may have done to a bucket's file."""
        try:
            await settled(self.read(key))
        except BucketdError as error:
            log.warning("%s", error.message)

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        await self._committer.settle()
        try:
            unlinked.check_named(self._root)
            return await asyncio.to_thread(listing.page, self._root, only, cursor, limit)
        except OSError as error:
            raise errors.refusal("list the buckets", error) from error

    async def check(self) -> dict[str, Any]:
        await self._committer.settle()
        cached, cached_bytes = self._files.cache_use()
        relaxed = self._options.relaxed_seconds
        return {
            "engine": "file",
            "healthy": self._committer.healthy,
            "problem": self.problem,
            "durability": "strict" if relaxed is None else "relaxed",
            "relaxed_seconds": relaxed,
            "unsafe_filesystem": self._options.unsafe,
            "state_dir": self._files.path,
            "cached_buckets": cached,
            "cache_bytes": cached_bytes,
            "cache_hits": self._files.hits,
            "cache_misses": self._files.misses,
            "file_writes": self._files.writes,
            **asdict(self._committer.counters),
            "journal_damaged": self._damaged,
            "replayed_files": self._replayed,
            **await asyncio.to_thread(self._counts.get),
        }

    @property
    def histograms(self) -> dict[str, Histogram]:
        """How long commits took and how many came together, by the names of metrics."""
        return self._committer.histograms

    @property
    def stalled_seconds(self) -> float:
        """How long the engine has been at one step; it stands still if that grows."""
        return self._committer.stalled_seconds

    @property
    def problem(self) -> str | None:
        """Why writes are refused now, if they are."""
        problem = self._committer.problem
        return problem.message if problem else None

    async def close(self) -> None:
        try:
            if self._noticer is not None:
                await self._noticer.close()
        except Exception:
            log.exception("cannot stop noticing edits; all else goes on")
        await self._committer.close()
        os.close(self._root)
