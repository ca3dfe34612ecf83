"""Tell the violations that a write makes from those that stood in the stored bucket before it.

A violation stood before if the stored bucket has the same one: the same keyword at the same place
of the schema and of the bucket, and the part of the bucket that it depends on is unchanged.

    keyword                                        the part that has to be unchanged
    required                                       nothing: the key was absent, and still is
    dependentRequired                              no further key that demands the absent one
    additionalProperties, unevaluatedProperties    the value of each key that is not allowed
    propertyNames                                  nothing: the key was there, and still is
    minProperties, maxProperties                   not fewer keys, not more keys
    anyOf, oneOf, not; then or else false          the keys that the subschemas name, if they
                                                   look at named keys alone; else the whole value
    all others (type, enum, minimum, maxItems, …)  the whole value

An item of an array has no name, and may have moved. So an index counts as any index of its array,
an object within an array has to be unchanged as a whole, and each violation that stood before
excuses one violation after the write: a copy of an invalid item is a new violation.

A violation below allOf, then, else, dependentSchemas or $ref is one of the keyword there. The
place in the schema includes the way through these, so a condition that holds only now, or an
else in place of a then, makes new violations.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from .references import resolve

Path = tuple[str | int, ...]
_NOWHERE = object()
# Keywords that cannot fail for one object and hold for another one, or say nothing about objects.
_SAME_FOR_ALL_OBJECTS = frozenset((
    "$anchor", "$comment", "$defs", "$schema", "contains", "contentEncoding", "contentMediaType",
    "contentSchema", "default", "definitions", "deprecated", "description", "examples",
    "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxContains", "maxItems",
    "maxLength", "maximum", "minContains", "minItems", "minLength", "minimum", "multipleOf",
    "pattern", "prefixItems", "readOnly", "title", "type", "unevaluatedItems", "uniqueItems",
    "writeOnly",
))  # fmt: skip
# Keywords that name keys, those that apply subschemas, and all whose effect on objects is known.
_NAMES = ("required", "properties", "dependentRequired", "dependentSchemas")
_LISTS, _ONE = ("allOf", "anyOf", "oneOf"), ("not", "if", "then", "else")
_KNOWN = _SAME_FOR_ALL_OBJECTS.union(_NAMES, _LISTS, _ONE, ["$ref"])


class Part(NamedTuple):
    """A violation, or what it says about one key, ``name``.

    ``place`` identifies it but for indices of arrays, ``path`` is where it is exactly, and
    ``value`` is what has to be unchanged.
    """

    place: tuple[Any, ...]
    path: Path
    value: bytes
    name: str | None


class Names(NamedTuple):
    """The keys about which one violation is new, and those about which it stood before.

    A violation that is not about single keys has None as its only key.
    """

    new: list[str | None]
    stood: list[str | None]


class Ratchet:
    """Compare the violations of two states of a bucket by one schema."""

    def __init__(self, schema: Any, before: Any, after: Any) -> None:
        self._schema, self._before, self._after = schema, before, after
        self._dumped: dict[int, bytes] = {}
        self._keys_of: dict[Path, frozenset[str] | None] = {}

    def compare(self, stood: Iterable[Any], found: Iterable[Any]) -> list[tuple[Any, Names]]:
        """Return each error ``found`` after the write, with what of it is new.

        ``stood`` and ``found`` are all errors of the library for both states.
        """
        # By place and value, how many violations of the stored bucket have each path.
        left: dict[tuple[Any, bytes], Counter[Path]] = defaultdict(Counter)
        for error in stood:
            for part in self._parts(error, self._before):
                left[part.place, part.value][part.path] += 1
        result: list[tuple[Any, Names]] = []
        moved: list[tuple[Part, Names]] = []
        for error in found:
            names = Names([], [])
            result.append((error, names))
            for part in self._parts(error, self._after):
                if _take(left.get((part.place, part.value)), part.path):
                    names.stood.append(part.name)
                else:
                    moved.append((part, names))
        # Violations at their old places come first, so that the copy of an item is named rather
        # than the item itself.
        for part, names in moved:
            paths = left.get((part.place, part.value))
            is_old = _take(paths, next(iter(paths))) if paths else False
            (names.stood if is_old else names.new).append(part.name)
        return result

    def _parts(self, error: Any, bucket: Any) -> Iterable[Part]:
        keyword, path = error.kind.name, tuple(error.instance_path)
        location: Path = tuple(error.evaluation_path)
        value = _at(bucket, path)
        absent = error.kind.property if keyword == "required" else None
        indexless = tuple(None if isinstance(step, int) else step for step in path)
        place = (keyword, location, indexless, absent)
        if value is _NOWHERE:
            yield Part(place, path, b"before" if bucket is self._before else b"after", None)
            return
        was = None if indexless != path else _at(self._before, path)
        by_name = _names(error, keyword, location, value)
        if by_name is None:
            part = self._part(keyword, location, absent, value, was)
            yield Part(place, path, part, None)
            return
        for name in by_name:
            if not isinstance(was, dict):
                part = self._dump(value)
            elif keyword == "propertyNames" or _ends_in(location, "propertyNames"):
                part = b""
            else:
                part = self._dump(value[name])
            yield Part((*place, name), path, part, name)

    def _part(self, keyword: str, location: Path, absent: Any, value: Any, was: Any) -> bytes:
        """Return what has to be unchanged; ``was`` is the stored object at the same place."""
        if not isinstance(value, dict) or not isinstance(was, dict):
            return self._dump(value)
        no_worse = False
        if keyword == "required":
            no_worse = location[-1] == "required" or (
                self._demanding(location, absent, value) <= self._demanding(location, absent, was)
            )
        elif keyword == "minProperties":
            no_worse = len(value) >= len(was)
        elif keyword == "maxProperties":
            no_worse = len(value) <= len(was)
        elif (keys := self._keys_at(keyword, location)) is not None:
            return self._dump({key: value[key] for key in keys if key in value})
        return b"" if no_worse else self._dump(value)

    def _demanding(self, location: Path, absent: Any, value: dict[str, Any]) -> set[str]:
        """Return the keys of an object that demand the absent one; all keys if that is unknown."""
        demands = self._subschema(location)
        if not isinstance(demands, dict):
            return set(value)
        return {
            key for key in value if isinstance(names := demands.get(key), list) and absent in names
        }

    def _keys_at(self, keyword: str, location: Path) -> frozenset[str] | None:
        """Return the only keys of an object that decide about a violation; None if unknown."""
        if location not in self._keys_of:
            self._keys_of[location] = self._find_keys(keyword, location)
        return self._keys_of[location]

    def _find_keys(self, keyword: str, location: Path) -> frozenset[str] | None:
        deciding: Any = None
        if keyword in ("anyOf", "oneOf", "not"):
            deciding = {keyword: self._subschema(location)}
        elif keyword == "falseSchema" and _ends_in(location, "then", "else"):
            parent = self._subschema(location[:-1])
            deciding = parent.get("if") if isinstance(parent, dict) else None
        elif keyword == "falseSchema" and location[-2:-1] == ("dependentSchemas",):
            deciding = {"required": [location[-1]]}
        found: set[str] = set()
        return frozenset(found) if self._add_keys(deciding, found, set()) else None

    def _add_keys(self, schema: Any, found: set[str], seen: set[str]) -> bool:
        """Add the keys that decide whether an object is valid; return False if others may."""
        if isinstance(schema, bool):
            return True
        if not isinstance(schema, dict):
            return False
        if not schema.keys() <= _KNOWN:
            return False
        for keyword in _NAMES:
            found.update(schema.get(keyword, ()))
        for names in schema.get("dependentRequired", {}).values():
            found.update(names)
        below = [each for name in _LISTS for each in schema.get(name, ())]
        below += [schema[name] for name in _ONE if name in schema]
        below += schema.get("dependentSchemas", {}).values()
        reference = schema.get("$ref")
        if reference is not None and reference not in seen:
            seen.add(reference)
            below.append(resolve(self._schema, reference))
        return all(self._add_keys(each, found, seen) for each in below)

    def _subschema(self, location: Path) -> Any:
        """Return what the schema has at an evaluation path; None if that is unknown."""
        here: Any = self._schema
        for step in location:
            if here is not self._schema and isinstance(here, dict) and "$id" in here:
                # References there are relative to another base.
                return None
            if isinstance(here, dict):
                here = here.get(str(step))
            elif isinstance(here, list) and isinstance(step, int) and step < len(here):
                here = here[step]
            else:
                return None
            if step == "$ref":
                here = resolve(self._schema, here) if isinstance(here, str) else None
        return here

    def _dump(self, value: Any) -> bytes:
        """Return a text that equal values share; 1, 1.0 and true differ."""
        if not isinstance(value, dict | list):
            return orjson.dumps(value)
        text = self._dumped.get(id(value))
        if text is None:
            text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            # Projections of objects are temporary, and their ids are used again.
            if value is self._before or value is self._after:
                self._dumped[id(value)] = text
        return text


def _take(paths: Counter[Path] | None, path: Path) -> bool:
    """Take one violation at this path away; return False if there is none."""
    if not paths or path not in paths:
        return False
    paths[path] -= 1
    if not paths[path]:
        del paths[path]
    return True


def _at(bucket: Any, path: Path) -> Any:
    """Return the value at a path; _NOWHERE if there is none."""
    here = bucket
    for step in path:
        try:
            here = here[step]
        except (LookupError, TypeError):
            return _NOWHERE
    return here


def _names(error: Any, keyword: str, location: Path, value: Any) -> list[str] | None:
    """Return the keys that a violation is about one by one; None if it is about the whole value."""
    if not isinstance(value, dict):
        return None
    if keyword in ("additionalProperties", "unevaluatedProperties"):
        return [name for name in error.kind.unexpected if name in value] or None
    if keyword == "propertyNames":
        return [str(error.kind.error.instance)]
    if keyword == "falseSchema" and _ends_in(location, "additionalProperties", "propertyNames"):
        # The library lists no more than the first key.
        return list(value) or None
    return None


def _ends_in(location: Path, *keywords: str) -> bool:
    """Report whether an evaluation path ends in a keyword, rather than in a key of that name."""
    return location[-1:] in [(each,) for each in keywords] and location[-2:-1] not in (
        ("properties",),
        ("patternProperties",),
        ("dependentSchemas",),
    )
