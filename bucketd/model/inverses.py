"""Inverses of changes: what takes one back, byte for byte, without parsing what it left alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .document import Document, Members


class Inverse(NamedTuple):
    """The inverse of a change.

    ``changed`` and ``removed``: the earlier JSON of the keys that it changed and removed;
    ``places``: where the removed ones stood; ``added``: the keys that were not there before.
    ``order``: where each of the other keys stands after the change, in their order before it; None
    if the change kept their order. ``is_lost``: the earlier JSON was too large to be
    kept, so only the keys are known, and nothing can be taken back.
    """

    changed: Members
    removed: Members
    places: list[int]
    added: list[str]
    order: list[int] | None = None
    is_lost: bool = False

    @property
    def set_keys(self) -> list[str]:
        """The keys that the change set."""
        return [*self.changed, *self.added]

    @property
    def keys(self) -> list[str]:
        """The keys that the change touched."""
        return [*self.changed, *self.added, *self.removed]

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        values = sum(map(len, self.changed.values())) + sum(map(len, self.removed.values()))
        return values + 4 * sum(map(len, self.added)) + 8 * len(self.order or ())


def invert(old: Members, new: Members) -> Inverse:
    """Return the inverse of the change from the members ``old`` to the members ``new``."""
    changed: Members = {}
    if [*old] == [*new]:
        # Most changes leave the keys in their places, and a busy daemon makes thousands a second.
        for key, was in old.items():
            member = new[key]
            if was is not member and was != member:
                changed[key] = was
        return Inverse(changed, {}, [], [])
    added: list[str] = []
    for key, member in new.items():
        earlier = old.get(key)
        if earlier is None:
            added.append(key)
        elif earlier is not member and earlier != member:
            changed[key] = earlier
    removed: Members = {}
    places: list[int] = []
    if len(old) > len(new) - len(added):
        for place, (key, member) in enumerate(old.items()):
            if key not in new:
                removed[key] = member
                places.append(place)
    return Inverse(changed, removed, places, added, _order(old, new, bool(added or removed)))


def _order(old: Members, new: Members, differ: bool) -> list[int] | None:
    before = [key for key in old if key in new] if differ else [*old]
    after = [key for key in new if key in old] if differ else [*new]
    if before == after:
        return None
    place = {key: number for number, key in enumerate(after)}
    return [place[key] for key in before]


def without_values(inverse: Inverse) -> Inverse:
    """Return which keys a change touched, without what it takes to take it back."""
    set_keys, removed = dict.fromkeys(inverse.set_keys, b""), dict.fromkeys(inverse.removed, b"")
    return Inverse(set_keys, removed, [], [], is_lost=True)


def take_back(now: Document, inverse: Inverse) -> Document:
    """Return the document without the change.

    It is the one before the change, byte for byte, where ``now`` is the one after it; where later
    changes touched other keys, these keep their values and about their places.
    """
    if inverse.is_lost:
        raise ValueError("the values before the change are not known")
    gone, changed = frozenset(inverse.added), inverse.changed
    kept = [(key, changed.get(key, m)) for key, m in now.members.items() if key not in gone]
    order = inverse.order
    if order is not None and len(order) == len(kept):
        kept = [kept[place] for place in order]
    for place, item in zip(inverse.places, inverse.removed.items(), strict=True):
        kept.insert(place, item)
    return Document(None, dict(kept))


def are_untouched(keys: Iterable[str], one: Document, other: Document, by_values: bool) -> bool:
    """Report whether no change lies between two documents that touched one of these keys.

    A value that was set and set back is another object, so it counts as touched. Documents that
    are held as text do not show that: ``by_values`` compares what they have at the keys; without
    it the answer is no.
    """
    if one is other:
        return True
    if one.is_split and other.is_split:
        mine, others = one.members, other.members
        return all(mine.get(key) is others.get(key) for key in keys)
    keys = [*keys]
    return by_values and one.only(keys).text == other.only(keys).text
