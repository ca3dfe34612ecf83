"""JSON that is kept exactly, or refused, as the daemon does it."""

from __future__ import annotations

import json
from typing import Any

from .._errors import error

LOWEST, HIGHEST = -(2**63), 2**64 - 1
MAX_DEPTH = 250


def loads(text: bytes) -> Any:
    """UTF-8 JSON as a value; InvalidJson for what could not be given back as it came."""
    try:
        value = json.loads(
            text.decode(), parse_int=_exact, parse_float=_finite, parse_constant=_no_constant
        )
        dumps(value)
    except UnicodeEncodeError:
        cause = "it has a lone surrogate"
    except RecursionError:
        cause = f"it is nested deeper than {MAX_DEPTH} levels"
    except ValueError as problem:
        cause = str(problem)
    else:
        return value
    raise error("invalid_json", f"cannot read the request body: {cause}")


def loads_object(text: bytes) -> dict[str, Any]:
    """The same for a JSON object; InvalidJson for other JSON as well."""
    value = loads(text)
    if isinstance(value, dict):
        return value
    raise error(
        "invalid_json",
        "cannot use the request body: it must be a JSON object such as "
        f'{{"loggedIn": true}}, got {kind_of(value)}',
    )


def dumps(value: Any) -> bytes:
    """Compact, as the daemon stores it and counts its size."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def kept(value: Any) -> bytes:
    """``dumps``, but InvalidJson for what is nested deeper than a bucket may be."""
    if _deeper(value, MAX_DEPTH):
        raise error(
            "invalid_json", f"cannot keep the bucket: it is nested deeper than {MAX_DEPTH} levels"
        )
    return dumps(value)


def equal(one: Any, other: Any) -> bool:
    """Whether both are the same JSON, in which 1, 1.0 and true differ and order is none."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def same_value(one: Any, other: Any) -> bool:
    """The same, but numbers by their value (RFC 6902, 4.6)."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def kind_of(value: Any) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
    }
    return "null" if value is None else names.get(type(value), "an object")


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(each, levels - 1) for each in inner)


def _exact(digits: str) -> int:
    value = int(digits) if len(digits) <= 40 else HIGHEST + 1
    if not LOWEST <= value <= HIGHEST:
        raise ValueError(
            f"the integer {digits[:40]} is outside -2^63 … 2^64-1 and would be rounded"
        )
    return value


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is beyond all that can be kept")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
