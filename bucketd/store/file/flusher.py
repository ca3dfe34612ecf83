"""Write acknowledged states to files, make the files durable, and record that in the journal."""

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
from .trash import Trash

log = logging.getLogger(__name__)
# A start may have to write all files again that were not synced.
MAX_UNSYNCED_FILES = 4000
# The interval between syncs of the files under little load.
SYNC_SECONDS = 5.0


class Flusher:
    """Write the bucket files, on one thread at a time.

    ``corrupt`` maps buckets to quarantine names: their unreadable files are quarantined before
    they are written. ``has_waiting`` reports whether commits wait; ``heartbeat`` is called before
    each step that may take long.
    """

    def __init__(
        self,
        bucket_files: BucketFiles,
        journal: Journal,
        writer: JournalWriter,
        lock: WriteLock,
        has_waiting: Callable[[], bool],
        heartbeat: Callable[[], bool],
        trash: Trash,
    ) -> None:
        self._files, self._journal, self._writer, self._trash = bucket_files, journal, writer, trash
        self._lock, self._has_waiting, self._heartbeat = lock, has_waiting, heartbeat
        self._sync = FileSync(bucket_files.root, journal.position)
        # The number of files written before the newest sync began.
        self._synced_writes = 0
        self.dirty = writer.dirty
        self.corrupt: dict[BucketKey, str] = {}
        # Why files cannot be written at present.
        self.flush_error: BucketdError | None = None

    def has_work(self) -> bool:
        """Report whether a change is not durable in its file yet, or not recorded as durable."""
        return self._sync.is_behind(self._writer.end)

    def flush(self, give_way: bool = False) -> None:
        """Write every changed file once, under the lock; set ``flush_error`` if that fails.

        With ``give_way``, stop once a commit waits, since it may change the same files again.
        """
        full, self.flush_error = isinstance(self.flush_error, StorageFull), None
        if self.dirty and not self._writer.make_durable():
            self.flush_error = self._writer.failure
            return
        try:
            self._writer.backlog.write_lost()
        except OSError as error:
            log.error("cannot write the history of buckets again: %s", error)
            self.flush_error = _refusal(error)
            return
        changed = list(self.dirty.items())
        if full:
            # Removals come first, since they free space. The removal of an unreadable file needs
            # some space to keep that file, so it comes after the others.
            changed.sort(key=lambda item: (item[1].revision > 0, item[0] in self.corrupt))
        for key, snapshot in changed:
            self._heartbeat()
            try:
                if key in self.corrupt:
                    self._files.quarantine(key, self.corrupt[key])
                    del self.corrupt[key]
                self._trash.write_pending(key)
                # A file that shows a change must not be there before the line of that change.
                self._writer.backlog.write(key, self._trash.is_stored)
                self._files.put(key, snapshot)
                self._trash.remove_restored(key)
            except OSError as error:
                about = {"fields": key.fields}
                log.error("cannot write %s: %s", self._files.name(key), error, extra=about)
                self.flush_error = _refusal(error)
                if snapshot.revision:
                    return
                # Another removal may free the space that this removal needs.
                continue
            del self.dirty[key]
            if give_way and self._has_waiting():
                return

    def advance(self, idle: bool) -> None:
        """Start to make the files durable, if due, and record how far they are durable.

        All files must be current. Raises OSError if the journal fails.
        """
        # Checkpoints are written under load as well, since a start replays all later records.
        if self._sync.has_moved():
            self._journal.checkpoint(self._sync.durable)
        many = self._files.writes >= self._synced_writes + MAX_UNSYNCED_FILES
        if not self._sync.is_due(self._writer.end, self._journal.halfway, idle, many):
            return
        if self._sync.failed:
            self._write_again()
        if not self.dirty and not self._sync.failed:
            self._synced_writes = self._files.writes
            self._writer.begin_whole()
            self._sync.start(self._journal.position)
            self._writer.counters.file_syncs += 1

    def recycle(self) -> None:
        """Reuse the older segment once all its changes are durable in files.

        Set ``flush_error`` if they cannot be made durable. Raises OSError if the journal fails.
        """
        if self._sync.durable < self._journal.older_end:
            self.make_all_durable()
            if self.flush_error is not None:
                return
        self._writer.begin_whole()
        self._journal.recycle(self._sync.durable)
        self._trash.forget_journaled(self._journal.oldest)

    def make_all_durable(self) -> None:
        """Write and sync all files; set ``flush_error`` if that fails."""
        self._sync.join()
        # After a failed sync, the files are written and synced once more.
        for _ in range(2):
            if self._sync.failed:
                self._write_again()
            self.flush()
            self._writer.begin_whole()
            if self.flush_error is not None or self._sync.reach(self._journal.position):
                return
        self.flush_error = Internal(
            "cannot write while files cannot be made durable (see the log); nothing was changed, "
            "look at the disk, or end the program that holds write.lock"
        )

    def _write_again(self) -> None:
        """Mark the files dirty that a failed syncfs may have lost, unless the lock is busy."""
        if not self._lock.acquire():
            return
        newest = self._journal.newest_since(self._sync.durable)
        self._writer.backlog.note_lost(newest)
        for key, after in newest.items():
            if key not in self.dirty and after.revision and self._files.shows(key, after):
                self.dirty[key] = after
        self._trash.write_again(self._journal.trash_since(self._sync.durable))
        self._sync.failed = False

    def close(self) -> None:
        self._sync.close()


def _refusal(error: OSError) -> BucketdError:
    return errors.refusal("write while files cannot be brought up to date", error)


class FileSync:
    """Run ``syncfs`` on a separate thread, so that no commit waits for it."""

    def __init__(self, root: int, durable: JournalPosition) -> None:
        self._root = root
        self._durable = self._recorded = self._target = durable
        self._running: Future[None] | None = None
        self._began = 0.0
        # The kernel reports a failed write only once, and may have dropped the data.
        self.failed = False
        self._thread = ThreadPoolExecutor(1, "bucketd-syncfs")

    @property
    def durable(self) -> JournalPosition:
        """The position before which all journaled changes are durable in files."""
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
        """Report whether ``durable`` has advanced since the last call."""
        moved = self._recorded < self.durable
        self._recorded = self._durable
        return moved

    def is_behind(self, end: JournalPosition) -> bool:
        """Report whether changes before ``end`` are not durable yet, or not recorded as durable."""
        return self.durable < end or self._recorded < self._durable

    def is_due(
        self, end: JournalPosition, halfway: JournalPosition, idle: bool, many: bool
    ) -> bool:
        """Report whether to start a sync now for changes before ``end``.

        A sync is due at intervals when idle, else once per segment, or if ``many`` files wait.
        """
        if self._running is not None or not self._target < end:
            return False
        aged = time.monotonic() >= self._began + SYNC_SECONDS
        if self.failed:
            return aged
        return many or self._target < halfway <= end or (idle and aged)

    def start(self, target: JournalPosition) -> None:
        """Start a sync; the files must hold all changes before ``target``."""
        self._target, self._began = target, time.monotonic()
        self._running = self._thread.submit(files.sync_all, self._root)

    def join(self) -> None:
        """Wait for the current sync."""
        if self._running is not None:
            self._running.exception()
        _ = self.durable

    def reach(self, target: JournalPosition) -> bool:
        """Make all changes before ``target`` durable now; return False if that failed."""
        self.join()
        if not self.failed and self.durable < target:
            self.start(target)
            self.join()
        return not self.failed

    def close(self) -> None:
        self._thread.shutdown()
