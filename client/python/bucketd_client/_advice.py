"""Advice about a value that JSON does not have, and about a body that is too large.

This module is imported once something was refused.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

    from ._errors import BucketError

LARGEST_SHOWN = 3
# A method that a value has, and the advice for such values; the first that fits is shown.
_BY_METHOD = (
    ("isoformat", "store its isoformat()"),
    ("tolist", "store its tolist()"),
    ("model_dump", "store its model_dump(mode='json')"),
    ("__dataclass_fields__", "store dataclasses.asdict() of it"),
    ("_asdict", "store its _asdict()"),
    ("__await__", "await it first"),
    ("__fspath__", "store str() of it"),
)
_BY_NAME = {
    "set": "store sorted() of it, or list()",
    "frozenset": "store sorted() of it, or list()",
    "bytes": "store base64.b64encode(value).decode()",
    "bytearray": "store base64.b64encode(value).decode()",
    "Decimal": "store str() of it, or float() if rounding does no harm",
    "Fraction": "store str() of it",
    "UUID": "store str() of it",
    "timedelta": "store its total_seconds()",
    "generator": "store list() of it",
    "dict_keys": "store list() of it",
    "dict_values": "store list() of it",
}


def instead_of(value: object) -> str:
    """Return what to store instead of a value, "" where that is not known."""
    advice = _BY_NAME.get(type(value).__name__)
    if advice is None and any(each.__name__ == "Enum" for each in type(value).__mro__):
        advice = "store its value"
    if advice is None:
        advice = next((what for name, what in _BY_METHOD if hasattr(type(value), name)), None)
    return "" if advice is None else f"; {advice}"


def name_largest_keys(refusal: BucketError, body: bytes) -> None:
    """Tell the largest keys of a body that the daemon has refused without reading it."""
    if refusal.details or "request body" not in refusal.message:
        return
    data: Any = json.loads(body)
    if not isinstance(data, dict):
        return
    sizes = {
        key: len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        for key, value in data.items()
    }
    largest = sorted(sizes, key=lambda key: -sizes[key])[:LARGEST_SHOWN]
    shown = ", ".join(f"{key[:40]!r} ({sizes[key]} bytes)" for key in largest)
    refusal.message += f"; its largest keys: {shown}"
    refusal.args = (refusal.message,)
    refusal.details = [{"key": key, "bytes": sizes[key]} for key in largest]
