"""What is acknowledged into files, each once; then their durability, and how far that has come."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ...errors import BucketdError, Internal, StorageFull
from ...fs import errors, files
from ...fs.locks import WriteLock
from ...model.bucket import BucketKey
from .bucket_files import BucketFiles
from .journal import Journal
from .journal_writer import JournalWriter
from .records import JournalPosition

log = logging.getLogger(__name__)
MAX_UNSYNCED_FILES = 4000  # a start may have to write them all again
SYNC_SECONDS = 5.0  # between two syncs of the files while little happens


class Flusher:
    """Owns all changes of bucket files. One thread at a time.

    The unreadable file of a bucket in ``corrupt`` is kept in the quarantine, under the name there,
    before it is written.
    ``has_waiting`` reports whether commits wait; ``heartbeat`` is called before each step that may
    take long.
    """

    def __init__(
        self,
        bucket_files: BucketFiles,
        journal: Journal,
        writer: JournalWriter,
        lock: WriteLock,
        has_waiting: Callable[[], bool],
        heartbeat: Callable[[], bool],
    ) -> None:
        self._files, self._journal, self._writer = bucket_files, journal, writer
        self._lock, self._has_waiting, self._heartbeat = lock, has_waiting, heartbeat
        self._sync = FileSync(bucket_files.root, journal.position)
        self._synced_writes = 0  # files written before the newest sync began
        self.dirty = writer.dirty
        self.corrupt: dict[BucketKey, str] = {}
        self.flush_error: BucketdError | None = None  # why files cannot be written, for now

    def has_work(self) -> bool:
        """Report whether anything is not durable in files yet, or not recorded as durable."""
        return self._sync.is_behind(self._writer.end)

    def flush(self, give_way: bool = False) -> None:
        """Write every changed file once, under the lock; else ``flush_error`` says why not.

        With ``give_way``, stop as soon as a commit waits, which may make the rest needless.
        """
        full, self.flush_error = isinstance(self.flush_error, StorageFull), None
        if self.dirty and not self._writer.make_durable():
            self.flush_error = self._writer.failure
            return
        changed = list(self.dirty.items())
        if full:
            # Removals free space; but one of an unreadable file needs some, to keep that file.
            changed.sort(key=lambda item: (item[1].revision > 0, item[0] in self.corrupt))
        for key, snapshot in changed:
            self._heartbeat()
            try:
                if key in self.corrupt:
                    self._files.quarantine(key, self.corrupt[key])
                    del self.corrupt[key]
                self._files.put(key, snapshot)
            except OSError as error:
                log.error("cannot write %s: %s", self._files.name(key), error)
                self.flush_error = errors.refusal(
                    "write while files cannot be brought up to date", error
                )
                if snapshot.revision:
                    return
                # Another removal may free the space that this one needs.
                continue
            del self.dirty[key]
            if give_way and self._has_waiting():
                return

    def advance(self, idle: bool) -> None:
        """With all files current, begin to make them durable; record how far that has come.

        Raise OSError where the journal fails.
        """
        # Also while busy: a start reads only what comes after the checkpoint.
        if self._sync.has_moved():
            self._journal.checkpoint(self._sync.durable)
        many = self._files.writes >= self._synced_writes + MAX_UNSYNCED_FILES
        if not self._sync.is_due(self._writer.end, self._journal.halfway, idle, many):
            return
        if self._sync.failed:
            self._write_again()
        if not self.dirty and not self._sync.failed:
            self._synced_writes = self._files.writes
            self._sync.start(self._journal.position)
            self._writer.counters.file_syncs += 1

    def recycle(self) -> None:
        """Begin the older segment anew, once everything that it holds stands durably in files.

        Otherwise ``flush_error`` says why not. Raise OSError where the journal fails.
        """
        if self._sync.durable < self._journal.older_end:
            self.make_all_durable()
            if self.flush_error is not None:
                return
        self._journal.recycle(self._sync.durable)

    def make_all_durable(self) -> None:
        """Write and sync all files; else ``flush_error`` says why not."""
        self._sync.join()
        # What a sync has failed for is written once more.
        for _ in range(2):
            if self._sync.failed:
                self._write_again()
            self.flush()
            if self.flush_error is not None or self._sync.reach(self._journal.position):
                return
        self.flush_error = Internal(
            "cannot write while files cannot be made durable (see the log); nothing was changed, "
            "look at the disk, or end the program that holds write.lock"
        )

    def _write_again(self) -> None:
        """Make those files dirty that a failed syncfs may have lost; not while the lock is busy."""
        if not self._lock.acquire():
            return
        for key, after in self._journal.newest_since(self._sync.durable).items():
            if key not in self.dirty and after.revision and self._files.shows(key, after):
                self.dirty[key] = after
        self._sync.failed = False

    def close(self) -> None:
        self._sync.close()


class FileSync:
    """``syncfs`` on a thread of its own, so that no commit waits for it."""

    def __init__(self, root: int, durable: JournalPosition) -> None:
        self._root = root
        self._durable = self._recorded = self._target = durable
        self._running: Future[None] | None = None
        self._began = 0.0
        # The kernel may have dropped what it had of the files, and says so only once.
        self.failed = False
        self._thread = ThreadPoolExecutor(1, "bucketd-syncfs")

    @property
    def durable(self) -> JournalPosition:
        """Every change that was journaled before this position stands durably in its file."""
        if self._running is not None and self._running.done():
            error = self._running.exception()
            self._running = None
            if error is None:
                self._durable = self._target
            else:
                self.failed, self._target = True, self._durable
                log.error("cannot make files durable, the journal keeps their content: %s", error)
        return self._durable

    def has_moved(self) -> bool:
        """Report whether ``durable`` has moved since this was last asked."""
        moved = self._recorded < self.durable
        self._recorded = self._durable
        return moved

    def is_behind(self, end: JournalPosition) -> bool:
        """Report whether there is anything left to do for changes up to ``end``."""
        return self.durable < end or self._recorded < self._durable

    def is_due(
        self, end: JournalPosition, halfway: JournalPosition, idle: bool, many: bool
    ) -> bool:
        """Report whether to begin now for changes up to ``end``.

        Now and then when idle, else once a segment, or when ``many`` files wait for it.
        """
        if self._running is not None or not self._target < end:
            return False
        aged = time.monotonic() >= self._began + SYNC_SECONDS
        if self.failed:
            return aged
        return many or self._target < halfway <= end or (idle and aged)

    def start(self, target: JournalPosition) -> None:
        """Begin; files must hold all changes before ``target``."""
        self._target, self._began = target, time.monotonic()
        self._running = self._thread.submit(files.sync_all, self._root)

    def join(self) -> None:
        """Wait for what was begun."""
        if self._running is not None:
            self._running.exception()
        _ = self.durable

    def reach(self, target: JournalPosition) -> bool:
        """Make everything before ``target`` durable now; return False where that has failed."""
        self.join()
        if not self.failed and self.durable < target:
            self.start(target)
            self.join()
        return not self.failed

    def close(self) -> None:
        self._thread.shutdown()
