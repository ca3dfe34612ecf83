"""JSON that is kept exactly or refused: no NaN, no rounding, no lone surrogates.

orjson does nearly all of it. It lets pass one thing: an integer beyond 64 bits, which it turns
into a double. That loses nothing where the digits are those that JavaScript prints for the double
(up to 10^21 without an exponent); any other such integer is refused. Only a text with a run of 19
digits can hold one, so only such a text is read a second time.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from ..errors import InvalidJson

MAX_DEPTH = 250  # orjson writes 254 levels; the envelope around a bucket needs its own
MAX_SHOWN = 200  # characters of a JSON Pointer in an error
_SPARE = 254 - MAX_DEPTH
_DIGITS_ONLY = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_RUN = b"0" * 19
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def loads(text: bytes, what: str = "the request body") -> Any:
    """Parse UTF-8 JSON; raise InvalidJson for what cannot be given back as it came.

    The message names the value by its JSON Pointer and never shows it.
    """
    try:
        value = _parsed(text)
        # Far faster than a regular expression.
        if _LONG_RUN in text.translate(_DIGITS_ONLY):
            json.loads(text, parse_int=_check_integer)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"cannot read {what}: {_cause(text, error)}") from None
    return value


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "allocate memory" not in error.msg:
            raise
    # Blanks after the first bracket make orjson expect an indented text, and reserve too little
    # memory for one that is dense further on.
    blank = b" \t\r\n"
    text = text.lstrip(blank)
    return orjson.loads(text[:1] + text[1:].lstrip(blank))


def loads_object(text: bytes, what: str = "the request body") -> dict[str, Any]:
    """Parse a JSON object; raise InvalidJson for other JSON as well."""
    return as_object(loads(text, what), what)


def as_object(value: Any, what: str = "the request body") -> dict[str, Any]:
    """Return the value itself if it is an object; raise InvalidJson otherwise."""
    if isinstance(value, dict):
        return value
    raise InvalidJson(
        f"cannot use {what}: it must be a JSON object such as "
        f'{{"loggedIn": true}}, got {kind_of(value)}'
    )


def dumps(value: Any, what: str = "the bucket") -> bytes:
    """Write compact JSON; raise InvalidJson where it is nested deeper than MAX_DEPTH."""
    # These levels make orjson itself find what is nested too deep; a walk takes far longer.
    for _ in range(_SPARE):
        value = (value,)
    try:
        # A copy: orjson's own bytes keep some 4 KiB however short they are, and buckets are kept.
        return bytes(memoryview(orjson.dumps(value))[_SPARE:-_SPARE])
    except TypeError as error:
        if "ecursion" in str(error):
            raise _too_deep(what) from None
        raise


def same(one: bytes, other: bytes) -> bool:
    """Report whether two texts written by ``dumps`` hold the same value, in any order of keys."""
    if one == other:
        return True
    if len(one) != len(other):
        return False
    return equal(orjson.loads(one), orjson.loads(other))


def equal(one: Any, other: Any) -> bool:
    """Report whether two values are written alike; 1, 1.0 and true are three values."""
    return one == other and _sorted(one) == _sorted(other)


def equivalent(one: Any, other: Any) -> bool:
    """Report whether two values are equal by RFC 6902 §4.6: 1 and 1.0 are, 1 and true are not."""
    # Python's == alone takes true for 1.
    return one == other and (_sorted(one) == _sorted(other) or _same_booleans(one, other))


def _same_booleans(one: Any, other: Any) -> bool:
    """Report whether two values that are ``==`` have their booleans in the same places."""
    if isinstance(one, dict):
        return all(_same_booleans(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(_same_booleans, one, other))
    return isinstance(one, bool) == isinstance(other, bool)


def kind_of(value: Any) -> str:
    """Return what JSON calls the value, with its article: "a number", "null"."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
    }
    return names.get(type(value), "an object")


def _sorted(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _too_deep(what: str) -> InvalidJson:
    return InvalidJson(f"cannot keep {what}: it is nested deeper than {MAX_DEPTH} levels")


# --- what cannot be kept, and where it stands


class _Refused(NamedTuple):
    """A value that cannot be kept: the beginning and the end of the sentence that says so."""

    kind: str
    cause: str


_CONSTANT = _Refused("number", "is NaN or Infinity, which JSON cannot hold; send null or a string")
_TOO_LARGE = _Refused("number", "is larger than any double; send it as a string")
_LONE = _Refused(
    "string",
    "has a lone surrogate, half of a character, which UTF-8 cannot hold; store it escaped, such "
    "as JSON.stringify(value) or json.dumps(value) write it, and parse it when it is read",
)


def _check_integer(digits: str) -> _Refused | None:
    """Return None for an integer that is kept exactly; raise ValueError for any other."""
    if refused := _refused_integer(digits):
        raise ValueError(refused.cause)
    return None


def _refused_integer(digits: str) -> _Refused | None:
    # Longer runs of digits are out of range whatever they say, and int() may refuse them.
    if len(digits) <= len("-999999999999999999999"):
        value = int(digits)
        if _LOWEST <= value <= _HIGHEST:
            return None
        if abs(value) < 10**21 and Decimal(repr(float(value))) == value:
            return None
    return _Refused(
        "integer",
        f"has {len(digits.lstrip('-'))} digits, is outside -2^63 … 2^64-1 and would be rounded; "
        "send it as a string",
    )


def _refused_float(digits: str) -> _Refused | None:
    return _TOO_LARGE if abs(float(digits)) == float("inf") else None


def _cause(text: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError) or "depth limit" in str(error):
        return f"it is nested deeper than {MAX_DEPTH} levels"
    found = _find_refused(text)
    if found is not None:
        pointer, refused = found
        return f"the {refused.kind} at {shown(pointer)} {refused.cause}"
    if isinstance(error, orjson.JSONDecodeError):
        return f"not valid JSON ({error.msg}, line {error.lineno} column {error.colno})"
    return str(error)


def _find_refused(text: bytes) -> tuple[str, _Refused] | None:
    """Return the JSON Pointer of the first value that cannot be kept; None for a syntax error."""
    try:
        value = json.loads(
            text.decode(errors="surrogatepass"),
            parse_int=_refused_integer,
            parse_float=_refused_float,
            parse_constant=lambda _name: _CONSTANT,
            object_pairs_hook=tuple,
        )
        return _first_refused(value)
    except (ValueError, RecursionError):
        return None


def _first_refused(value: Any) -> tuple[str, _Refused] | None:
    """Search a value whose objects are tuples of pairs; the pointer begins at the value."""
    if isinstance(value, _Refused):
        return "", value
    if isinstance(value, str):
        return ("", _LONE) if _is_lone(value) else None
    if not isinstance(value, (tuple, list)):
        return None
    for name, inner in enumerate(value) if isinstance(value, list) else value:
        step = "/" + str(name).replace("~", "~0").replace("/", "~1")
        if isinstance(name, str) and _is_lone(name):
            return step, _LONE._replace(kind="key")
        found = _first_refused(inner)
        if found is not None:
            return step + found[0], found[1]
    return None


def _is_lone(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


def shown(pointer: str) -> str:
    """Return the pointer quoted, safe to print, and cut where it is long."""
    cut = pointer if len(pointer) <= MAX_SHOWN else pointer[: MAX_SHOWN - 1] + "…"
    return json.dumps(cut, ensure_ascii=False).encode(errors="backslashreplace").decode()
