"""``<state>/trash/``: deleted buckets that can be restored, one file each, named by their ids.

A deletion is durable in the journal, with the last state of the bucket. The flusher then writes
the file in the trash, and after it removes the bucket's file. A restore is journaled as well; the
flusher writes the bucket's file, and after it removes that in the trash. So at each moment a start
finds in the journal what is missing, and may do every step again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from ...fs import errors, files
from ...fs.filenames import SUFFIX, printable
from ...model import trashed
from ...model.bucket import BucketKey
from ...model.trashed import TrashedBucket
from . import envelope, history_files, quarantine
from .records import JournalPosition, Record

log = logging.getLogger(__name__)
DIRECTORY = "trash"
_PLACE = (DIRECTORY,)
# The factor by which a file is at most larger than the bucket, where there is little space.
_GROWTH, _ENVELOPE_BYTES = 2, 8192


class Trash:
    """The trash of one state directory. Change it on one thread at a time; read it from any.

    ``pending`` has what the journal holds and no file does yet, ``restored`` the ids that the
    journal took out while their files still are there, both by bucket.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._pending: dict[BucketKey, list[TrashedBucket]] = {}
        self._restored: dict[BucketKey, list[str]] = {}
        # The ids that a start may find in the journal and put into the trash once more.
        self._journaled: dict[str, JournalPosition] = {}

    # --- deletions and restores, in the order of the journal

    def refusal(self, size: int) -> str | None:
        """Return why a bucket of this size cannot be put into the trash now; None if it can."""
        try:
            if not files.can_create(self._root, _PLACE):
                return "this user may not write there"
            if files.free_bytes(self._root) < _GROWTH * size + _ENVELOPE_BYTES:
                return "the disk is full"
        except OSError as error:
            return error.strerror
        return None

    def apply(self, changes: Iterable[Record], position: JournalPosition) -> None:
        """Take over durable records; ``position`` is that of the first, or one before it."""
        for record in changes:
            if record.trashed is not None:
                self._pending.setdefault(record.key, []).append(record.trashed)
                self._journaled[record.trashed.id] = position
            if record.restores is not None:
                self._restored.setdefault(record.key, []).append(record.restores)

    def has(self, trash_id: str, uncommitted: Iterable[Record] = ()) -> bool:
        """Report whether a bucket can be restored, after these records. Raises OSError."""
        taken = [record.restores for record in uncommitted]
        taken += (one for ids in [*self._restored.values()] for one in ids)
        if trash_id in taken:
            return False
        put = [record.trashed for record in uncommitted if record.trashed is not None]
        put += (one for some in [*self._pending.values()] for one in some)
        return any(one.id == trash_id for one in put) or self.is_stored(trash_id)

    def is_journaled(self, ids: Iterable[str]) -> bool:
        """Report whether a start may put one of these into the trash again."""
        return not self._journaled.keys().isdisjoint(ids)

    def forget_journaled(self, before: JournalPosition | None = None) -> None:
        """Note that a start reads no record any more, or none before a position."""
        if before is None:
            self._journaled.clear()
        else:
            kept = {one: at for one, at in self._journaled.items() if not at < before}
            self._journaled = kept

    # --- files

    def write_pending(self, key: BucketKey) -> None:
        """Write the files of a bucket's deletions, before that of the bucket is removed.

        A deletion is done even where this fails: its answer has said so, and a full disk must
        not keep anybody from making room.
        """
        for one in self._pending.get(key, ()):
            self.put(one)
        self._pending.pop(key, None)

    def remove_restored(self, key: BucketKey) -> None:
        """Remove the files of a bucket's restores, after that of the bucket. Raises OSError."""
        for trash_id in self._restored.get(key, ()):
            self.remove(trash_id)
        self._restored.pop(key, None)

    def put(self, one: TrashedBucket) -> None:
        """Write a file; one line in the log tells if that fails."""
        try:
            try:
                self._write(one)
            except OSError as error:
                if not errors.is_obstacle(error):
                    raise
                quarantine.move_obstacle(self._root, _PLACE)
                self._write(one)
        except OSError as error:
            log.error("%s", for_good(one.key, error.strerror))

    def _write(self, one: TrashedBucket) -> None:
        more = {"deleted_at": one.info.deleted_at, "by": one.by}
        files.write(
            self._root,
            _PLACE,
            one.id + SUFFIX,
            lambda origin: envelope.write(one.key, one.last, origin, more),
            durably=False,
        )

    def complete(self, changes: Iterable[Record]) -> None:
        """Put in and take out what a crash has left to do. Raises OSError."""
        missing: dict[str, TrashedBucket] = {}
        for record in changes:
            if record.trashed is not None:
                missing[record.trashed.id] = record.trashed
            if record.restores is not None:
                missing.pop(record.restores, None)
                self.remove(record.restores)
        for trash_id, one in missing.items():
            try:
                self.read(trash_id)
            except (OSError, envelope.Unreadable):
                self.put(one)

    def write_again(self, changes: Iterable[Record]) -> None:
        """Write files that a failed sync may have lost, unless they were removed since."""
        for record in changes:
            if record.trashed is not None and self.is_stored(record.trashed.id):
                self.put(record.trashed)

    def remove(self, trash_id: str) -> None:
        """Remove a file and the history beside it, if they exist. Raises OSError."""
        files.remove(self._root, _PLACE, trash_id + SUFFIX, durably=False)
        history_files.remove_at(self._root, history_files.trash_place(trash_id))

    def remove_all(self, ids: Iterable[str]) -> list[str]:
        """Remove files durably; return the ids of those that were there. Raises OSError.

        What stands in the place of a file, such as a directory, stays, and keeps no other file.
        """
        found: list[str] = []
        for trash_id in filter(self.has, ids):
            try:
                self.remove(trash_id)
                found.append(trash_id)
            except OSError as error:
                if not errors.is_obstacle(error):
                    raise
                log.error("cannot remove %s: %s", path(trash_id + SUFFIX), cause(error))
        if found:
            for parts in (_PLACE, history_files.TRASH):
                with (
                    contextlib.suppress(FileNotFoundError),
                    files.directory(self._root, parts) as here,
                ):
                    files.sync_entries(here)
        return found

    def read(self, trash_id: str) -> TrashedBucket:
        """Read a file. Raises FileNotFoundError, another OSError, or Unreadable."""
        if any(trash_id in ids for ids in [*self._restored.values()]):
            raise FileNotFoundError
        stored = envelope.read(files.read(self._root, _PLACE, trash_id + SUFFIX))
        if not stored.verified:
            raise envelope.Unreadable("another program changed it")
        by = stored.more.get("by")
        if not isinstance(by, dict) or not trashed.may_be_of(trash_id, stored.key):
            raise envelope.Unreadable("it is not what its name says")
        return TrashedBucket(trash_id, stored.key, stored.snapshot, by)

    def entries(self) -> tuple[list[str], list[str]]:
        """Return the ids, the newest first, and the paths of what else is there. Raises OSError."""
        ids: list[str] = []
        foreign: list[str] = []
        for name in reversed(files.names(self._root, _PLACE)):
            trash_id = name.removesuffix(SUFFIX)
            if name.endswith(SUFFIX) and trashed.is_id(trash_id):
                ids.append(trash_id)
            elif not _is_temporary(name):
                foreign.append(path(name))
        return ids, foreign

    def is_stored(self, trash_id: str) -> bool:
        """Report whether a deleted bucket has its file. Raises OSError."""
        return files.stat_key(self._root, f"{DIRECTORY}/{trash_id}{SUFFIX}") is not None


def path(name: str) -> str:
    """Return the path of an entry below the state directory, for display."""
    return printable(f"{DIRECTORY}/{name}")


def for_good(key: BucketKey, why: str | None) -> str:
    """Return the line of the log about a deletion that goes past the trash."""
    return f"cannot put {key} into the trash: {why}; it is deleted for good"


def cause(error: OSError | envelope.Unreadable) -> str:
    """Return why a file cannot be read."""
    if isinstance(error, OSError):
        return "it is no regular file" if errors.is_obstacle(error) else str(error.strerror)
    return str(error)


def _is_temporary(name: str) -> bool:
    """Report whether a crash may have left a file while the daemon wrote it."""
    inner = name.removeprefix(".").removesuffix(f"{SUFFIX}.tmp")
    return name == f".{inner}{SUFFIX}.tmp" and trashed.is_id(inner)
