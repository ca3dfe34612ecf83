"""The format of a history's files: lines with checksums, in segments with numbers.

A line is the CRC-32 of the rest of it in hex, a blank, and JSON. The first line of a segment has
its number, each other one is a revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from ...model.revisions import HistoryLimits


class Segment(NamedTuple):
    """The content of a segment: the payloads of its lines up to the first that is not valid, how
    many bytes these take, and what follows them, of which ``later`` is valid.

    Number 0: the first line is not valid.
    """

    number: int
    payloads: list[bytes]
    size: int
    rest: bytes = b""
    later: tuple[bytes, ...] = ()


def parse(text: bytes) -> Segment:
    """Return the content of a segment."""
    # The text after the last line feed is no line.
    lines = text.split(b"\n")[:-1]
    segment = _number(_payload(lines[0]) if lines else None)
    if not segment:
        return Segment(0, [], 0, text, _valid(lines))
    payloads: list[bytes] = []
    size = len(lines[0]) + 1
    for number, one in enumerate(lines[1:], 1):
        payload = _payload(one)
        if payload is None:
            rest = text[size:]
            return Segment(segment, payloads, size, rest, _valid(lines[number:]))
        payloads.append(payload)
        size += len(one) + 1
    return Segment(segment, payloads, size, text[size:])


def _number(head: bytes | None) -> int:
    """Return the number in the first line of a segment; 0 for any other text."""
    match _parsed(head or b""):
        case {"segment": int(number)}:
            return number
    return 0


def _parsed(payload: bytes) -> Any:
    """Return the value of a payload; None where another program wrote no JSON."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None


def _valid(lines: list[bytes]) -> tuple[bytes, ...]:
    return tuple(payload for one in lines if (payload := _payload(one)) is not None)


def head_line(number: int) -> bytes:
    """Return the first line of a segment."""
    return line(b'{"segment":%d}' % number)


def etag_of(payload: bytes) -> str | None:
    """Return the ETag of the state that a line leads to."""
    match _parsed(payload):
        case {"etag": str(etag)}:
            return etag
    return None


def etag_before(payload: bytes) -> str | None:
    """Return the ETag of the state that a line begins with; None if there is none."""
    match _parsed(payload):
        case {"was": [_, str(etag)]}:
            return etag
    return None


def line(payload: bytes) -> bytes:
    """Return a line with its checksum."""
    return b"%08x %b\n" % (crc32(payload), payload)


def _payload(text: bytes) -> bytes | None:
    """Return the JSON of a line; None where its checksum does not hold."""
    payload = text[9:]
    return payload if text[:9] == b"%08x " % crc32(payload) and payload else None


def within(payloads: Sequence[bytes], limits: HistoryLimits) -> list[bytes]:
    """Return the newest lines within the limits; the newest one in any case."""
    lines = [line(payload) for payload in payloads[-limits.revisions :]]
    size, first = sum(map(len, lines)), 0
    while size > limits.bytes and first < len(lines) - 1:
        size -= len(lines[first])
        first += 1
    return lines[first:]
