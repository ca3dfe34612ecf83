"""JSON values and names, checked as the daemon does it."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from .._api import why_no_json
from .._errors import error
from .._json_patch import kind_of

LOWEST, HIGHEST = -(2**63), 2**64 - 1


def loads(text: bytes) -> Any:
    """Return the value of JSON that can be kept exactly. Raise InvalidJson for other text."""
    try:
        value = json.loads(text.decode(), parse_int=_integer)
        cause = why_no_json(value, "")
    except (UnicodeDecodeError, RecursionError):
        cause = "it is not UTF-8, or nested too deep"
    except json.JSONDecodeError as problem:
        cause = f"not valid JSON (line {problem.lineno} column {problem.colno})"
    except ValueError as problem:
        cause = str(problem)
    if cause is None:
        return value
    raise error("invalid_json", f"cannot read the request body: {cause}")


def _integer(digits: str) -> int:
    if len(digits) <= 20 and LOWEST <= int(digits) <= HIGHEST:
        return int(digits)
    raise ValueError("an integer is outside -2^63 … 2^64-1, and would be rounded; send a string")


def as_object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise error(
        "invalid_json",
        "cannot use the request body: it must be a JSON object such as "
        f'{{"loggedIn": true}}, got {kind_of(value)}',
    )


def merged(target: Any, patch: Any) -> Any:
    """Merge by RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def check_name(name: Any, what: str) -> None:
    is_text = isinstance(name, str) and 0 < len(name) <= 128
    if not is_text or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise error(
            "invalid_request",
            f"cannot use the {what} name: it must have 1 to 128 characters, none a control "
            "character or a lone surrogate",
        )
