"""FileStore: the embedded engine, one JSON file per bucket behind a commit journal.

Reads run on the event loop: a state that is acknowledged and not yet in its file comes from
memory; otherwise one ``stat`` shows whether the cached snapshot is still the content of the file,
so an edit by another program is seen at once.
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
from ...model.author import UNKNOWN, Author
from ...model.bucket import ABSENT, BucketKey, Snapshot
from ...model.changes import Change
from ...model.preconditions import Preconditions
from ...model.revisions import DEFAULT_LIMITS, History, HistoryLimits, chain
from ...stats import Histogram
from ..base import ChangeEvent, Filter, Page, SharedSchemas, Subscriber, settled
from ..holds import HoldQueue
from . import listing, paths, recovery
from .backlog import Backlog
from .batch import INGEST, Commit
from .bucket_files import BeingEdited, BucketFiles
from .committer import Committer
from .edit_watcher import EditWatcher
from .history_files import HistoryFiles
from .holds import LocalHolds
from .journal import Journal
from .local_trash import LocalTrash
from .quarantine import FileQuarantine
from .records import EventId
from .trash import Trash

log = logging.getLogger(__name__)
# How many scans of the journal may wait; they run one after the other.
MAX_SCANS = 64


@dataclass(frozen=True, slots=True)
class FileStoreOptions:
    """Options of the engine; sizes in bytes, times in seconds.

    With ``relaxed_seconds`` None no change is acknowledged before it is durable.
    ``unsafe`` says why the file system may break that promise, for the status page.
    """

    cache_bytes: int
    lock_timeout: float
    journal_bytes: int
    relaxed_seconds: float | None
    unsafe: str | None = None
    history: HistoryLimits = DEFAULT_LIMITS


class FileStore:
    """The store of one host. Use from one event loop, and ``close`` when done, with ``root``."""

    def __init__(self, root: int, path: str, options: FileStoreOptions) -> None:
        self._root, self._options = root, options
        self._journal, lock = Journal(root, options.journal_bytes), WriteLock(root)
        self._files = BucketFiles(root, path, options.cache_bytes, lock)
        self._counts = listing.Counts(self._files)
        self._loop = asyncio.get_running_loop()
        journal = self._journal
        self._damaged = journal.damaged
        trash, self._history = Trash(root), HistoryFiles(root, options.history)
        self._replayed = recovery.replay_under(lock, self._files, journal, self._history, trash)
        self._backlog = Backlog(self._history)
        queue = HoldQueue()
        self._committer = Committer(
            self._files,
            journal,
            lock,
            options.lock_timeout,
            options.relaxed_seconds,
            queue,
            trash,
            self._backlog,
        )
        committer = self._committer
        self.trash = LocalTrash(trash, committer.wait_until_flushed, committer.empty_trash)
        self.holds = LocalHolds(queue, self._committer.settle)
        self._dirty = self._committer.dirty
        self._edit_watcher: EditWatcher | None = None
        self._scanning, self._scans = asyncio.Lock(), 0

    def cached(self, key: BucketKey) -> Snapshot:
        dirty = self._dirty.get(key)
        if dirty is not None:
            return dirty
        entry = self._files.entry(key)
        return ABSENT if entry is None else entry.snapshot

    def read(self, key: BucketKey, _stale_ok: bool = False) -> Snapshot | Awaitable[Snapshot]:
        return self._dirty.get(key) or self._files.cached(key) or self._load(key)

    async def _load(self, key: BucketKey) -> Snapshot:
        """Read the file, and ingest an edit by another program."""
        try:
            loaded = await asyncio.to_thread(self._files.load, key)
        except BeingEdited:
            found = await asyncio.to_thread(self._acknowledged, key)
            return found or await self._ingest(key)
        except BucketCorrupt:
            return await self._ingest(key)
        if not loaded.verified:
            self._committer.ingest_edit(key)
        return self._dirty.get(key, loaded.snapshot)

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
        author: Author = UNKNOWN,
    ) -> asyncio.Future[Snapshot]:
        future = self._committer.commit(Commit(key, change, preconditions, automation, author))
        for fence in preconditions.fences:
            self.holds.follow(fence, future)
        return future

    async def history(self, key: BucketKey) -> History:
        """Return a bucket with the changes that led to it. Raises BucketdError."""
        now = await settled(self.read(key))
        entry = self._files.entry(key)
        if entry is not None and not entry.verified and key not in self._dirty:
            # An edit by another program has no line before it is a revision.
            now = await self._ingest(key)
        if not now.revision:
            return History(now, iter(()))
        # A line that is written meanwhile is in the backlog or in the files, or in both.
        owed, places = self._backlog.lines(key), self._backlog.places(key)
        try:
            lines = await asyncio.to_thread(self._history.read_all, places)
        except OSError as error:
            raise errors.refusal(f"read the history of {key}", error) from error
        return History(now, chain(now, [*lines, *owed][::-1], self._options.history))

    @property
    def event_id(self) -> str:
        return str(self._committer.event_id)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._committer.subscribe(subscriber)
        self._edit_watcher = EditWatcher(self._files, subscriber, self._recheck)

    async def wait_until_watching(self, _key: BucketKey | None) -> None:
        """Return at once: every change is published."""

    def includes(self, _event_id: str, _changed: ChangeEvent) -> bool:
        # A client gets an event id only after the subscriber has received the change.
        return False

    async def catch_up(self) -> None:
        """Return at once: a change is published when it is acknowledged."""

    async def changes_after(self, event_id: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        after = EventId.read(event_id)
        if after is None:
            return None
        if after == self._committer.event_id:
            return []
        # With many scans waiting, the client reads the bucket again, which is quicker.
        if self._scans >= MAX_SCANS:
            return None
        self._scans += 1
        try:
            # One scan at a time, since a scan keeps a processor busy for a while.
            async with self._scanning:
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

    async def _recheck(self, key: BucketKey) -> None:
        """Read a bucket, which ingests an edit by another program."""
        try:
            await settled(self.read(key))
        except BucketdError as error:
            log.warning("%s", error.message)

    def problems(self) -> list[str]:
        """Return a sentence for each problem that a person should solve."""
        watcher = self._edit_watcher
        found = [self.problem, watcher.problem if watcher is not None else None]
        if self._damaged:
            found.append("the journal was damaged when the daemon started; see the log")
        return [*(problem for problem in found if problem), *self._counts.problems]

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        await self._committer.wait_until_flushed()
        try:
            unlinked.check_linked(self._root)
            return await asyncio.to_thread(self._page, only, cursor, limit)
        except OSError as error:
            raise errors.refusal("list the buckets", error) from error

    def _page(self, only: Filter, cursor: str | None, limit: int) -> Page:
        """Return a page; list again if another program began to edit files meanwhile."""
        for edited in (self._is_edited(), True):
            keys = [*self._committer.dirty]
            if edited:
                keys += [*self._files.known_keys(), *self._journal.keys(self._committer.end)]
            lister = listing.Lister(
                self._files,
                {paths.path(key): key for key in keys},
                edited,
                search=lambda: {
                    paths.path(key): key for key in self._journal.keys(self._committer.end)
                },
                read=self._read_on_thread,
            )
            page = lister.page(only, cursor, limit)
            if edited or not self._is_edited():
                break
        return page

    def _is_edited(self) -> bool:
        with self._files.excluding_editors() as alone:
            return not alone

    def _read_on_thread(self, key: BucketKey) -> Snapshot:
        """Read a bucket as ``read`` does, on the calling worker thread."""
        newest = self._dirty.get(key)
        if newest is not None:
            return newest
        try:
            loaded = self._files.load(key)
        except (BucketCorrupt, BeingEdited) as error:
            found = self._acknowledged(key) if isinstance(error, BeingEdited) else None
            return found or asyncio.run_coroutine_threadsafe(self._ingest(key), self._loop).result()
        if not loaded.verified:
            self._loop.call_soon_threadsafe(self._committer.ingest_edit, key)
        return self._dirty.get(key, loaded.snapshot)

    def _acknowledged(self, key: BucketKey) -> Snapshot | None:
        """Return the acknowledged state of a bucket while its file is edited; None if unknown.

        Call from any thread.
        """
        entry = self._files.entry(key)
        if entry is not None and entry.snapshot.revision:
            return entry.snapshot
        record = self._journal.find(key, self._committer.end)
        if record is not None and record.after.revision:
            return record.after
        return None if self._files.may_be_away(key) else ABSENT

    async def _ingest(self, key: BucketKey) -> Snapshot:
        return await self._committer.commit(Commit(key, INGEST, Preconditions()))

    async def check(self) -> dict[str, Any]:
        await self._committer.wait_until_flushed()
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
            "problems": self.problems(),
        }

    @property
    def histograms(self) -> dict[str, Histogram]:
        """The histograms of commits, by the names of metrics."""
        return self._committer.histograms

    @property
    def stalled_seconds(self) -> float:
        """The seconds since the engine's current step began; growth means that it hangs."""
        return self._committer.stalled_seconds

    @property
    def problem(self) -> str | None:
        """The reason why writes are refused now; None if they are not."""
        problem = self._committer.problem
        return problem.message if problem else None

    @property
    def quarantine(self) -> FileQuarantine:
        return FileQuarantine(self._root)

    def shared_schemas(self) -> SharedSchemas | None:
        return None

    async def run_background(self, stop: asyncio.Event) -> None:
        """Return at once: requests and the committer start all work."""

    async def close(self) -> None:
        try:
            if self._edit_watcher is not None:
                await self._edit_watcher.close()
        except Exception:
            log.exception("cannot stop the edit watcher; everything else goes on")
        await self._committer.close()
        self._history.close()
        os.close(self._root)
