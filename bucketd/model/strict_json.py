"""Parse and write JSON exactly; refuse NaN, numbers that would be rounded, and lone surrogates.

orjson refuses nearly all of these. It accepts an integer beyond 64 bits and turns it into a double.
That is exact if the digits are those that JavaScript prints for the double (up to 10^21 without an
exponent); any other such integer is refused here. Such an integer has a run of at least 19 digits,
so only JSON with such a run where a number may stand is parsed a second time.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from ..errors import InvalidJson

# orjson writes 254 levels, of which the envelope around a bucket needs some.
MAX_DEPTH = 250
# Characters of a JSON Pointer in an error.
MAX_SHOWN = 200
_SPARE = 254 - MAX_DEPTH
_DIGITS_ONLY = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_RUN = b"0" * 19
_BLANKS = b" \t\r\n"
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def loads(text: bytes, what: str = "the request body") -> Any:
    """Parse UTF-8 JSON; raise InvalidJson for a value that cannot be kept exactly.

    The message names the value by its JSON Pointer and never shows it.
    """
    try:
        value = _parsed(text)
        if _may_have_long_integer(text):
            json.loads(text, parse_int=_check_integer)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"cannot read {what}: {_cause(text, error)}") from None
    return value


def _may_have_long_integer(text: bytes) -> bool:
    """Report whether a run of 19 digits begins where a number may, and not inside a string."""
    # ``translate`` and ``find`` are far faster than a regular expression.
    digits = text.translate(_DIGITS_ONLY)
    start = digits.find(_LONG_RUN)
    while start >= 0:
        before = start - 1
        if before >= 0 and text[before] in b"-":
            before -= 1
        while before >= 0 and text[before] in _BLANKS:
            before -= 1
        if before < 0 or text[before] in b":,[":
            return True
        start = digits.find(_LONG_RUN, digits.find(b" ", start))
    return False


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "allocate memory" not in error.msg:
            raise
    # Blanks after the first bracket make orjson expect indented JSON, and reserve too little memory
    # for JSON that has no blanks further on.
    text = text.lstrip(_BLANKS)
    return orjson.loads(text[:1] + text[1:].lstrip(_BLANKS))


def loads_object(text: bytes, what: str = "the request body") -> dict[str, Any]:
    """Parse a JSON object; raise InvalidJson for anything else."""
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
    """Return compact JSON; raise InvalidJson if it is nested deeper than MAX_DEPTH."""
    # With these further levels orjson itself finds a value that is nested too deeply; walking the
    # value takes far longer.
    for _ in range(_SPARE):
        value = (value,)
    try:
        # The result is copied, since orjson's own bytes occupy some 4 KiB however short they are,
        # and the cache keeps buckets.
        return bytes(memoryview(orjson.dumps(value))[_SPARE:-_SPARE])
    except TypeError as error:
        if "ecursion" in str(error):
            raise _too_deep(what) from None
        raise


def members(values: dict[str, Any], what: str = "the bucket") -> dict[str, bytes]:
    """Return ``split(values)``; raise InvalidJson where a value is nested deeper than MAX_DEPTH."""
    if any(isinstance(value, (dict, list)) for value in values.values()):
        dumps(values, what)
    return split(values)


def split(values: dict[str, Any]) -> dict[str, bytes]:
    """Return ``"key":value`` as compact JSON for each key, of values that ``dumps`` accepts."""
    # Copied for the reason given in ``dumps``.
    return {
        key: bytes(memoryview(orjson.dumps({key: value}))[1:-1]) for key, value in values.items()
    }


def same(one: bytes, other: bytes) -> bool:
    """Report whether two results of ``dumps`` hold the same value, in any order of keys."""
    if one == other:
        return True
    if len(one) != len(other):
        return False
    return equal(orjson.loads(one), orjson.loads(other))


def equal(one: Any, other: Any) -> bool:
    """Report whether two values have the same JSON; 1, 1.0 and true differ."""
    return one == other and _sorted(one) == _sorted(other)


def equivalent(one: Any, other: Any) -> bool:
    """Report whether two values are equal by RFC 6902 §4.6: 1 and 1.0 are, 1 and true are not."""
    # Python's == alone treats true as equal to 1.
    return one == other and (_sorted(one) == _sorted(other) or _same_booleans(one, other))


def _same_booleans(one: Any, other: Any) -> bool:
    """Report whether two values that are ``==`` have their booleans in the same places."""
    if isinstance(one, dict):
        return all(_same_booleans(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return all(map(_same_booleans, one, other))
    return isinstance(one, bool) == isinstance(other, bool)


def kind_of(value: Any) -> str:
    """Return the JSON type of a value with its article: "a number", "null"."""
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


# --- the search for the value that cannot be kept


class _Refused(NamedTuple):
    """A value that cannot be kept: its kind, and the cause as the end of a sentence."""

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
    # More digits are always out of range, and int() may refuse them.
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
    """Return the first refused value and its pointer; objects are tuples of pairs here."""
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
    """Return a JSON Pointer quoted and safe to print; a long one is cut."""
    cut = pointer if len(pointer) <= MAX_SHOWN else pointer[: MAX_SHOWN - 1] + "…"
    return json.dumps(cut, ensure_ascii=False).encode(errors="backslashreplace").decode()
