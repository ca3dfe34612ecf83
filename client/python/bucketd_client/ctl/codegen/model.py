"""The types of a schema, in the form that both printers take; how types combine.

A type describes what may be stored, a little wider than the schema where a type cannot be as exact
as a value: lengths, ranges and patterns are left out. A type is never narrower than the schema,
except that an object with named keys has no others unless the schema says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Callable, Union

MAX_ALTERNATIVES = 24


@dataclass(frozen=True)
class Unknown:
    """Any JSON value."""


@dataclass(frozen=True)
class Never:
    """No value at all."""


@dataclass(frozen=True)
class Primitive:
    """``string``, ``number``, ``integer``, ``boolean`` or ``null``."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A string, number or boolean; ``text`` is its JSON, which distinguishes 1 from true."""

    text: str

    @property
    def value(self) -> str | int | float | bool:
        value: str | int | float | bool = json.loads(self.text)
        return value

    @property
    def kind(self) -> str:
        kinds = {str: "string", bool: "boolean", int: "integer", float: "number"}
        return kinds[type(self.value)]


@dataclass(frozen=True)
class Array:
    """An array; ``implied`` if the schema does not demand that the value is an array."""

    items: Type
    implied: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Tuple:
    """An array whose first items have types of their own; at least ``required`` items exist.

    ``rest`` is the type of all further items, None if there are no others.
    """

    items: tuple[Type, ...]
    rest: Type | None
    required: int = 0
    implied: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Notes:
    """The comment on a type or a key."""

    text: str = ""
    format: str = ""
    default: str = ""
    deprecated: bool = False


@dataclass(frozen=True)
class Field:
    """A key of an object."""

    key: str
    type: Type
    required: bool
    notes: Notes = field(default_factory=Notes, compare=False)


@dataclass(frozen=True)
class Object:
    """An object; ``rest`` is the type of keys that no field names, None if there are no others.

    ``source`` is the keyword that allows others, and its place.
    """

    fields: tuple[Field, ...]
    rest: Type | None
    implied: bool = field(default=False, compare=False)
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Alternatives:
    """A union: a value has one of these types, of which there are at least two."""

    members: tuple[Type, ...]


@dataclass(frozen=True)
class Reference:
    """The definition at this place of the schema, such as ``#/$defs/address``."""

    target: str


Type = Union[
    Unknown, Never, Primitive, Literal, Array, Tuple, Object, Alternatives, Reference
]  # fmt: skip


@dataclass(frozen=True)
class Definition:
    """A type with a name of its own."""

    name: str
    type: Type
    notes: Notes


@dataclass(frozen=True)
class Model:
    """All types of a bucket: its own, and definitions by their places in the schema.

    ``completed`` has the optional keys that a bucket has once defaults have completed it.
    """

    name: str
    bucket: Object
    notes: Notes
    definitions: Mapping[str, Definition]
    completed: frozenset[str] = frozenset()


def union(types: Iterable[Type]) -> Type:
    """Return the type of a value that has one of these types."""
    members: dict[Type, None] = {}
    for each in types:
        members.update(dict.fromkeys(each.members if isinstance(each, Alternatives) else [each]))
    members.pop(Never(), None)
    if Unknown() in members:
        return Unknown()
    if {Literal("true"), Literal("false")} <= members.keys():
        members = {Primitive("boolean"): None, **members}
    kept = [each for each in members if not _is_covered(each, members)]
    return Alternatives(tuple(kept)) if len(kept) > 1 else kept[0] if kept else Never()


def _is_covered(each: Type, members: Mapping[Type, None]) -> bool:
    """Report whether a more general primitive of the union includes this one."""
    if isinstance(each, Literal):
        kinds = {each.kind, "number"} if each.kind == "integer" else {each.kind}
        return any(Primitive(kind) in members for kind in kinds)
    return each == Primitive("integer") and Primitive("number") in members


class TooComplex(Exception):
    """The types combine in too many ways, or endlessly."""


class Intersection:
    """Combine types that a value must have all.

    ``resolve`` returns the type of a reference, None while that is being parsed.
    """

    def __init__(self, resolve: Callable[[Reference], Type | None]) -> None:
        self._resolve = resolve
        # The pairs being combined, since recursive types would combine endlessly.
        self._pairs: set[tuple[Type, Type]] = set()

    def of(self, one: Type, other: Type) -> Type | None:
        """Return the type of a value that has both types; None if that is too complex."""
        try:
            return self._both(one, other)
        except TooComplex:
            return None

    def of_any(self, one: Type, others: list[Type]) -> Type | None:
        """Return the type of a value that has one type, and any of the others.

        A value of unknown type is one alternative here, which does not hide the others.
        """
        members = _members(one)
        if len(members) > 1 and len(members) * len(others) > MAX_ALTERNATIVES:
            objects = [each for each in members if isinstance(each, Object)]
            if len(objects) == len(members):
                # A wider object stands for all of them.
                one = merged(objects)
            elif not _are_scalars(*others):
                return None
        found = [self.of(one, other) for other in others]
        return None if None in found else union([each for each in found if each is not None])

    def _both(self, one: Type, other: Type) -> Type:
        if one == other or isinstance(other, Unknown) or isinstance(one, Never):
            return one
        if isinstance(one, Unknown) or isinstance(other, Never):
            return other
        if isinstance(one, Reference) or isinstance(other, Reference):
            return self._resolved(one, other)
        if isinstance(one, Alternatives) or isinstance(other, Alternatives):
            return self._alternatives(_members(one), _members(other))
        if isinstance(one, Object) and isinstance(other, Object):
            return self._objects(one, other)
        if isinstance(one, (Array, Tuple)) and isinstance(other, (Array, Tuple)):
            return self._arrays(one, other)
        if isinstance(one, (Primitive, Literal)) and isinstance(other, (Primitive, Literal)):
            return _scalars(one, other)
        return _of_two_kinds(one, other)

    def _resolved(self, one: Type, other: Type) -> Type:
        for each, bare in ((one, other), (other, one)):
            if isinstance(each, Reference) and bare in (Object((), Unknown()), Array(Unknown())):
                # To say beside a reference that it is an object, or an array, adds nothing.
                return each
        pair = (one, other)
        if pair in self._pairs:
            raise TooComplex
        self._pairs.add(pair)
        try:
            return self._both(self._content(one), self._content(other))
        finally:
            self._pairs.discard(pair)

    def _content(self, type: Type) -> Type:
        content = self._resolve(type) if isinstance(type, Reference) else type
        if content is None:
            raise TooComplex
        return content

    def _alternatives(self, ones: tuple[Type, ...], others: tuple[Type, ...]) -> Type:
        if len(ones) * len(others) > MAX_ALTERNATIVES and not _are_scalars(*ones, *others):
            raise TooComplex
        return union([self._both(one, other) for one in ones for other in others])

    def _objects(self, one: Object, other: Object) -> Object:
        fields = {each.key: each for each in one.fields}
        for each in other.fields:
            known = fields.get(each.key)
            fields[each.key] = each if known is None else self._fields(known, each)
        rest = None
        if one.rest is not None and other.rest is not None:
            rest = self._both(one.rest, other.rest)
        implied, source = one.implied and other.implied, one.source or other.source
        return Object(tuple(fields.values()), rest, implied, source)

    def _fields(self, one: Field, other: Field) -> Field:
        notes = one.notes if one.notes != Notes() else other.notes
        required = one.required or other.required
        return Field(one.key, self._both(one.type, other.type), required, notes)

    def _arrays(self, one: Array | Tuple, other: Array | Tuple) -> Type:
        implied = one.implied and other.implied
        if isinstance(one, Array) and isinstance(other, Array):
            return Array(self._both(one.items, other.items), implied)
        if isinstance(one, Array):
            one, other = other, one
        if isinstance(one, Tuple) and isinstance(other, Array):
            items = tuple(self._both(item, other.items) for item in one.items)
            rest = None if one.rest is None else self._both(one.rest, other.items)
            return Tuple(items, rest, one.required, implied)
        # Two lists of item types are rare; the first one is right for every value.
        return one


def _members(type: Type) -> tuple[Type, ...]:
    return type.members if isinstance(type, Alternatives) else (type,)


def _are_scalars(*types: Type) -> bool:
    members = [member for each in types for member in _members(each)]
    return all(isinstance(each, (Primitive, Literal)) for each in members)


def _scalars(one: Primitive | Literal, other: Primitive | Literal) -> Type:
    """Return the narrower of two scalars, Never if they have no value in common."""
    for narrow, wide in ((one, other), (other, one)):
        if isinstance(wide, Primitive) and narrow != wide:
            kind = narrow.kind if isinstance(narrow, Literal) else narrow.name
            if kind == wide.name or (kind, wide.name) == ("integer", "number"):
                return narrow
    return Never()


def _of_two_kinds(one: Type, other: Type) -> Type:
    """Return the type that the schema demands, if it only implies the other one."""
    if isinstance(other, (Object, Array, Tuple)) and other.implied:
        return one
    if isinstance(one, (Object, Array, Tuple)) and one.implied:
        return other
    return Never()


def merged(objects: list[Object]) -> Object:
    """Return one object that includes all alternatives; a key is required if it is in all."""
    fields: dict[str, Field] = {}
    for each in objects:
        for new in each.fields:
            known = fields.get(new.key, new)
            fields[new.key] = replace(known, type=union([known.type, new.type]))
    required = [{each.key for each in one.fields if each.required} for one in objects]
    common = set[str]().union(*required).intersection(*required)
    rests = [each.rest for each in objects if each.rest is not None]
    return Object(
        tuple(replace(each, required=each.key in common) for each in fields.values()),
        union(rests) if rests else None,
        source=next((each.source for each in objects if each.source), ""),
    )
