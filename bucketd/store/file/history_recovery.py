"""Recover histories after a crash: append the lines that are missing, where their buckets are.

The journal has all changes since a moment at which all lines were durable. A history is named by
its bucket while that is stored, and by an id while that is in the trash.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...model import inverses
from ...model.bucket import ABSENT, BucketKey, Snapshot
from . import history_files
from .backlog import is_forbidden, line_of
from .batch import Transition
from .history_files import HistoryFiles, Journaled, Place
from .history_lines import etag_before, etag_of
from .records import Origin, Record

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Span:
    """The part of a history that the journal tells of: one bucket, through trash and restores.

    ``base`` is the ETag of the state in which it begins. ``trash_ids`` has all ids under which the
    bucket was in the trash, and ``trash_id`` the one under which it is there at the end.
    """

    base: str | None
    changes: list[Transition] = field(default_factory=list)
    trash_ids: list[str] = field(default_factory=list)
    trash_id: str | None = None
    is_stored: bool = True

    @property
    def etags(self) -> list[str | None]:
        return [change.after.etag for change in self.changes]


class _Bucket:
    """The histories of all buckets that had one name, in the order in which they ended."""

    def __init__(self) -> None:
        self.spans: list[_Span] = []
        self._last = ABSENT

    def add(self, record: Record) -> None:
        after, before = record.after, self._last
        self._last = after
        if record.restores is not None:
            self._continue(record, record.restores)
        elif not self.spans or not self.spans[-1].is_stored:
            self.spans.append(_Span(record.base))
        span = self.spans[-1]
        if not after.revision:
            span.is_stored = False
            span.trash_id = None if record.trashed is None else record.trashed.id
            span.trash_ids += [] if span.trash_id is None else [span.trash_id]
            return
        known = before if before.etag == record.base else None
        if record.origin is not None:
            known = _state_before(record, record.origin)
        elif record.base == after.etag:
            # A file that could not be read was restored, which is no change.
            return
        span.changes.append(
            Transition(record.key, known, after, record.author, record.at, record.undoes)
        )

    def _continue(self, record: Record, trash_id: str) -> None:
        """Let the history of a restored bucket go on where it ended."""
        ended = [span for span in self.spans if span.trash_id == trash_id]
        base = None if record.origin is None else record.origin.was[1]
        span = ended[0] if ended else _Span(base, trash_ids=[trash_id])
        self.spans = [one for one in self.spans if one is not span]
        span.is_stored, span.trash_id = True, None
        self.spans.append(span)


def _state_before(record: Record, origin: Origin) -> Snapshot | None:
    """Return the state before a change by what its record says of it; None if not known."""
    (revision, etag), inverse = origin
    if inverse is None or inverse.is_lost:
        return None
    bucket = inverses.take_back(record.after.bucket, inverse)
    return Snapshot(bucket, revision, etag)


def complete(history: HistoryFiles, records: Iterable[Record]) -> None:
    """Complete the histories of all these changes. Raises OSError."""
    buckets: dict[BucketKey, _Bucket] = {}
    for record in records:
        buckets.setdefault(record.key, _Bucket()).add(record)
    for key, bucket in buckets.items():
        try:
            _complete(history, history_files.place_of(key), bucket.spans)
        except OSError as error:
            if not is_forbidden(error):
                raise
            log.error("cannot complete the history of %s: %s", key, error.strerror)


def _complete(history: HistoryFiles, place: Place, spans: list[_Span]) -> None:
    limits = history.limits
    if len(spans) == 1 and spans[0].is_stored and not spans[0].trash_ids:
        span = spans[0]
        if limits and span.changes:
            lines = [line_of(one, limits) for one in span.changes[-limits.revisions :]]
            history.complete(place, lines, Journaled(span.base, span.etags))
        return
    # A crash may have left each of the files in another of these places.
    trash_ids = [trash_id for span in spans for trash_id in span.trash_ids]
    places = [place, *map(history_files.trash_place, dict.fromkeys(trash_ids))]
    found = {etag_of(line): line for one in places for line in history.read(one)}
    wanted = {_place_at_end(place, span): _lines(history, span, found) for span in spans}
    for one in places:
        lines = wanted.get(one, [])
        if lines and lines != history.read(one):
            history.replace(one, lines)
    for one in places:
        if not wanted.get(one):
            history.remove(one)


def _place_at_end(place: Place, span: _Span) -> Place | None:
    """Return where a history is at the end; None if its bucket was deleted for good."""
    if span.trash_id is not None:
        return history_files.trash_place(span.trash_id)
    return place if span.is_stored else None


def _lines(history: HistoryFiles, span: _Span, found: dict[str | None, bytes]) -> list[bytes]:
    """Return all lines of a history: those that lead to its base, and those of the journal."""
    limits, etag = history.limits, span.base
    if not limits:
        return []
    changes = span.changes[-limits.revisions :]
    lines: list[bytes] = []
    while etag in found and len(lines) + len(changes) < limits.revisions:
        lines.append(found[etag])
        etag = etag_before(found[etag])
    return [*reversed(lines), *(line_of(change, limits) for change in changes)]
