"""Describe violations of a schema in words that a person can act on, without showing any value.

A value is described by its kind and its length. Messages may quote the schema, unless that would
show the value, as when a forbidden string is part of an allowed one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import orjson

MAX_SHOWN = 40
_KINDS = {
    "number": "a number",
    "integer": "a whole number",
    "string": "a string",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def pointer(path: list[Any]) -> str:
    """Return a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in path)


def describe(value: Any, with_length: bool = True) -> str:
    """Return the kind of a value and its length: "a string of 15 characters", "null"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    kind, unit = "an object", "key"
    if isinstance(value, str):
        kind, unit = "a string", "character"
    elif isinstance(value, list):
        kind, unit = "an array", "item"
    if not with_length:
        return kind
    return f"{kind} of {len(value)} {unit}{'' if len(value) == 1 else 's'}"


def cause_of(error: Any, secret: bool) -> str:
    """Return the cause of one violation; for a ``secret``, without the length of the value."""
    kind = error.kind
    got = describe(error.instance, with_length=not secret)
    words = _WORDS.get(kind.name)
    if words is not None:
        return words(kind, got, error.instance)
    if kind.name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        bound = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "over"}
        return f"must be {bound.get(kind.name, 'under')} {kind.limit}, got {got}"
    return f"is not what its schema's {kind.name!r} allows, got {got}"


def _repeats(text: str, value: Any) -> bool:
    """Report whether a text from the schema contains a string or number of the value."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, str | int | float) and str(part) and str(part) in text:
            return True
    return False


def _type(kind: Any, got: str, _value: Any) -> str:
    return f"must be {' or '.join(_KINDS.get(t, t) for t in kind.types)}, got {got}"


def _required(kind: Any, _got: str, value: Any) -> str:
    return f"must have {kind.property!r}{_nearest(kind.property, value)}"


def _unexpected(kind: Any, _got: str, _value: Any) -> str:
    return unexpected(kind.unexpected)


def unexpected(names: Iterable[object]) -> str:
    """Return the cause of a violation by keys that the schema does not allow."""
    shown = ", ".join(repr(name) for name in list(names)[:5])
    return f"must not have {shown}: the schema does not know it"


def _enum(kind: Any, got: str, value: Any) -> str:
    options = [orjson.dumps(option).decode()[:MAX_SHOWN] for option in kind.options[:10]]
    text = ", ".join(options)
    if _repeats(text, value):
        text = f"the {len(kind.options)} values that the schema allows"
    return f"must be one of {text}, got {got}"


def _constant(kind: Any, got: str, value: Any) -> str:
    text = orjson.dumps(kind.expected_value).decode()[:MAX_SHOWN]
    if _repeats(text, value):
        text = "the one value that the schema allows"
    return f"must be {text}, got {got}"


def _length(least: str) -> Callable[[Any, str, Any], str]:
    def words(kind: Any, _got: str, value: Any) -> str:
        what = "characters" if isinstance(value, str) else "items"
        if isinstance(value, dict):
            what = "keys"
        return f"must have {least} {kind.limit} {what}, has {len(value)}"

    return words


def _pattern(kind: Any, got: str, value: Any) -> str:
    if not hasattr(kind, "pattern"):
        # The library gave up on a pattern, and does not say on which.
        return (
            "has too long a string or name for a pattern with lookaround or back references: "
            "matching takes too long. Shorten it, or simplify the pattern"
        )
    pattern = "its pattern" if _repeats(kind.pattern, value) else f"the pattern {kind.pattern}"
    return f"must match {pattern}, got {got}"


def _format(kind: Any, got: str, _value: Any) -> str:
    return f"must be a {kind.format}, got {got}"


def _nearest(name: str, value: Any) -> str:
    close = difflib.get_close_matches(name, list(value) if isinstance(value, dict) else [], 1)
    return f" (it has {close[0]!r}; did you mean that?)" if close else ""


_WORDS: dict[str, Callable[[Any, str, Any], str]] = {
    "type": _type,
    "required": _required,
    "additionalProperties": _unexpected,
    "unevaluatedProperties": _unexpected,
    "enum": _enum,
    "const": _constant,
    "minLength": _length("at least"),
    "maxLength": _length("at most"),
    "minItems": _length("at least"),
    "maxItems": _length("at most"),
    "minProperties": _length("at least"),
    "maxProperties": _length("at most"),
    "pattern": _pattern,
    "format": _format,
    "uniqueItems": lambda _kind, _got, _value: "must not have the same item twice",
    "multipleOf": lambda kind, got, _value: f"must be a multiple of {kind.multiple_of}, got {got}",
    "falseSchema": lambda _kind, _got, _value: "must not be there: the schema allows nothing here",
}
