"""JSON that is kept exactly or refused, as by the daemon."""

from __future__ import annotations

import json
from typing import Any

from .._api import why_no_json
from .._errors import error
from .._json_patch import kind_of

LOWEST, HIGHEST = -(2**63), 2**64 - 1
# JavaScript prints a double below this without an exponent.
JAVASCRIPT_EXPONENT = 10**21
MAX_DEPTH = 250


def loads(text: bytes) -> Any:
    """Return the value of UTF-8 JSON. Raise InvalidJson for JSON that could not be kept exactly."""
    try:
        value = json.loads(
            text.decode(), parse_int=_exact, parse_float=_finite, parse_constant=_no_constant
        )
    except UnicodeDecodeError as problem:
        cause = f"it is not UTF-8 (byte {problem.start})"
    except RecursionError:
        cause = f"it is nested deeper than {MAX_DEPTH} levels"
    except json.JSONDecodeError as problem:
        cause = f"not valid JSON (line {problem.lineno} column {problem.colno})"
    except ValueError as problem:
        cause = str(problem)
    else:
        found = why_no_json(value, "")
        if found is None:
            return value
        cause = found
    raise error("invalid_json", f"cannot read the request body: {cause}")


def loads_object(text: bytes) -> dict[str, Any]:
    """Return the dict of a JSON object. Raise InvalidJson for any other JSON."""
    return as_object(loads(text))


def as_object(value: Any) -> dict[str, Any]:
    """Return the value. Raise InvalidJson unless it is an object."""
    if isinstance(value, dict):
        return value
    raise error(
        "invalid_json",
        "cannot use the request body: it must be a JSON object such as "
        f'{{"loggedIn": true}}, got {kind_of(value)}',
    )


def refuse_masks(value: Any) -> None:
    """Raise InvalidRequest for a value with a mask, which stands for a secret, in it."""
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            if here.get("$masked") is True:
                raise error(
                    "invalid_request",
                    "cannot write a mask: it stands for a secret value that was not shown; "
                    "leave that key out, so that it stays, or send its value",
                )
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def dumps(value: Any) -> bytes:
    """Return compact JSON, of which the daemon counts the size."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def kept(value: Any) -> bytes:
    """Return compact JSON. Raise InvalidJson for a bucket that is nested too deep."""
    if _deeper(value, MAX_DEPTH):
        raise error(
            "invalid_json", f"cannot keep the bucket: it is nested deeper than {MAX_DEPTH} levels"
        )
    return dumps(value)


def equal(one: Any, other: Any) -> bool:
    """Report whether both are the same JSON, in any order; 1, 1.0 and true differ."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(each, levels - 1) for each in inner)


def _exact(digits: str) -> int | float:
    """Return an integer of 64 bits, or the double whose digits JavaScript prints."""
    if len(digits) <= 22:
        value = int(digits)
        if LOWEST <= value <= HIGHEST:
            return value
        if abs(value) < JAVASCRIPT_EXPONENT and _javascript_digits(value) == digits:
            return float(value)
    raise ValueError(
        f"an integer of {len(digits)} characters is outside -2^63 … 2^64-1 and would be rounded; "
        "send it as a string"
    )


def _javascript_digits(value: int) -> str:
    """Return how JavaScript prints the double nearest to an integer from 2^63 to 10^21."""
    mantissa, _, exponent = repr(float(value)).partition("e")
    sign = "-" if value < 0 else ""
    digits = mantissa.lstrip("-").replace(".", "")
    return sign + digits.ljust(int(exponent) + 1, "0")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is larger than any double; send it as a string")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"a number is {name}, which JSON cannot hold; send null or a string")
