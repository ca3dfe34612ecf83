"""A bucket's content: its keys in order, each with the JSON of its value as it will be sent.

A change of one key touches the JSON of that key alone, however large the others are. Whatever
needs values parses them, and keeps them no longer than that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from . import strict_json

# "key":value, by key.
Members = dict[str, bytes]
# A document with more or smaller members is held as text. A member takes MEMBER_BYTES more than in
# the text, and to join very many of them for each response would take long.
FEW_MEMBERS, MAX_MEMBERS = 32, 1000
MEMBER_BYTES = 128
LARGE_BYTES = 16 * 1024


class Document:
    """A JSON object, compact and immutable; held as one text, or by members once those are used."""

    __slots__ = ("_members", "_text", "size")

    def __init__(self, text: bytes | None, members: Members | None = None) -> None:
        self._text, self._members = text, members
        # In bytes, as compact JSON.
        self.size = _size(members or {}) if text is None else len(text)
        if members is not None and not _are_kept(len(members), self.size):
            self._text, self._members = self.text, None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Document:
        """Return the document with these values; raise InvalidJson for what cannot be kept."""
        text = strict_json.dumps(values)
        if len(text) >= LARGE_BYTES and _are_kept(len(values), len(text)):
            # To split a large document later would parse it again.
            return cls(None, strict_json.split(values))
        return cls(text)

    @property
    def text(self) -> bytes:
        """The compact JSON."""
        return b"".join(self.pieces)

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The compact JSON in pieces, to be joined with what is around it: each copy takes time."""
        text, members = self._text, self._members
        if members is None:
            return (text or b"{}",)
        if not members:
            return (b"{}",)
        pieces = [b"{"]
        for member in members.values():
            pieces += (member, b",")
        pieces[-1] = b"}"
        return tuple(pieces)

    @property
    def memory(self) -> int:
        """About how many bytes it takes in memory."""
        return self.size + MEMBER_BYTES * len(self._members or ())

    @property
    def is_split(self) -> bool:
        """Report whether the members are at hand, without parsing anything."""
        return self._members is not None

    @property
    def members(self) -> Members:
        """The JSON of each member, by its key; not to be changed."""
        if self._members is not None:
            return self._members
        many = self._many()
        return self._members or {} if many is None else strict_json.split(many)

    def values(self) -> dict[str, Any]:
        """Return the bucket as Python values, parsed anew."""
        values: dict[str, Any] = orjson.loads(self.text)
        return values

    def _many(self) -> dict[str, Any] | None:
        """Return the values where they are too many to be split; else split them."""
        if self._members is not None:
            return None
        values = self.values()
        if not _are_kept(len(values), self.size):
            return values
        self._members = strict_json.split(values)
        # The text would be a second form of the same.
        self._text = None
        return None

    def value(self, key: str) -> Any:
        """Return the value of one key, parsed anew; None where it is not there."""
        return self.only([key]).values().get(key)

    def only(self, keys: Iterable[str]) -> Document:
        """Return the document with those of these keys that it has, in the order of ``keys``."""
        many = self._many()
        if many is not None:
            return Document.of({key: many[key] for key in keys if key in many})
        members = self.members
        return Document(None, {key: members[key] for key in keys if key in members})

    def changed(self, set_: Members, removed: Iterable[str] = ()) -> Document:
        """Return the document with these members set and removed; others stay where they are.

        It is this very document where nothing changes.
        """
        many = self._many()
        if many is not None:
            return self._changed_by_values(many, set_, removed)
        members = self.members
        new = {k: m for k, m in set_.items() if k not in members or not _same(members[k], m)}
        gone = {key for key in removed if key in members}
        if not new and not gone:
            return self
        result = members | new
        for key in gone:
            del result[key]
        return Document(None, result)

    def _changed_by_values(
        self, values: dict[str, Any], set_: Members, removed: Iterable[str]
    ) -> Document:
        given = orjson.loads(b"{%b}" % b",".join(set_.values()))
        new = _differing(given, values)
        gone = {key for key in removed if key in values}
        if not new and not gone:
            return self
        values |= new
        for key in gone:
            del values[key]
        return Document.of(values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and (self is other or self.text == other.text)

    __hash__ = None  # type: ignore[assignment]

    def same(self, other: Document) -> bool:
        """Report whether both hold the same value, in any order of keys."""
        if self is other:
            return True
        if self.size != other.size:
            return False
        one, two = self._members, other._members
        if one is None or two is None:
            return strict_json.same(self.text, other.text)
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)

    def difference_from(self, before: Document) -> tuple[Members, list[str]]:
        """Return the members that were set since ``before``, and the keys that were removed."""
        now, was = self._many(), before._many()
        if now is not None or was is not None:
            now, was = now or self.values(), was or before.values()
            return strict_json.split(_differing(now, was)), [key for key in was if key not in now]
        old, new = before.members, self.members
        set_ = {k: m for k, m in new.items() if k not in old or not _same(old[k], m)}
        return set_, [key for key in old if key not in new]


def _are_kept(count: int, size: int) -> bool:
    return count <= FEW_MEMBERS or (count <= MAX_MEMBERS and count * MEMBER_BYTES <= size)


def _differing(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in new.items() if k not in old or not strict_json.equal(old[k], v)}


EMPTY = Document(b"{}")


def _same(one: bytes, other: bytes) -> bool:
    """Report whether two members of one key hold the same value, in any order of keys."""
    if one is other or one == other:
        return True
    return len(one) == len(other) and strict_json.same(b"{%b}" % one, b"{%b}" % other)


def _size(members: Members) -> int:
    return 2 + sum(map(len, members.values())) + max(0, len(members) - 1)
