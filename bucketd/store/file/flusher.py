"""What is acknowledged into files, each once; then their durability, and how far that has come."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...errors import BucketdError, Internal, StorageFull
from ...fs import errors
from ...fs.locks import WriteLock
from ...model.bucket import BucketKey
from .bucket_files import BucketFiles
from .checkpoint import Checkpoint
from .journal import Journal
from .journal_writer import JournalWriter

log = logging.getLogger(__name__)
MANY_FILES = 4000  # so many may wait to be durable: a start may have to write them all again


class Flusher:
    """Owns all changes of bucket files. One thread at a time.

    Of the buckets that are ``corrupt`` the file goes to the quarantine before it is written.
    ``waiting`` is asked whether commits wait; ``step`` is told of each thing that may take long.
    """

    def __init__(
        self,
        files: BucketFiles,
        log_: Journal,
        journaling: JournalWriter,
        lock: WriteLock,
        waiting: Callable[[], bool],
        step: Callable[[], bool],
    ) -> None:
        self._files, self._journal, self._journaling = files, log_, journaling
        self._lock, self._waiting, self._step = lock, waiting, step
        self._checkpoint = Checkpoint(files.root, log_.position)
        self._writes_begun = 0  # files written before the newest checkpoint was begun
        self.dirty = journaling.dirty
        self.corrupt: set[BucketKey] = set()
        self.behind: BucketdError | None = None  # for now: files cannot be written

    @property
    def open(self) -> bool:
        """Whether anything is not durable in files yet, or is and not noted down."""
        return self._checkpoint.open_until(self._journaling.end)

    def flush(self, give_way: bool = False) -> None:
        """Write every changed file once; ``behind`` says why where one could not be.

        Needs the lock. With ``give_way`` it stops as soon as a commit waits, which may make
        writing the rest of the files needless.
        """
        full, self.behind = isinstance(self.behind, StorageFull), None
        if self.dirty and not self._journaling.durable():
            self.behind = self._journaling.failure
            return
        waiting = list(self.dirty.items())
        if full:
            # What is removed makes space; but a damaged file needs some, to be kept.
            waiting.sort(key=lambda item: (item[1].revision > 0, item[0] in self.corrupt))
        for key, snapshot in waiting:
            self._step()
            try:
                if key in self.corrupt:
                    self._files.quarantine(key)
                    self.corrupt.discard(key)
                self._files.put(key, snapshot)
            except OSError as error:
                log.error("cannot write %s: %s", self._files.name(key), error)
                self.behind = errors.refusal(
                    "write while files cannot be brought up to date", error
                )
                if snapshot.revision:
                    return
                continue  # another removal may make the space that this one needs
            del self.dirty[key]
            if give_way and self._waiting():
                return

    def advance(self, idle: bool) -> None:
        """With all files current: begin to make them durable, note down how far that has come.

        Raises OSError where the journal fails.
        """
        if self._checkpoint.news():  # even if busy: a start reads only what comes after it
            self._journaling.note(self._checkpoint.durable)
        many = self._files.writes >= self._writes_begun + MANY_FILES
        if not self._checkpoint.due(self._journaling.end, self._journal.halfway, idle, many):
            return
        if self._checkpoint.failed:
            self._write_again()
        if not self.dirty and not self._checkpoint.failed:
            self._writes_begun = self._files.writes
            self._checkpoint.start(self._journal.position)
            self._journaling.counters.file_syncs += 1

    def recycle(self) -> None:
        """Begin the older segment anew, once all that it holds stands durably in files.

        ``behind`` says why not where files cannot be. Raises OSError where the journal fails.
        """
        if not self._checkpoint.includes(self._journal.older_end):
            self.make_all_durable()
            if self.behind is not None:
                return
        self._journaling.recycle(self._checkpoint.durable)

    def make_all_durable(self) -> None:
        """Now; ``behind`` says why not where files cannot be written, or synced."""
        self._checkpoint.settle()
        for _ in range(2):  # what a sync has failed for is written once more
            if self._checkpoint.failed:
                self._write_again()
            self.flush()
            if self.behind is not None or self._checkpoint.wait(self._journal.position):
                return
        self.behind = Internal(
            "cannot write while files cannot be made durable (see the log); nothing was changed, "
            "look at the disk, or end the program that holds write.lock"
        )

    def _write_again(self) -> None:
        """Make those files dirty that a failed syncfs may have lost; not while the lock is busy."""
        if not self._lock.acquire():
            return
        for key, after in self._journal.newest_since(self._checkpoint.durable).items():
            if key not in self.dirty and after.revision and self._files.shows(key, after):
                self.dirty[key] = after
        self._checkpoint.failed = False

    def close(self) -> None:
        self._checkpoint.close()
