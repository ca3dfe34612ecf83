"""The backlog: changes that are acknowledged and whose lines are not in the history files yet.

A line is built only when files are written, so that it costs a commit next to nothing, and of a
bucket that is written very often only the lines that its history keeps are built at all.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Sequence

import orjson

from ...model.author import UNKNOWN, Author
from ...model.bucket import BucketKey, Snapshot
from ...model.document import Members
from ...model.inverses import changed_in_place
from ...model.revisions import HistoryLimits, Revision, encode, kept_inverse
from ...model.trashed import TrashedBucket
from . import history_files
from .batch import Transition
from .history_files import HistoryFiles, Place

log = logging.getLogger(__name__)
# The revision and ETag before a state that begins a history.
_NOTHING: tuple[int, str | None] = (0, None)


class Backlog:
    """The changes of each bucket since its history was written, in order.

    For one thread at a time, but ``lines`` may be called on any.
    """

    def __init__(self, files: HistoryFiles) -> None:
        self._files, self.limits = files, files.limits
        self._owed: dict[BucketKey, list[Transition]] = {}
        # Buckets whose history the kernel may have lost.
        self._lost: set[BucketKey] = set()

    def add(self, changes: Sequence[Transition]) -> None:
        """Remember changes, before anybody can read the states that they left."""
        most = 2 * self.limits.revisions
        for change in changes:
            if not change.is_change:
                continue
            if not self.limits and change.after.revision and change.restored is None:
                continue
            waiting = self._owed.setdefault(change.key, [])
            if not change.after.revision and change.trashed is None:
                # Of what is deleted for good nothing stays, and nobody may have the list in hand.
                waiting = self._owed[change.key] = waiting[: _begin(waiting)]
            waiting.append(_continued(change))
            if len(waiting) > most:
                self._owed[change.key] = _newest(waiting, self.limits)

    def lines(self, key: BucketKey) -> list[bytes]:
        """Return the lines that are owed to a bucket, the oldest first."""
        owed = [*self._owed.get(key, ())]
        return encoded(_newest(owed[_begin(owed) :], self.limits), self.limits)

    def places(self, key: BucketKey) -> list[Place]:
        """Return where the lines of a bucket are, the oldest first, until ``write`` moves them."""
        owed = [*self._owed.get(key, ())]
        restored = [one.restored.id for one in owed[_begin(owed) :] if one.restored is not None]
        return [*map(history_files.trash_place, restored), history_files.place_of(key)]

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
        owed = self._owed.get(key)
        if owed is None:
            return
        place = history_files.place_of(key)
        while owed:
            first = owed[0]
            if not first.after.revision:
                self._retire(place, first.trashed, is_trashed)
                count = 1
            else:
                if first.restored is not None:
                    self._files.move(history_files.trash_place(first.restored.id), place)
                count = _length(owed)
                ends_here = count < len(owed)
                self._append(place, key, owed[:count], may_fail=ends_here)
            # If the rest fails, the next try goes on from here.
            owed = owed[count:]
            self._owed[key] = owed
        del self._owed[key]

    def _append(
        self, place: Place, key: BucketKey, changes: list[Transition], may_fail: bool
    ) -> None:
        """Append the lines of changes; of a bucket that is deleted only as far as that works."""
        if not self.limits:
            return
        try:
            self._files.append(place, encoded(_newest(changes, self.limits), self.limits))
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


def _continued(change: Transition) -> Transition:
    """Return the change with the state before: a restored bucket goes on where it ended."""
    return change if change.restored is None else change._replace(before=change.restored.last)


def _begin(owed: list[Transition]) -> int:
    """Return where the changes of the newest history begin: behind the last deletion."""
    return next((at for at in range(len(owed), 0, -1) if not owed[at - 1].after.revision), 0)


def _length(owed: list[Transition]) -> int:
    """Return how many changes there are before the next deletion or restore."""
    for at, change in enumerate(owed[1:], 1):
        if not change.after.revision or change.restored is not None:
            return at
    return len(owed)


def _newest(owed: list[Transition], limits: HistoryLimits) -> list[Transition]:
    """Return all up to the last deletion or restore, and of the others those that are kept."""
    begin = _begin(owed)
    for at in range(len(owed), begin, -1):
        if owed[at - 1].restored is not None:
            begin = at
            break
    return [*owed[:begin], *owed[begin:][-limits.revisions :]]


def encoded(changes: Iterable[Transition], limits: HistoryLimits) -> list[bytes]:
    """Return the lines of consecutive changes of a bucket.

    A busy daemon writes thousands of them a second. So what one line has in common with the one
    before is not made again, and most changes leave the keys in their places.
    """
    lines: list[bytes] = []
    last: Snapshot | None = None
    members: Members = {}
    by = b""
    who: tuple[Author, str | None] = (UNKNOWN, "")
    for change in changes:
        _key, before, after, author, at, undoes, *_ = change
        old, members = members, after.bucket.members
        values = None
        if before is not None and before is last and undoes is None:
            size = before.bucket.size + after.bucket.size
            values = changed_in_place(old, members) if size <= limits.bytes else None
        if values is None or before is None:
            lines.append(_line(change, limits))
        else:
            if who != (author, after.automation):
                who = author, after.automation
                by = b'"automation":%b,"by":%b' % (orjson.dumps(after.automation), author.json)
            lines.append(
                b'{"revision":%d,"etag":%b,"at":%b,"was":%b,%b,"changed":{%b}}'
                % (
                    after.revision,
                    orjson.dumps(after.etag),
                    orjson.dumps(at or after.updated_at),
                    orjson.dumps((before.revision, before.etag)),
                    by,
                    b",".join(values),
                )
            )
        last = after
    return lines


def _line(change: Transition, limits: HistoryLimits) -> bytes:
    """Return the line of any change."""
    _, before, after, author, at, undoes, *_ = change
    inverse, was = None, _NOTHING
    if before is not None:
        was, old = (before.revision, before.etag), before.bucket
        size = old.size + after.bucket.size
        inverse = kept_inverse(old.members, after.bucket.members, size, limits.bytes)
    when = at or after.updated_at
    etag, automation = after.etag or "", after.automation
    return encode(Revision(after.revision, etag, when, was, author, automation, inverse, undoes))
