"""Files of history: the revisions of each bucket, one on a line, in two segments that take turns.

``<state>/history/devices/…/<job>.0.ndjson`` and ``.1.ndjson``, at the path of the bucket's file; of
a deleted bucket below ``history/trash/``. ``history_lines`` has their format. Of two segments the
one with the higher number is the newer. A segment that holds as many bytes as the history may, or
four times its revisions, is left alone, and the other one is begun anew, so that the newest
revisions within the limits are always there. Lines are only ever appended, and a crash can tear
only what the journal has as well.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from ...fs import errors, files
from ...fs.filenames import SUFFIX
from ...model.bucket import BucketKey
from ...model.revisions import HistoryLimits
from . import history_lines, paths, quarantine
from .history_lines import Segment, etag_of, head_line, line, within

log = logging.getLogger(__name__)
DIRECTORY = "history"
# Of deleted buckets, by their ids in the trash.
TRASH = (DIRECTORY, "trash")
# A segment may have so many times the revisions that are kept.
MORE_LINES = 4
MAX_TAILS = 8192
MAX_OPEN = 128
_SEGMENTS = (0, 1)


class Place(NamedTuple):
    """The place of a history: directories below the state directory, and the stem of its names."""

    parts: tuple[str, ...]
    stem: str

    def name(self, segment: int) -> str:
        return f"{self.stem}.{segment}.ndjson"


class Journaled(NamedTuple):
    """The ETags of the states of a bucket in the journal, in order, and that of the one before."""

    base: str | None
    etags: list[str | None]


class _Tail(NamedTuple):
    """The newer segment of a history: which one, its number, its lines and its bytes."""

    segment: int
    number: int
    lines: int
    size: int


@lru_cache(maxsize=8192)
def place_of(key: BucketKey) -> Place:
    """Return the place of a bucket's history."""
    parts, name = paths.parts(key)
    return Place((DIRECTORY, *parts), name.removesuffix(SUFFIX))


def trash_place(trash_id: str) -> Place:
    """Return the place of the history of a deleted bucket."""
    return Place(TRASH, trash_id)


def remove_at(root: int, place: Place) -> None:
    """Remove the files of a history, if there are any; not durably. Raises OSError."""
    for which in _SEGMENTS:
        try:
            files.remove(root, place.parts, place.name(which), durably=False)
        except OSError as error:
            if not errors.is_obstacle(error):
                raise


class HistoryFiles:
    """The histories below one state directory: one writer, and readers on any thread."""

    def __init__(self, root: int, limits: HistoryLimits) -> None:
        self._root, self.limits = root, limits
        # The end of each history as it was read or written last, so that it is read once.
        self._tails: OrderedDict[Place, _Tail] = OrderedDict()
        # Descriptors of the newer segments that were written last.
        self._open: OrderedDict[Place, int] = OrderedDict()

    def read(self, place: Place) -> list[bytes]:
        """Return the payloads of all valid lines, the oldest first. Raises OSError."""
        return [
            payload
            for _, segment in self._in_order(place)
            for payload in (*segment.payloads, *segment.later)
        ]

    def read_all(self, places: Iterable[Place]) -> list[bytes]:
        """Return the payloads at several places, in their order. Raises OSError."""
        return [payload for place in places for payload in self.read(place)]

    def append(self, place: Place, payloads: Sequence[bytes]) -> None:
        """Append lines, as far as they are within the limits; not durably. Raises OSError."""
        try:
            self._append(place, payloads)
        except OSError as error:
            if not errors.is_obstacle(error):
                raise
            self._set_aside(place)
            self._append(place, payloads)

    def _append(self, place: Place, payloads: Sequence[bytes]) -> None:
        lines = within(payloads, self.limits)
        text = b"".join(lines)
        tail = self._tails.pop(place, None)
        fits = tail is not None and self._fits(tail, lines, text)
        if tail is None or (fits and not self._extend(place, tail, text)):
            # It was not read yet, or another program has changed it.
            tail = self._find_tail(place)
            fits = tail is not None and self._fits(tail, lines, text)
            if tail is not None and fits:
                self._extend(place, tail, text)
        if tail is None or not fits:
            tail, text = self._begin(place, tail, text), b""
        which, number, count, size = tail
        self._remember(place, _Tail(which, number, count + len(lines), size + len(text)))

    def _fits(self, tail: _Tail, lines: list[bytes], text: bytes) -> bool:
        # More lines than are kept: to begin a segment takes as long as ten appends.
        has_room = tail.size + len(text) <= self.limits.bytes
        return has_room and tail.lines + len(lines) <= MORE_LINES * self.limits.revisions

    def _extend(self, place: Place, tail: _Tail, text: bytes) -> bool:
        """Append to the newer segment; return False where it is not as it was left."""
        fd = self._open.pop(place, None)
        try:
            if fd is None:
                fd = files.open_for_append(self._root, place.parts, place.name(tail.segment))
            is_done = files.append(fd, text, tail.size)
        except FileNotFoundError:
            return False
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise
        self._keep_open(place, fd)
        return is_done

    def _keep_open(self, place: Place, fd: int) -> None:
        """Keep a descriptor, since a bucket that is written is mostly written again soon."""
        self._open[place] = fd
        if len(self._open) > MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])

    def _forget(self, place: Place) -> None:
        self._tails.pop(place, None)
        fd = self._open.pop(place, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def _begin(self, place: Place, full: _Tail | None, text: bytes) -> _Tail:
        """Begin the other segment anew with these lines."""
        which, number = (0, 1) if full is None else (1 - full.segment, full.number + 1)
        text = head_line(number) + text
        self._forget(place)
        self._keep_open(place, files.begin(self._root, place.parts, place.name(which), text))
        return _Tail(which, number, 0, len(text))

    def _remember(self, place: Place, tail: _Tail) -> None:
        self._tails[place] = tail
        if len(self._tails) > MAX_TAILS:
            self._tails.popitem(last=False)

    def _find_tail(self, place: Place) -> _Tail | None:
        """Return the end of what is there, once that is whole; None where nothing is there."""
        self._forget(place)
        found = [(which, self._mended(place, which, one)) for which, one in self._in_order(place)]
        if not found:
            return None
        which, segment = found[-1]
        return _Tail(which, segment.number, len(segment.payloads), segment.size)

    def _mended(self, place: Place, which: int, segment: Segment) -> Segment:
        """Return a segment without what was damaged in it, which goes to the quarantine."""
        if not segment.rest:
            return segment
        self._keep_rest(place, which, segment)
        payloads = [*segment.payloads, *segment.later]
        # The number of a segment whose first line is damaged is not known any more.
        return self._rewrite(place, which, Segment(segment.number or 1, payloads, 0))

    def complete(self, place: Place, payloads: Sequence[bytes], journaled: Journaled) -> None:
        """Append the lines that are not there yet, after a crash. Raises OSError.

        ``payloads`` are the newest of the ``journaled`` ones. All lines before those are durable,
        so what is torn or missing is among them.
        """
        try:
            self._complete(place, payloads, journaled)
        except OSError as error:
            if not errors.is_obstacle(error):
                raise
            self._set_aside(place)
            self._append(place, payloads)

    def _complete(self, place: Place, payloads: Sequence[bytes], journaled: Journaled) -> None:
        self._forget(place)
        numbers = {etag: number for number, etag in enumerate(journaled.etags)}
        found = [one for one in self._in_order(place) if not self._is_headless(place, *one)]
        # The number of the journaled line that comes next.
        due = 0
        for at, (which, segment) in enumerate(found):
            kept, due = _follow(segment, numbers, due)
            if kept == len(segment.payloads) and not segment.rest:
                continue
            behind = [*segment.payloads[kept:], *segment.later]
            behind += [line for _, one in found[at + 1 :] for line in (*one.payloads, *one.later)]
            if not numbers.keys() >= set(map(etag_of, behind)):
                # These bytes were durable, so they were damaged, not torn.
                mended = self._mended(place, which, segment)
                due = max([due, *(numbers.get(etag_of(line), -1) + 1 for line in mended.payloads)])
                continue
            last = etag_of(segment.payloads[kept - 1]) if kept else None
            if kept and last not in numbers and last != journaled.base:
                self._keep_rest(place, which, segment)
            for later, _ in found[at + 1 :]:
                files.remove(self._root, place.parts, place.name(later), durably=False)
            self._cut(place, which, segment, kept)
            break
        missing = payloads[max(0, due - len(journaled.etags) + len(payloads)) :]
        if missing:
            self._append(place, missing)

    def _is_headless(self, place: Place, which: int, segment: Segment) -> bool:
        """Remove a segment without its first line, which was torn when it was begun."""
        if segment.number:
            return False
        if segment.later:
            self._keep_rest(place, which, segment)
        files.remove(self._root, place.parts, place.name(which), durably=False)
        return True

    def _cut(self, place: Place, which: int, segment: Segment, kept: int) -> None:
        """Leave the first lines of a segment, or nothing."""
        if kept:
            self._rewrite(place, which, Segment(segment.number, segment.payloads[:kept], 0))
        else:
            files.remove(self._root, place.parts, place.name(which), durably=False)

    def replace(self, place: Place, payloads: Sequence[bytes]) -> None:
        """Let a history have these lines alone, durably. Raises OSError."""
        self._forget(place)
        number = max((segment.number for _, segment in self._in_order(place)), default=0) + 1
        self._rewrite(place, 0, Segment(number, [*payloads], 0))
        files.remove(self._root, place.parts, place.name(1))

    def _in_order(self, place: Place) -> list[tuple[int, Segment]]:
        """Return the segments that are there, the newer one last, each with which one it is."""
        found = zip(_SEGMENTS, self._segments(place), strict=True)
        there = [(which, segment) for which, segment in found if segment is not None]
        return sorted(there, key=lambda one: one[1].number)

    def _keep_rest(self, place: Place, which: int, segment: Segment) -> None:
        quarantine.keep_copy(self._root, f"history-{place.name(which)}", segment.rest)

    def _set_aside(self, place: Place) -> None:
        """Move to the quarantine what stands in the place of the files or their directories."""
        self._forget(place)
        quarantine.move_obstacle(self._root, place.parts)
        for which in _SEGMENTS:
            name = place.name(which)
            kept = quarantine.new_name(place.parts, f"history-{name}")
            quarantine.keep_file(self._root, place.parts, name, kept)
            files.remove(self._root, place.parts, name)

    def _rewrite(self, place: Place, which: int, segment: Segment) -> Segment:
        """Write the lines of a segment anew, durably: they may be nowhere else."""
        text = head_line(segment.number) + b"".join(map(line, segment.payloads))
        files.write(self._root, place.parts, place.name(which), lambda _origin: text)
        return Segment(segment.number, segment.payloads, len(text))

    def rewrite(self, place: Place) -> None:
        """Write a history anew, durably, since the kernel may have lost it. Raises OSError."""
        self._forget(place)
        for which, segment in self._in_order(place):
            self._rewrite(place, which, segment)

    def remove(self, place: Place) -> None:
        """Remove a history, if there is one; not durably. Raises OSError."""
        self._forget(place)
        remove_at(self._root, place)

    def move(self, old: Place, new: Place) -> None:
        """Move a history, if there is one, to where there is none; not durably. Raises OSError."""
        self._forget(old)
        self._forget(new)
        for which in _SEGMENTS:
            files.move(self._root, old.parts, old.name(which), new.parts, new.name(which))

    def _segments(self, place: Place) -> Iterator[Segment | None]:
        """Yield both segments; None for one that is not there, or is empty."""
        for which in _SEGMENTS:
            try:
                text = files.read(self._root, place.parts, place.name(which)).text
            except OSError as error:
                if not (isinstance(error, FileNotFoundError) or errors.is_obstacle(error)):
                    raise
                text = b""
            yield history_lines.parse(text) if text else None


def _follow(segment: Segment, numbers: dict[str | None, int], due: int) -> tuple[int, int]:
    """Return how many lines come before a gap in those with numbers, and the number then due."""
    for count, payload in enumerate(segment.payloads):
        number = numbers.get(etag_of(payload))
        if number is not None:
            if number != due:
                return count, due
            due += 1
    return len(segment.payloads), due
