"""JSON that is kept exactly or refused: no NaN, no rounding, no lone surrogates.

orjson does nearly all of it; the one thing it lets pass is an integer beyond
64 bits, which it turns into a float. Only texts with a run of 19 digits can
hold one, so only those are read a second time with exact integers.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from ..errors import InvalidJson

MAX_DEPTH = 250  # orjson writes 254 levels; the envelope around a bucket needs its own
_SPARE = 254 - MAX_DEPTH
_DIGITS_ONLY = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_RUN = b"0" * 19
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1


def loads(text: bytes, what: str = "the request body") -> Any:
    """Parse UTF-8 JSON; raise InvalidJson for anything that could not be given back as it came."""
    try:
        value = _parsed(text)
        if _LONG_RUN in text.translate(_DIGITS_ONLY):  # a tenth of the time of a pattern
            json.loads(text, parse_int=_exact_int)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"cannot read {what}: {_cause(error)}") from None
    return value


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "allocate memory" not in error.msg:
            raise
    # By blanks behind the first bracket orjson takes a text for an indented one, and reserves too
    # little for what is dense further on.
    blank = b" \t\r\n"
    text = text.lstrip(blank)
    return orjson.loads(text[:1] + text[1:].lstrip(blank))


def loads_object(text: bytes, what: str = "the request body") -> dict[str, Any]:
    """Parse a JSON object; raise InvalidJson for other JSON as well."""
    return as_object(loads(text, what), what)


def as_object(value: Any, what: str = "the request body") -> dict[str, Any]:
    """The value itself where it is an object, else InvalidJson."""
    if isinstance(value, dict):
        return value
    raise InvalidJson(
        f"cannot use {what}: it must be a JSON object such as "
        f'{{"loggedIn": true}}, got {kind_of(value)}'
    )


def dumps(value: Any, what: str = "the bucket") -> bytes:
    """Write compact JSON; raise InvalidJson where it is nested deeper than MAX_DEPTH."""
    for _ in range(_SPARE):
        value = (value,)  # so that orjson itself finds what is too deep; a walk takes far longer
    try:
        # A copy: orjson's own bytes keep some 4 KiB however short they are, and buckets are kept.
        return bytes(memoryview(orjson.dumps(value))[_SPARE:-_SPARE])
    except TypeError as error:
        if "ecursion" in str(error):
            raise _too_deep(what) from None
        raise


def same(one: bytes, other: bytes) -> bool:
    """Whether two texts written by ``dumps`` hold the same value (the order of keys is none)."""
    if one == other:
        return True
    if len(one) != len(other):
        return False
    return equal(orjson.loads(one), orjson.loads(other))


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON."""
    # Python holds 1, 1.0 and true for equal, JSON does not.
    return one == other and _sorted(one) == _sorted(other)


def kind_of(value: Any) -> str:
    """What JSON calls the value, with its article: "a number", "null"."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "an array"}
    return names.get(type(value), "an object")


def _exact_int(digits: str) -> int:
    # A longer run of digits is out of range whatever it says; int() would refuse it itself.
    value = int(digits) if len(digits) <= 40 else _HIGHEST + 1
    if not _LOWEST <= value <= _HIGHEST:
        shown = digits if len(digits) <= 40 else f"{digits[:20]}… ({len(digits)} digits)"
        raise ValueError(
            f"the integer {shown} is outside -2^63 … 2^64-1 and would be rounded; "
            "send it as a text instead"
        )
    return value


def _sorted(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _too_deep(what: str) -> InvalidJson:
    return InvalidJson(f"cannot keep {what}: it is nested deeper than {MAX_DEPTH} levels")


def _cause(error: Exception) -> str:
    if isinstance(error, RecursionError) or "depth limit" in str(error):
        return f"it is nested deeper than {MAX_DEPTH} levels"
    if isinstance(error, orjson.JSONDecodeError):
        return f"not valid JSON ({error.msg}, line {error.lineno} column {error.colno})"
    return str(error)
