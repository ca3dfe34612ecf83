"""The field form of a schema, and the JSON Schema 2020-12 that it stands for.

    field form                               JSON Schema
    {"fields": [field…]}                     {"type": "object", "properties": {name: field…}}
    "type": string boolean array object      "type", the same
    "type": integer                          "type": "integer"
    "type": number, with "integer": true     "type": "number", "integer"
    "type": any                              no "type"
    "secret": true                           "writeOnly": true
    "required": true                         the name in "required" of what holds it
    "min", "max"                             "minimum", "maximum"
    "defaultValue"                           "default": a note, never filled in
    "items": field, "properties": [field…]   "items", "properties" (and "required")
    "description", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems": the same

Keys that no field names are allowed. An attribute that is null counts as absent.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from ...errors import InvalidRequest
from .messages import describe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES = ("string", "number", "integer", "boolean", "array", "object", "any")
_SAME = ("description", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems")
_RENAMED = {"min": "minimum", "max": "maximum", "defaultValue": "default"}
# The types to which an attribute applies; attributes not named here apply to all types.
_ONLY = {
    "minLength": "string", "maxLength": "string", "pattern": "string",
    "min": "number", "max": "number", "integer": "number",
    "minItems": "array", "maxItems": "array", "items": "array", "properties": "object",
}  # fmt: skip
_KNOWN = ("name", "type", "required", "secret", "integer", "items", "properties",
          *_SAME, *_RENAMED)  # fmt: skip
_STRINGS, _FLAGS = ("description", "pattern"), ("required", "secret", "integer")
_COUNTS, _NUMBERS = ("minLength", "maxLength", "minItems", "maxItems"), ("min", "max")


def is_field_form(document: dict[str, Any]) -> bool:
    """Report whether a document is in the field form, rather than a JSON Schema."""
    return "fields" in document and "$schema" not in document


def to_json_schema(document: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema that the field form stands for. Raises InvalidRequest."""
    if unknown := set(document) - {"fields", "title", "description"}:
        raise _wrong("the schema", f"{min(unknown)!r} is not known beside 'fields'")
    notes: dict[str, Any] = {
        name: document[name] for name in ("title", "description") if name in document
    }
    return {"$schema": DIALECT, **notes, "type": "object", **_object(document["fields"], "fields")}


def _object(fields: Any, where: str) -> dict[str, Any]:
    if not isinstance(fields, list):
        raise _wrong(where, "it must be an array of fields")
    properties: dict[str, Any] = {}
    required = []
    for index, field in enumerate(fields):
        place = f"{where}[{index}]"
        name = field.get("name") if isinstance(field, dict) else None
        if not isinstance(name, str) or not name:
            raise _wrong(place, "it must be an object with a 'name'")
        if name in properties:
            raise _wrong(place, f"there is another field {name!r}")
        properties[name] = _field(field, f"{place} ({name!r})")
        if field.get("required"):
            required.append(name)
    return {"properties": properties, **({"required": required} if required else {})}


def _field(field: Any, where: str) -> dict[str, Any]:
    if not isinstance(field, dict):
        raise _wrong(where, "it must be an object")
    given = {name: value for name, value in field.items() if value is not None}
    kind = given.get("type")
    if kind not in TYPES:
        raise _wrong(where, f"its type must be one of {', '.join(TYPES)}, got {describe(kind)}")
    for name, value in given.items():
        _check(name, value, kind, where)
    schema: dict[str, Any] = {}
    if kind != "any":
        schema["type"] = "integer" if given.get("integer") else kind
    if given.get("secret"):
        schema["writeOnly"] = True
    for name in (*_SAME, *_RENAMED):
        if name in given:
            schema[_RENAMED.get(name, name)] = given[name]
    if "items" in given:
        schema["items"] = _field(given["items"], f"{where}.items")
    if "properties" in given:
        schema |= _object(given["properties"], f"{where}.properties")
    return schema


def _check(name: str, value: Any, kind: str, where: str) -> None:
    """Check that an attribute is known, fits the type of the field, and has the right type."""
    if name not in _KNOWN:
        raise _wrong(where, f"{name!r} is unknown{_nearest(name, _KNOWN)}")
    # An integer is a number, so whatever restricts numbers restricts it.
    if _ONLY.get(name, kind) not in (kind, "number" if kind == "integer" else kind):
        raise _wrong(where, f"{name!r} is for the type {_ONLY[name]}, and its type is {kind}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    sound = {
        **dict.fromkeys(_STRINGS, isinstance(value, str)),
        **dict.fromkeys(_FLAGS, isinstance(value, bool)),
        **dict.fromkeys(_NUMBERS, number),
        **dict.fromkeys(_COUNTS, number and value == int(value) and value >= 0),
        "enum": isinstance(value, list) and bool(value),
    }
    if not sound.get(name, True):
        raise _wrong(where, f"{name!r} must be {_must_be(name)}, got {describe(value)}")


def _must_be(name: str) -> str:
    if name == "enum":
        return "a list that is not empty"
    words = {_STRINGS: "a string", _FLAGS: "true or false", _NUMBERS: "a number"}
    return next((what for names, what in words.items() if name in names), "a whole number from 0")


def _nearest(name: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _wrong(where: str, cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot use the schema: {where}: {cause}")
