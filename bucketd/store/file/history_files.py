"""Files of history: the revisions of each bucket, one on a line, in two segments that take turns.

``<state>/history/devices/…/<job>.0.ndjson`` and ``.1.ndjson``, at the path of the bucket's file. A
line is the CRC-32 of the rest of it in hex, a blank, and JSON. The first line of a segment numbers
it: of two segments the one with the higher number is the newer. A segment that holds as much as the
history may is left alone, and the other one is begun anew, so that the newest revisions within the
limits are always there. Lines are only ever appended, and only the end of the newer segment can be
torn by a crash.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson

from ...fs import errors, files
from ...fs.filenames import SUFFIX
from ...model.bucket import BucketKey
from ...model.revisions import HistoryLimits
from . import paths, quarantine

log = logging.getLogger(__name__)
DIRECTORY = "history"
MAX_TAILS = 8192
_SEGMENTS = (0, 1)


class Place(NamedTuple):
    """Where a history lies: directories below the state directory, and the begin of its names."""

    parts: tuple[str, ...]
    stem: str

    def name(self, segment: int) -> str:
        return f"{self.stem}.{segment}.ndjson"


class _Tail(NamedTuple):
    """The newer segment of a history: which one, its number, its lines and its bytes."""

    segment: int
    number: int
    lines: int
    size: int


class _Segment(NamedTuple):
    """The content of a segment: the payloads of its lines up to the first that is not valid, how
    many bytes these take, and what follows them, of which ``later`` is valid.

    Number 0: the first line is not valid.
    """

    number: int
    payloads: list[bytes]
    size: int
    rest: bytes = b""
    later: tuple[bytes, ...] = ()


def place_of(key: BucketKey) -> Place:
    """Return the place of a bucket's history."""
    parts, name = paths.parts(key)
    return Place((DIRECTORY, *parts), name.removesuffix(SUFFIX))


class HistoryFiles:
    """The histories below one state directory: one writer, and readers on any thread."""

    def __init__(self, root: int, limits: HistoryLimits) -> None:
        self._root, self.limits = root, limits
        # What was found or written at the end of each history, so that it is read once.
        self._tails: OrderedDict[Place, _Tail] = OrderedDict()

    def read(self, place: Place) -> list[bytes]:
        """Return the payloads of all valid lines, the oldest first. Raises OSError."""
        return [
            payload
            for _, segment in self._in_order(place)
            for payload in (*segment.payloads, *segment.later)
        ]

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
        lines = _within(payloads, self.limits)
        text = b"".join(lines)
        tail = self._tails.pop(place, None)
        if tail is None or not self._fits(tail, lines, text) or not self._extend(place, tail, text):
            tail = self._find_tail(place)
            if tail is None or not self._fits(tail, lines, text):
                tail = self._begin(place, tail, text)
                text = b""
            else:
                self._extend(place, tail, text)
        self._remember(place, _Tail(*tail[:2], tail.lines + len(lines), tail.size + len(text)))

    def _fits(self, tail: _Tail, lines: list[bytes], text: bytes) -> bool:
        has_room = tail.size + len(text) <= self.limits.bytes
        return has_room and tail.lines + len(lines) <= self.limits.revisions

    def _extend(self, place: Place, tail: _Tail, text: bytes) -> bool:
        """Append to the newer segment; return False where it is not as it was left."""
        try:
            name = place.name(tail.segment)
            return files.append(self._root, place.parts, name, text, tail.size)
        except FileNotFoundError:
            return False

    def _begin(self, place: Place, full: _Tail | None, text: bytes) -> _Tail:
        """Begin the other segment anew with these lines."""
        which, number = (0, 1) if full is None else (1 - full.segment, full.number + 1)
        text = _head(number) + text
        files.begin(self._root, place.parts, place.name(which), text)
        return _Tail(which, number, 0, len(text))

    def _remember(self, place: Place, tail: _Tail) -> None:
        self._tails[place] = tail
        if len(self._tails) > MAX_TAILS:
            self._tails.popitem(last=False)

    def _find_tail(self, place: Place) -> _Tail | None:
        """Return the end of what is there, once that is whole; None where nothing is there."""
        found = [(which, self._mended(place, which, one)) for which, one in self._in_order(place)]
        if not found:
            return None
        which, segment = found[-1]
        return _Tail(which, segment.number, len(segment.payloads), segment.size)

    def _mended(self, place: Place, which: int, segment: _Segment) -> _Segment:
        """Return a segment without what was damaged in it, which goes to the quarantine."""
        if not segment.rest:
            return segment
        self._keep_rest(place, which, segment)
        payloads = [*segment.payloads, *segment.later]
        return self._rewrite(place, which, _Segment(segment.number, payloads, 0))

    def complete(
        self, place: Place, payloads: Sequence[bytes], journaled: frozenset[str | None]
    ) -> None:
        """Append the lines that are not there yet, after a crash. Raises OSError.

        ``journaled`` has the ETags of all states that the journal knows, the first of which is
        durable here with all before it. So what is torn comes after one of them.
        """
        try:
            self._complete(place, payloads, journaled)
        except OSError as error:
            if not errors.is_obstacle(error):
                raise
            self._set_aside(place)
            self._append(place, payloads)

    def _complete(
        self, place: Place, payloads: Sequence[bytes], journaled: frozenset[str | None]
    ) -> None:
        self._tails.pop(place, None)
        etags = [_etag(payload) for payload in payloads]
        found = self._in_order(place)
        there: set[str | None] = set()
        for at, (which, segment) in enumerate(found):
            if segment.number == 0:
                # It was torn when it was begun, or it is damaged.
                if segment.later:
                    self._keep_rest(place, which, segment)
                files.remove(self._root, place.parts, place.name(which), durably=False)
                continue
            there.update(map(_etag, segment.payloads))
            if not segment.rest:
                continue
            behind = [
                *segment.later,
                *(line for _, one in found[at + 1 :] for line in one.payloads),
            ]
            if not journaled.issuperset(map(_etag, behind)):
                # These bytes were durable, so they were damaged, not torn.
                there.update(map(_etag, self._mended(place, which, segment).payloads))
                continue
            if segment.payloads and _etag(segment.payloads[-1]) not in journaled:
                self._keep_rest(place, which, segment)
            for later, _ in found[at + 1 :]:
                files.remove(self._root, place.parts, place.name(later), durably=False)
            self._rewrite(place, which, segment)
            break
        known = [number for number, etag in enumerate(etags) if etag in there]
        missing = payloads[known[-1] + 1 :] if known else payloads
        if missing:
            self._append(place, missing)

    def begin_anew(self, place: Place, payloads: Sequence[bytes]) -> None:
        """Append the lines that are not there yet, and let no others be. Raises OSError."""
        etags: frozenset[str | None] = frozenset(map(_etag, payloads))
        if not all(_etag(payload) in etags for payload in self.read(place)):
            self.remove(place)
        if payloads:
            self.complete(place, payloads, etags)

    def _in_order(self, place: Place) -> list[tuple[int, _Segment]]:
        """Return the segments that are there, the newer one last, each with which one it is."""
        found = zip(_SEGMENTS, self._segments(place), strict=True)
        there = [(which, segment) for which, segment in found if segment is not None]
        return sorted(there, key=lambda one: one[1].number)

    def _keep_rest(self, place: Place, which: int, segment: _Segment) -> None:
        quarantine.keep_copy(self._root, f"history-{place.name(which)}", segment.rest)

    def _set_aside(self, place: Place) -> None:
        """Move to the quarantine what stands in the place of the files or their directories."""
        self._tails.pop(place, None)
        quarantine.move_obstacle(self._root, place.parts)
        for which in _SEGMENTS:
            name = place.name(which)
            kept = quarantine.new_name(place.parts, f"history-{name}")
            quarantine.keep_file(self._root, place.parts, name, kept)
            files.remove(self._root, place.parts, name)

    def _rewrite(self, place: Place, which: int, segment: _Segment) -> _Segment:
        """Write the lines of a segment anew, durably: they may be nowhere else."""
        text = _head(segment.number) + b"".join(map(_line, segment.payloads))
        files.write(self._root, place.parts, place.name(which), lambda _origin: text)
        return _Segment(segment.number, segment.payloads, len(text))

    def rewrite(self, place: Place) -> None:
        """Write a history anew, durably, since the kernel may have lost it. Raises OSError."""
        self._tails.pop(place, None)
        for which, segment in self._in_order(place):
            self._rewrite(place, which, segment)

    def remove(self, place: Place) -> None:
        """Remove a history, if there is one; not durably. Raises OSError."""
        self._tails.pop(place, None)
        for which in _SEGMENTS:
            with contextlib.suppress(NotADirectoryError):
                files.remove(self._root, place.parts, place.name(which), durably=False)

    def move(self, old: Place, new: Place) -> None:
        """Move a history, if there is one, to where there is none; not durably. Raises OSError."""
        self._tails.pop(old, None)
        self._tails.pop(new, None)
        for which in _SEGMENTS:
            files.move(self._root, old.parts, old.name(which), new.parts, new.name(which))

    def _segments(self, place: Place) -> Iterator[_Segment | None]:
        """Yield both segments; None for one that is not there."""
        for which in _SEGMENTS:
            try:
                yield _parse(files.read(self._root, place.parts, place.name(which)).text)
            except FileNotFoundError:
                yield None


def _parse(text: bytes) -> _Segment:
    # What follows the last line feed is no line.
    lines = text.split(b"\n")[:-1]
    head = _payload(lines[0]) if lines else None
    if head is None or not head.startswith(b'{"segment":'):
        return _Segment(0, [], 0, text, _valid(lines))
    payloads: list[bytes] = []
    size = len(lines[0]) + 1
    for number, line in enumerate(lines[1:], 1):
        payload = _payload(line)
        if payload is None:
            rest = text[size:]
            return _Segment(_number(head), payloads, size, rest, _valid(lines[number:]))
        payloads.append(payload)
        size += len(line) + 1
    return _Segment(_number(head), payloads, size, text[size:])


def _number(head: bytes) -> int:
    return int(orjson.loads(head)["segment"])


def _valid(lines: list[bytes]) -> tuple[bytes, ...]:
    return tuple(payload for line in lines if (payload := _payload(line)) is not None)


def _head(number: int) -> bytes:
    return _line(b'{"segment":%d}' % number)


def _etag(payload: bytes) -> str | None:
    found = orjson.loads(payload).get("etag")
    return found if isinstance(found, str) else None


def _line(payload: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def _payload(line: bytes) -> bytes | None:
    """Return the JSON of a line; None where its checksum does not hold."""
    payload = line[9:]
    return payload if line[:9] == b"%08x " % zlib.crc32(payload) and payload else None


def _within(payloads: Sequence[bytes], limits: HistoryLimits) -> list[bytes]:
    """Return the newest lines within the limits; the newest one in any case."""
    lines: list[bytes] = []
    size = 0
    for payload in reversed(payloads[-limits.revisions :]):
        line = _line(payload)
        size += len(line)
        if lines and size > limits.bytes:
            break
        lines.append(line)
    return lines[::-1]
