"""The backlog: acknowledged changes whose lines the history files do not have yet.

A line is built right after its change is acknowledged, while what it is made of is at hand, so the
states before need not be kept until files are written. Only those that are held as text are kept,
since splitting them takes long, and of a busy bucket only the newest changes are written.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard

from ...model.bucket import BucketKey, Snapshot
from ...model.document import Members
from ...model.revisions import HistoryLimits, encode, kept_inverse
from ...model.trashed import TrashedBucket
from . import history_files
from .batch import Transition
from .history_files import HistoryFiles, Place

log = logging.getLogger(__name__)
# The revision and ETag before a state that begins a history.
_NOTHING: tuple[int, str | None] = (0, None)

# A line, or a change whose line is built later; a deletion has none.
Entry = bytes | Transition


class Backlog:
    """The lines that are owed to the history of each bucket, in order.

    For one thread at a time, but ``lines`` and ``places`` may be called on any.
    """

    def __init__(self, files: HistoryFiles) -> None:
        self._files, self.limits = files, files.limits
        self._owed: dict[BucketKey, list[Entry]] = {}
        # Buckets with a deletion or a restore among their entries, so that the history moves.
        self._moving: set[BucketKey] = set()
        # Durable changes that have no entries yet.
        self._new: Sequence[Transition] = ()
        # Keeps readers from finding a change in both, or in neither.
        self._lock = threading.Lock()
        # Buckets whose history the kernel may have lost.
        self._lost: set[BucketKey] = set()

    def announce(self, changes: Sequence[Transition]) -> None:
        """Take changes, before anybody can read the states that they left; ``add`` follows."""
        self._new = changes

    def add(self) -> None:
        """Build the lines of the changes that were announced, where that takes little time."""
        with self._lock:
            new, self._new = self._new, ()
            for change in new:
                if change.is_change:
                    self._add(change)

    def _add(self, change: Transition) -> None:
        key, before, after, _, _, _, trashed, _ = change
        entry: Entry = change
        if _is_move(change):
            self._moving.add(key)
        elif not self.limits:
            return
        elif before is None or (before.bucket.is_split and after.bucket.is_split):
            entry = line_of(change, self.limits)
        entries = self._owed.get(key)
        if entries is None:
            self._owed[key] = [entry]
            return
        if not after.revision and trashed is None:
            # A bucket that is deleted for good leaves nothing.
            del entries[_begin(entries) :]
        entries.append(entry)
        if len(entries) > 2 * self.limits.revisions:
            self._owed[key] = _newest(entries, self.limits)

    def _entries(self, key: BucketKey) -> list[Entry]:
        """Return the entries of the history that a bucket has now."""
        with self._lock:
            new = [change for change in self._new if change.key == key and change.is_change]
            return _of_now([*self._owed.get(key, ()), *new])

    def lines(self, key: BucketKey) -> list[bytes]:
        """Return the lines that are owed to a bucket, the oldest first."""
        return _lines(self._entries(key), self.limits)

    def places(self, key: BucketKey) -> list[Place]:
        """Return where the lines of a bucket are, the oldest first, until ``write`` moves them."""
        restored = [
            history_files.trash_place(one.restored.id)
            for one in self._entries(key)
            if not isinstance(one, bytes) and one.restored is not None
        ]
        return [*restored, history_files.place_of(key)]

    def note_lost(self, keys: Iterable[BucketKey]) -> None:
        """Have histories written anew, since a sync of the file system has failed."""
        if self.limits:
            self._lost.update(keys)

    def write_lost(self) -> None:
        """Write those histories anew, durably. Raises OSError."""
        while self._lost:
            key = next(iter(self._lost))
            self._files.rewrite(history_files.place_of(key))
            self._lost.discard(key)

    def write(self, key: BucketKey, is_trashed: Callable[[str], bool]) -> None:
        """Write what is owed to a bucket, before its file is written. Raises OSError.

        ``is_trashed`` reports whether a deleted bucket is in the trash, by its id.
        """
        self.add()
        owed = self._owed.get(key)
        if owed is None:
            return
        place = history_files.place_of(key)
        if key in self._moving:
            self._write_moving(place, key, owed, is_trashed)
            self._moving.discard(key)
        else:
            self._append(place, key, owed)
        del self._owed[key]

    def _write_moving(
        self,
        place: Place,
        key: BucketKey,
        owed: list[Entry],
        is_trashed: Callable[[str], bool],
    ) -> None:
        """Write lines up to each deletion or restore, and move the history with the bucket."""
        while owed:
            first = owed[0]
            if _is_deletion(first):
                self._retire(place, first.trashed, is_trashed)
                count = 1
            else:
                if not isinstance(first, bytes) and first.restored is not None:
                    self._files.move(history_files.trash_place(first.restored.id), place)
                count = _length(owed)
                self._append(place, key, owed[:count], may_fail=count < len(owed))
            # If the rest fails, the next try goes on from here.
            owed = self._owed[key] = owed[count:]

    def _append(
        self, place: Place, key: BucketKey, owed: list[Entry], may_fail: bool = False
    ) -> None:
        """Append lines; of a bucket that is deleted only as far as that works."""
        if not self.limits:
            return
        try:
            self._files.append(place, _lines(owed, self.limits))
        except OSError as error:
            if not (may_fail or is_forbidden(error)):
                raise
            log.error("cannot keep the history of %s: %s", key, error.strerror)

    def _retire(
        self, place: Place, trashed: TrashedBucket | None, is_trashed: Callable[[str], bool]
    ) -> None:
        """Let the history of a deleted bucket go with it into the trash, or away."""
        if trashed is not None and is_trashed(trashed.id):
            try:
                self._files.move(place, history_files.trash_place(trashed.id))
                return
            except OSError as error:
                # A full disk must not keep anybody from making room.
                log.error("cannot keep the history of %s: %s", trashed.key, error.strerror)
        self._files.remove(place)


def is_forbidden(error: OSError) -> bool:
    """Report whether a directory belongs to another user, which must not keep buckets from being
    written.
    """
    return error.errno in (errno.EACCES, errno.EPERM)


def _is_move(entry: Entry) -> TypeGuard[Transition]:
    """Report whether a history moves: its bucket was deleted or restored."""
    if isinstance(entry, bytes):
        return False
    return not entry.after.revision or entry.restored is not None


def _is_deletion(entry: Entry) -> TypeGuard[Transition]:
    return not isinstance(entry, bytes) and not entry.after.revision


def _begin(owed: list[Entry]) -> int:
    """Return where the entries of the newest bucket begin: behind the last deletion."""
    return next((at for at in range(len(owed), 0, -1) if _is_deletion(owed[at - 1])), 0)


def _of_now(owed: list[Entry]) -> list[Entry]:
    """Return the entries of the newest bucket, also those before it was in the trash."""
    begin = _begin(owed)
    newest = owed[begin:]
    if not newest or not _is_move(newest[0]) or newest[0].restored is None:
        return newest
    trash_id = newest[0].restored.id
    for at in range(begin - 1, -1, -1):
        entry = owed[at]
        if _is_deletion(entry) and entry.trashed is not None and entry.trashed.id == trash_id:
            return [*_of_now(owed[:at]), *newest]
    return newest


def _length(owed: list[Entry]) -> int:
    """Return how many entries there are before the next deletion or restore."""
    return next((at for at in range(1, len(owed)) if _is_move(owed[at])), len(owed))


def _newest(owed: list[Entry], limits: HistoryLimits) -> list[Entry]:
    """Return all up to the last deletion or restore, and of the others those that are kept."""
    begin = next((at for at in range(len(owed), 0, -1) if _is_move(owed[at - 1])), 0)
    return [*owed[:begin], *owed[begin:][-limits.revisions :]]


def _lines(owed: list[Entry], limits: HistoryLimits) -> list[bytes]:
    """Return the newest lines of a history, as many as are kept."""
    lines: list[bytes] = []
    # Consecutive changes share a state, which is split once for both.
    last: Snapshot | None = None
    members: Members = {}
    for one in owed[-limits.revisions :] if limits else ():
        if isinstance(one, bytes):
            lines.append(one)
            continue
        old = members if one.before is not None and one.before is last else None
        last, members = one.after, one.after.bucket.members
        lines.append(line_of(one, limits, old, members))
    return lines


def line_of(
    change: Transition,
    limits: HistoryLimits,
    old: Members | None = None,
    new: Members | None = None,
) -> bytes:
    """Return the line of a change that leaves a bucket; the members of its states may be given."""
    _, before, after, author, at, undoes, _, restored = change
    if restored is not None:
        # A restored bucket goes on where it ended.
        before, old = restored.last, None
    inverse, was = None, _NOTHING
    if before is not None:
        was = before.revision, before.etag
        old = before.bucket.members if old is None else old
        new = after.bucket.members if new is None else new
        size = before.bucket.size + after.bucket.size
        inverse = kept_inverse(old, new, size, limits.bytes)
    when, etag, automation = at or after.updated_at, after.etag or "", after.automation
    return encode(after.revision, etag, when, was, author, automation, inverse, undoes)
