"""What is wrong with a value, said so that a person can mend it; secrets are never repeated."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import orjson

from ...model.strict_json import kind_of

LONGEST_SHOWN = 40
_KINDS = {
    "number": "a number",
    "integer": "a whole number",
    "string": "a text",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def pointer(path: list[Any]) -> str:
    """A JSON Pointer (RFC 6901)."""
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in path)


def cause_of(error: Any, secret: bool) -> str:
    """One violation in words, without the place, which stands before it."""
    kind = error.kind
    words = _WORDS.get(kind.name)
    if words is not None:
        return words(kind, _shown(error.instance, secret), error.instance)
    if kind.name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        bound = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "over"}
        return f"must be {bound.get(kind.name, 'under')} {kind.limit}{_got(error, secret)}"
    return f"is not what its schema's {kind.name!r} allows{_got(error, secret)}"


def _got(error: Any, secret: bool) -> str:
    return f", got {_shown(error.instance, secret)}"


def _shown(value: Any, secret: bool) -> str:
    """The value, as far as it may be told: "the text \\"yesterday\\"", "null", "an object"."""
    kind = kind_of(value)
    if secret or value is None or isinstance(value, dict | list):
        return kind
    text = orjson.dumps(value).decode()
    if len(text) > LONGEST_SHOWN:
        text = text[:LONGEST_SHOWN] + "…"
    return f"the {kind.split(' ')[1]} {text}" if not isinstance(value, bool) else text


def _type(kind: Any, got: str, _value: Any) -> str:
    return f"must be {' or '.join(_KINDS.get(t, t) for t in kind.types)}, got {got}"


def _required(kind: Any, _got: str, value: Any) -> str:
    return f"must have {kind.property!r}{_nearest(kind.property, value)}"


def _unexpected(kind: Any, _got: str, _value: Any) -> str:
    names = ", ".join(repr(name) for name in list(kind.unexpected)[:5])
    return f"must not have {names}: the schema does not know it"


def _enum(kind: Any, got: str, _value: Any) -> str:
    options = [orjson.dumps(option).decode()[:LONGEST_SHOWN] for option in kind.options[:10]]
    return f"must be one of {', '.join(options)}, got {got}"


def _constant(kind: Any, got: str, _value: Any) -> str:
    return f"must be {orjson.dumps(kind.expected_value).decode()[:LONGEST_SHOWN]}, got {got}"


def _length(least: str) -> Callable[[Any, str, Any], str]:
    def words(kind: Any, _got: str, value: Any) -> str:
        what = "characters" if isinstance(value, str) else "items"
        if isinstance(value, dict):
            what = "keys"
        return f"must have {least} {kind.limit} {what}, has {len(value)}"

    return words


def _pattern(kind: Any, got: str, _value: Any) -> str:
    if not hasattr(kind, "pattern"):  # it has gone back too often; which one is not told
        return (
            "has too long a text or name for a pattern that looks around or back: whether it "
            "matches cannot be told in reasonable time. Shorten it, or simplify the pattern"
        )
    return f"must match the pattern {kind.pattern}, got {got}"


def _format(kind: Any, got: str, _value: Any) -> str:
    return f"must be a {kind.format}, got {got}"


def _nearest(name: str, value: Any) -> str:
    close = difflib.get_close_matches(name, list(value) if isinstance(value, dict) else [], 1)
    return f" (it has {close[0]!r}: is that meant?)" if close else ""


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
