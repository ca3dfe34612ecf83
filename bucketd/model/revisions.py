"""Revisions of a bucket as its history keeps them: who made one, when, and what takes it back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from . import strict_json
from .author import Author
from .bucket import Snapshot
from .document import Members
from .inverses import Inverse, invert, without_values


class HistoryLimits(NamedTuple):
    """The bounds of a bucket's history, oldest revisions first; 0 keeps none."""

    revisions: int = 64
    bytes: int = 256 * 1024

    def __bool__(self) -> bool:
        return self.revisions > 0 and self.bytes > 0


NO_HISTORY = HistoryLimits(0, 0)
DEFAULT_LIMITS = HistoryLimits()


class Revision(NamedTuple):
    """One change: from the state ``was`` (revision and ETag; 0 and None: no bucket) to ``etag``.

    ``inverse`` is None if the state before was not known, or is too large to be kept.
    ``undoes`` is the revision that this one takes back.
    """

    revision: int
    etag: str
    at: str | None
    was: tuple[int, str | None]
    author: Author
    automation: str | None
    inverse: Inverse | None
    undoes: int | None = None


class History(NamedTuple):
    """A bucket and the changes that led to it, the newest first; each begins where the next ends.

    The iterator decodes each one when it is asked for.
    """

    now: Snapshot
    revisions: Iterator[Revision]


def kept_inverse(old: Members, new: Members, most: int, max_bytes: int) -> Inverse | None:
    """Return the inverse of a change; if it takes more than the history may, without its values.

    It is None if the keys alone take an eighth of that. ``most`` is the size of both states
    together, which the inverse cannot exceed by much.
    """
    inverse = invert(old, new)
    if most <= max_bytes or inverse.size <= max_bytes:
        return inverse
    return without_values(inverse) if sum(map(len, inverse.keys)) <= max_bytes // 8 else None


def encode(
    revision: int,
    etag: str,
    at: str | None,
    was: tuple[int, str | None],
    author: Author,
    automation: str | None,
    inverse: Inverse | None,
    undoes: int | None,
) -> bytes:
    """Return the members of a ``Revision`` as JSON on one line."""
    # One call for all of them: a busy daemon writes thousands of lines a second.
    head = {"revision": revision, "etag": etag, "at": at, "was": was, "automation": automation}
    if undoes is not None:
        head["undoes"] = undoes
    return b'%b,"by":%b,%b}' % (orjson.dumps(head)[:-1], author.json, encode_inverse(inverse))


def encode_inverse(inverse: Inverse | None) -> bytes:
    """Return the members of an inverse, without braces."""
    if inverse is None:
        return b'"before_known":false'
    changed, removed, places, added, order, is_lost = inverse
    if is_lost:
        names = orjson.dumps([inverse.set_keys, [*removed]])
        return b'"before_known":false,"keys":' + names
    text = b'"changed":{%b}' % b",".join(changed.values())
    if added:
        text += b',"added":' + orjson.dumps(added)
    if removed:
        text += b',"removed":{%b},"places":%b' % (
            b",".join(removed.values()),
            orjson.dumps(places),
        )
    if order is not None:
        text += b',"order":' + orjson.dumps(order)
    return text


def decode(text: bytes) -> Revision:
    """Return the revision in a line; raise ValueError, KeyError or TypeError for any other text."""
    value = orjson.loads(text)
    was_revision, was_etag = value["was"]
    return Revision(
        value["revision"],
        value["etag"],
        value["at"],
        (was_revision, was_etag),
        Author.read(value["by"]),
        value["automation"],
        decode_inverse(value),
        value.get("undoes"),
    )


def decode_inverse(value: dict[str, Any]) -> Inverse | None:
    """Return the inverse in an object; None where it is not kept."""
    if "keys" in value:
        set_keys, removed = value["keys"]
        return Inverse(
            dict.fromkeys(set_keys, b""), dict.fromkeys(removed, b""), [], [], None, True
        )
    if "changed" not in value:
        return None
    return Inverse(
        _split(value["changed"]),
        _split(value.get("removed")),
        value.get("places", []),
        value.get("added", []),
        value.get("order"),
    )


def _split(values: dict[str, Any] | None) -> Members:
    return strict_json.split(values) if values else {}


def chain(now: Snapshot, lines: Iterable[bytes], limits: HistoryLimits) -> Iterator[Revision]:
    """Yield the revisions that lead to ``now``, the newest first, within the limits.

    ``lines`` come with the newest first, too; they may begin with later ones, and have some twice.
    The chain ends where a line does not lead to the state in which the one before begins.
    """
    etag, size, seen = now.etag, 0, set[str]()
    for text in lines:
        if etag is None or len(seen) == limits.revisions:
            return
        try:
            found = decode(text)
        except (ValueError, KeyError, TypeError):
            return
        if found.etag != etag:
            # Later changes than the state come first.
            if not seen or found.etag in seen:
                continue
            return
        size += len(text)
        if seen and size > limits.bytes:
            return
        yield found
        seen.add(etag)
        etag = found.was[1]
