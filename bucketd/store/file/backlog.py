"""The backlog: changes that are acknowledged and whose lines are not in the history files yet.

A line is built only when files are written, so that it costs a commit next to nothing, and of a
bucket that is written very often only the lines that its history keeps are built at all.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable

from ...model import revisions
from ...model.bucket import BucketKey, Snapshot
from ...model.document import Members
from ...model.inverses import Inverse
from ...model.revisions import HistoryLimits, Revision
from . import history_files
from .batch import Owed
from .history_files import HistoryFiles

log = logging.getLogger(__name__)


class Backlog:
    """The changes of each bucket since its history was written, in order.

    For one thread at a time, but ``lines`` may be called on any.
    """

    def __init__(self, files: HistoryFiles) -> None:
        self._files, self.limits = files, files.limits
        self._owed: dict[BucketKey, list[Owed]] = {}

    def add(self, owed: Owed) -> None:
        """Remember a change, before anybody can read the state that it left."""
        waiting = self._owed.get(owed.key)
        if waiting is None or not owed.after.revision:
            # A bucket that is removed takes its history along.
            self._owed[owed.key] = [owed]
            return
        waiting.append(owed)
        if len(waiting) > 2 * self.limits.revisions:
            # Readers may have the list in hand, so it is replaced.
            self._owed[owed.key] = _newest(waiting, self.limits)

    def lines(self, key: BucketKey) -> list[bytes]:
        """Return the lines that are owed to a bucket, the oldest first."""
        return _encoded([*self._owed.get(key, ())], self.limits)

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


def _newest(owed: list[Owed], limits: HistoryLimits) -> list[Owed]:
    """Return the newest changes, and the removal that they begin with, if any."""
    begin = [] if owed[0].after.revision else owed[:1]
    return [*begin, *owed[len(begin) :][-limits.revisions :]]


def _encoded(owed: list[Owed], limits: HistoryLimits) -> list[bytes]:
    changes = _newest(owed, limits) if owed else []
    return encoded((one for one in changes if one.after.revision), limits)


def encoded(owed: Iterable[Owed], limits: HistoryLimits) -> list[bytes]:
    """Return the lines of consecutive changes of a bucket."""
    lines: list[bytes] = []
    last: Snapshot | None = None
    members: Members = {}
    for _key, before, after, author, at, undoes in owed:
        inverse: Inverse | None = None
        # Of a bucket that is held as text, each state is split once.
        old = members if before is last else None
        last, members = after, after.bucket.members
        if before is not None:
            old = before.bucket.members if old is None else old
            inverse = revisions.kept_inverse(old, members, limits.bytes)
        was = (0, None) if before is None else (before.revision, before.etag)
        when = at or after.updated_at
        lines.append(
            revisions.encode(
                Revision(
                    after.revision,
                    after.etag or "",
                    when,
                    was,
                    author,
                    after.automation,
                    inverse,
                    undoes,
                )
            )
        )
    return lines
