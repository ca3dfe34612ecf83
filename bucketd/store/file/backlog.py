"""The backlog: changes that are acknowledged and whose lines are not in the history files yet.

A line is built only when files are written, so that it costs a commit next to nothing, and of a
bucket that is written very often only the lines that its history keeps are built at all.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Sequence

import orjson

from ...model.author import UNKNOWN, Author
from ...model.bucket import BucketKey, Snapshot
from ...model.document import Members
from ...model.inverses import changed_in_place
from ...model.revisions import HistoryLimits, Revision, encode, kept_inverse
from . import history_files
from .batch import Transition
from .history_files import HistoryFiles

log = logging.getLogger(__name__)
# What comes before a state that begins a history.
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
        if not self.limits:
            return
        most = 2 * self.limits.revisions
        for change in changes:
            if not change.is_change:
                continue
            waiting = self._owed.get(change.key)
            if waiting is None or not change.after.revision:
                # A bucket that is removed takes its history along.
                self._owed[change.key] = [change]
                continue
            waiting.append(change)
            if len(waiting) > most:
                # Readers may have the list in hand, so it is replaced.
                self._owed[change.key] = _newest(waiting, self.limits)

    def lines(self, key: BucketKey) -> list[bytes]:
        """Return the lines that are owed to a bucket, the oldest first."""
        return _encoded([*self._owed.get(key, ())], self.limits)

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

    def write(self, key: BucketKey) -> None:
        """Write what is owed to a bucket, before its file is written. Raises OSError."""
        owed = self._owed.get(key)
        if owed is None:
            return
        place = history_files.place_of(key)
        if not owed[0].after.revision:
            self._files.remove(place)
        lines = _encoded(owed, self.limits)
        if lines:
            try:
                self._files.append(place, lines)
            except OSError as error:
                if not is_forbidden(error):
                    raise
                log.error("cannot keep the history of %s: %s", key, error.strerror)
        del self._owed[key]


def is_forbidden(error: OSError) -> bool:
    """Report whether a directory belongs to another user, which must not keep buckets from being
    written.
    """
    return error.errno in (errno.EACCES, errno.EPERM)


def _newest(owed: list[Transition], limits: HistoryLimits) -> list[Transition]:
    """Return the newest changes, and the removal that they begin with, if any."""
    begin = [] if owed[0].after.revision else owed[:1]
    return [*begin, *owed[len(begin) :][-limits.revisions :]]


def _encoded(owed: list[Transition], limits: HistoryLimits) -> list[bytes]:
    changes = _newest(owed, limits) if owed else []
    return encoded((one for one in changes if one.after.revision), limits)


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
        _key, before, after, author, at, undoes = change
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
    _, before, after, author, at, undoes = change
    inverse, was = None, _NOTHING
    if before is not None:
        was, old = (before.revision, before.etag), before.bucket
        size = old.size + after.bucket.size
        inverse = kept_inverse(old.members, after.bucket.members, size, limits.bytes)
    when = at or after.updated_at
    etag, automation = after.etag or "", after.automation
    return encode(Revision(after.revision, etag, when, was, author, automation, inverse, undoes))
