"""The backlog: the lines of acknowledged changes that are not in the history files yet.

A line is built right after its change is acknowledged, while what it is made of is at hand, so the
states before need not be kept until files are written.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard

from ...model.bucket import BucketKey
from ...model.revisions import HistoryLimits, encode, kept_inverse
from ...model.trashed import TrashedBucket
from . import history_files
from .batch import Transition
from .history_files import HistoryFiles, Place

log = logging.getLogger(__name__)
# The revision and ETag before a state that begins a history.
_NOTHING: tuple[int, str | None] = (0, None)

# A line, or a change that moves the history: a deletion, which has no line, or a restore.
Entry = bytes | Transition


class Backlog:
    """What is owed to the history of each bucket, in order.

    For one thread at a time, but ``lines`` and ``places`` may be called on any.
    """

    def __init__(self, files: HistoryFiles) -> None:
        self._files, self.limits = files, files.limits
        self._owed: dict[BucketKey, list[Entry]] = {}
        # Those with a deletion or a restore among their entries.
        self._moving: set[BucketKey] = set()
        # Durable changes that have no entries yet.
        self._new: Sequence[Transition] = ()
        # Buckets whose history the kernel may have lost.
        self._lost: set[BucketKey] = set()

    def announce(self, changes: Sequence[Transition]) -> None:
        """Take changes, before anybody can read the states that they left; ``add`` follows."""
        self._new = changes

    def add(self) -> None:
        """Build the lines of the changes that were announced."""
        owed, limits, most = self._owed, self.limits, 2 * self.limits.revisions
        keeps_any = bool(limits)
        for change in self._new:
            if not change.is_change:
                continue
            key, _, after, _, _, _, trashed, restored = change
            entry: Entry = change
            if not after.revision or restored is not None:
                self._moving.add(key)
            elif keeps_any:
                entry = line_of(change, limits)
            else:
                continue
            entries = owed.get(key)
            if entries is None:
                owed[key] = [entry]
                continue
            if not after.revision and trashed is None:
                # Of what is deleted for good nothing stays, and nobody may have the list in hand.
                entries = owed[key] = entries[: _begin(entries)]
            entries.append(entry)
            if len(entries) > most:
                owed[key] = _newest(entries, limits)
        self._new = ()

    def _entries(self, key: BucketKey) -> list[Entry]:
        """Return the entries of the history that a bucket has now."""
        # First the new ones, since they become entries meanwhile: twice is better than never.
        new = [one for one in self._new if one.key == key and one.is_change]
        entries = [*self._owed.get(key, ()), *new]
        return entries[_begin(entries) :]

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
        if self._new:
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


def _is_deletion(entry: Entry) -> TypeGuard[Transition]:
    return not isinstance(entry, bytes) and not entry.after.revision


def _begin(owed: list[Entry]) -> int:
    """Return where the entries of the newest history begin: behind the last deletion."""
    return next((at for at in range(len(owed), 0, -1) if _is_deletion(owed[at - 1])), 0)


def _length(owed: list[Entry]) -> int:
    """Return how many entries there are before the next deletion or restore."""
    return next((at for at in range(1, len(owed)) if not isinstance(owed[at], bytes)), len(owed))


def _newest(owed: list[Entry], limits: HistoryLimits) -> list[Entry]:
    """Return all up to the last deletion or restore, and of the others those that are kept."""
    moves = (at for at in range(len(owed), 0, -1) if not isinstance(owed[at - 1], bytes))
    begin = next(moves, 0)
    return [*owed[:begin], *owed[begin:][-limits.revisions :]]


def _lines(owed: list[Entry], limits: HistoryLimits) -> list[bytes]:
    """Return the newest lines of a history, as many as are kept."""
    newest = owed[-limits.revisions :] if limits else []
    return [one if isinstance(one, bytes) else line_of(one, limits) for one in newest]


def line_of(change: Transition, limits: HistoryLimits) -> bytes:
    """Return the line of a change that leaves a bucket."""
    _, before, after, author, at, undoes, _, restored = change
    if restored is not None:
        # It goes on where it ended.
        before = restored.last
    inverse, was = None, _NOTHING
    if before is not None:
        was, old, new = (before.revision, before.etag), before.bucket, after.bucket
        size = old.size + new.size
        inverse = kept_inverse(old.members, new.members, size, limits.bytes)
    when, etag, automation = at or after.updated_at, after.etag or "", after.automation
    return encode(after.revision, etag, when, was, author, automation, inverse, undoes)
