"""Parse a JSON Schema into a model of types; collect what the types cannot express."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable
from typing import Any

from . import names
from .model import (
    Alternatives,
    Array,
    Definition,
    Field,
    Intersection,
    Literal,
    Model,
    Never,
    Notes,
    Object,
    Primitive,
    Reference,
    TooComplex,
    Tuple,
    Type,
    Unknown,
    merged,
    union,
)
from .references import References, escape

# Types nested deeper are unknown: nobody could read them, and type checkers give up on them.
MAX_DEPTH = 30
# References within references that are resolved for the sake of the keywords beside them.
MAX_RESOLVED = 12
MAX_DEFAULT = 60
_PRIMITIVES = ("string", "number", "integer", "boolean", "null")
_OBJECT = ("properties", "required", "additionalProperties", "patternProperties")
_ARRAY = ("items", "prefixItems")
# Keywords that restrict types or keys in a way that neither language can express.
_BEYOND = ("not", "dependentRequired", "$dynamicRef", "unevaluatedItems")


class Parser:
    """One schema. ``problems`` names each keyword that the types do not express, and its place.

    ``defaults`` are the keys for which the daemon has a default.
    """

    def __init__(self, schema: Any, automation: str, defaults: Iterable[str] = ()) -> None:
        self._schema, self._defaults = schema, frozenset(defaults)
        self._automation = automation
        self._references = References(schema)
        self._intersection = Intersection(self._resolve)
        self._types: dict[str, Type] = {}
        self._parsing: set[str] = set()
        self._depth = 0
        self.problems: dict[str, None] = {}

    def model(self) -> Model:
        """Return the types of the whole schema."""
        try:
            bucket = self._bucket(self._at("#"))
        except RecursionError:
            self._problem("$ref", "#", "it is nested too deeply, so the keys are unknown")
            bucket = Object((), Unknown())
        self._types["#"] = bucket
        targets = [target for target in self._reachable(bucket) if target != "#"]
        name = names.type_name(self._automation)
        taken = names.Names(name)
        definitions = {}
        for target in targets:
            node = self._references.at(target)
            wanted = names.pascal(target.rpartition("/")[2].replace("~1", "/").replace("~0", "~"))
            own = taken.take(wanted or "Part")
            definitions[target] = Definition(own, self._at(target), _notes(node))
        definitions["#"] = Definition(name, bucket, Notes())
        completed = {
            each.key for each in bucket.fields if each.key in self._defaults and not each.required
        }
        return Model(name, bucket, _notes(self._schema), definitions, frozenset(completed))

    def _bucket(self, type: Type) -> Object:
        """Return the type of the whole bucket as one object, since ``set`` merges its keys."""
        objects, seen, waiting = [], set(), [type]
        while waiting:
            each = waiting.pop(0)
            if isinstance(each, Unknown):
                each = Object((), Unknown())
            if isinstance(each, Object):
                objects.append(each)
            elif isinstance(each, Alternatives):
                waiting = [*each.members, *waiting]
            elif isinstance(each, Reference) and each.target not in seen:
                seen.add(each.target)
                waiting.insert(0, self._at(each.target))
        if not objects:
            self._problem("type", "#", "it allows no object, so the keys are unknown")
            return Object((), Unknown())
        return objects[0] if len(objects) == 1 else merged(objects)

    def _reachable(self, bucket: Type) -> list[str]:
        """Return the targets of all references that are left, in the order in which they appear."""
        found: dict[str, None] = {}
        waiting = deque([bucket])
        while waiting:
            each = waiting.popleft()
            if isinstance(each, Reference) and each.target not in found:
                found[each.target] = None
                waiting.append(self._at(each.target))
            waiting += _children(each)
        return list(found)

    # --- subschemas

    def _resolve(self, reference: Reference) -> Type | None:
        """Return the type of a reference; None while it is being parsed."""
        return None if reference.target in self._parsing else self._at(reference.target)

    def _at(self, place: str) -> Type:
        """Return the type of the subschema at a place, which is parsed once."""
        if place not in self._types:
            if len(self._parsing) > MAX_RESOLVED:
                raise TooComplex
            self._parsing.add(place)
            depth, self._depth = self._depth, 0
            try:
                self._types[place] = self._parse(self._references.at(place), place)
            finally:
                self._depth = depth
                self._parsing.discard(place)
        return self._types[place]

    def _parse(self, node: Any, place: str) -> Type:
        if not isinstance(node, dict):
            return Never() if node is False else Unknown()
        if self._depth > MAX_DEPTH:
            self._problem("type", place, "it is nested too deeply, so it is typed as unknown")
            return Unknown()
        self._depth += 1
        found = self._by_type(node, place)
        for keyword, branches in self._restrictions(node, place):
            both = self._intersection.of_any(found, branches)
            if both is None:
                self._problem(keyword, place, "it is too complex, so it is typed as unknown")
            found = Unknown() if both is None else both
        self._depth -= 1
        for keyword in _BEYOND:
            if keyword in node:
                self._problem(keyword, place, "left out")
        return found

    def _restrictions(self, node: dict[str, Any], place: str) -> list[tuple[str, list[Type]]]:
        """Return what restricts the value beside ``type``, by keyword: it has any of the types."""
        found: list[tuple[str, list[Type]]] = []
        if isinstance(node.get("$ref"), str):
            found.append(("$ref", [self._reference(node["$ref"], place)]))
        if "const" in node:
            found.append(("const", [self._of_value(node["const"])]))
        if isinstance(node.get("enum"), list):
            found.append(("enum", [union([self._of_value(value) for value in node["enum"]])]))
        for number, child in enumerate(_list(node.get("allOf"))):
            found.append(("allOf", [self._parse(child, f"{place}/allOf/{number}")]))
        for keyword in ("anyOf", "oneOf"):
            if keyword in node:
                branches = enumerate(_list(node[keyword]))
                types = [self._parse(child, f"{place}/{keyword}/{n}") for n, child in branches]
                found.append((keyword, types))
        for key, child in _dict(node.get("dependentSchemas")).items():
            there = f"{place}/dependentSchemas/{escape(key)}"
            # The schema applies only if the object has the key.
            found.append(("dependentSchemas", [self._parse(child, there), Unknown()]))
        if "if" in node and ("then" in node or "else" in node):
            found.append(("if", self._condition(node, place)))
        return found

    def _condition(self, node: dict[str, Any], place: str) -> list[Type]:
        """Return the type of ``if`` with ``then``, and that of ``else``."""
        test, then, other = (
            self._parse(node.get(keyword, True), f"{place}/{keyword}")
            for keyword in ("if", "then", "else")
        )
        both = self._intersection.of(test, then)
        return [then if both is None else both, other]

    def _reference(self, reference: str, place: str) -> Type:
        target = self._references.target(reference, place)
        if target is None:
            self._problem("$ref", place, f"{reference} is not known, so it is typed as unknown")
            return Unknown()
        return Reference(target)

    # --- by type

    def _by_type(self, node: dict[str, Any], place: str) -> Type:
        given = node.get("type")
        kinds = given if isinstance(given, list) else [given] if given is not None else []
        if not kinds:
            return self._implied(node, place)
        types: list[Type] = []
        for kind in kinds:
            if kind in _PRIMITIVES:
                types.append(Primitive(kind))
            elif kind == "object":
                types.append(self._object(node, place))
            elif kind == "array":
                types.append(self._array(node, place))
        return union(types)

    def _implied(self, node: dict[str, Any], place: str) -> Type:
        """Return the type that keywords for objects or arrays imply without ``type``."""
        object_, array = any(k in node for k in _OBJECT), any(k in node for k in _ARRAY)
        if object_ == array:
            return Unknown()
        return self._object(node, place, True) if object_ else self._array(node, place, True)

    def _object(self, node: dict[str, Any], place: str, implied: bool = False) -> Object:
        rest = self._rest(node, place)
        required = dict.fromkeys(_list(node.get("required")))
        fields = []
        for key, child in _dict(node.get("properties")).items():
            there = f"{place}/properties/{escape(key)}"
            fields.append(Field(key, self._parse(child, there), key in required, _notes(child)))
        named = {each.key for each in fields}
        for key in required:
            if key not in named:
                fields.append(Field(key, Unknown() if rest is None else rest, True))
        return Object(tuple(fields), rest, implied, f"{_opener(node)} at {place}")

    def _rest(self, node: dict[str, Any], place: str) -> Type | None:
        """Return the type of the keys that ``properties`` does not name; None for no such keys."""
        patterns = _dict(node.get("patternProperties"))
        types = [
            self._parse(child, f"{place}/patternProperties/{escape(pattern)}")
            for pattern, child in patterns.items()
        ]
        named = bool(patterns) or "properties" in node
        opener = "unevaluatedProperties" if "unevaluatedProperties" in node else ""
        opener = "additionalProperties" if "additionalProperties" in node else opener
        others = node.get(opener, not named)
        if others is not False:
            types.append(self._parse(others, f"{place}/{opener}"))
        return union(types) if types else None

    def _array(self, node: dict[str, Any], place: str, implied: bool = False) -> Type:
        rest = self._parse(node.get("items", True), f"{place}/items")
        first = [
            self._parse(child, f"{place}/prefixItems/{number}")
            for number, child in enumerate(_list(node.get("prefixItems")))
        ]
        if not first:
            return Array(rest, implied)
        least = node.get("minItems", 0)
        required = min(int(least), len(first)) if isinstance(least, (int, float)) else 0
        closed = node.get("items") is False or node.get("maxItems") == len(first)
        return Tuple(tuple(first), None if closed else rest, required, implied)

    def _of_value(self, value: Any) -> Type:
        """Return the type that has one value."""
        if value is None:
            return Primitive("null")
        if isinstance(value, dict):
            fields = [Field(key, self._of_value(each), True) for key, each in value.items()]
            return Object(tuple(fields), None)
        if isinstance(value, list):
            if not value:
                return Array(Never())
            return Tuple(tuple(map(self._of_value, value)), None, len(value))
        if isinstance(value, float):
            if not math.isfinite(value):
                return Primitive("number")
            value = int(value) if value.is_integer() else value
        return Literal(json.dumps(value))

    def _problem(self, keyword: str, place: str, outcome: str) -> None:
        self.problems[f"{keyword} at {place}: {outcome}"] = None


def _children(type: Type) -> list[Type]:
    if isinstance(type, Alternatives):
        return list(type.members)
    if isinstance(type, Array):
        return [type.items]
    if isinstance(type, Tuple):
        return [*type.items, *([type.rest] if type.rest is not None else [])]
    if isinstance(type, Object):
        rest = [type.rest] if type.rest is not None else []
        return [*(each.type for each in type.fields), *rest]
    return []


def _notes(node: Any) -> Notes:
    if not isinstance(node, dict):
        return Notes()
    text = node.get("description") or node.get("title")
    format = node.get("format") or _dict(node.get("items")).get("format")
    default = ""
    # The default of a secret is a secret as well.
    if "default" in node and not (node.get("writeOnly") is True or format == "password"):
        shown = json.dumps(node["default"], ensure_ascii=False)
        default = shown if len(shown) <= MAX_DEFAULT else ""
    return Notes(
        text if isinstance(text, str) else "",
        format if isinstance(format, str) else "",
        default,
        node.get("deprecated") is True,
    )


def _opener(node: dict[str, Any]) -> str:
    """Return the keyword by which an object may have keys that it does not name."""
    keywords = ("patternProperties", "additionalProperties", "unevaluatedProperties", "required")
    return next((each for each in keywords if node.get(each)), "type")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
