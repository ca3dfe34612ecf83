"""``loads`` and ``dumps`` of ``json``, by its C extension if this Python has it.

``json`` imports ``re`` and compiles patterns that the C extension does not need; that takes longer
than the rest of a call of bucketctl. Text that is not JSON is passed to ``json`` itself, for its
error message.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\n\r"


def loads(text: str) -> Any:
    """Return ``json.loads(text)``. Raise ValueError or RecursionError."""
    found = _scanned(text)
    if found is None:
        from json import loads as slowly

        return slowly(text)
    return found[0]


def dumps(value: Any, separators: tuple[str, str] = (", ", ": "), allow_nan: bool = True) -> str:
    """Return ``json.dumps(value, ensure_ascii=False, …)``. Raise as that does."""
    if _encoder is None:
        from json import dumps as slowly

        return slowly(value, ensure_ascii=False, separators=separators, allow_nan=allow_nan)
    if isinstance(value, str):
        return _quoted(value)
    between, after_key = separators
    encode = _encoder({}, _refuse, _quoted, None, after_key, between, False, False, allow_nan)
    return "".join(encode(value, 0))


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


class _Reading:
    """The options of the scanner, as attributes of a ``json.JSONDecoder``."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float


def _scanned(text: str) -> tuple[Any, int] | None:
    """Return the value and its end, None if the text is not one JSON value."""
    if _scan is None:
        return None
    text = text.strip(_SPACE)
    try:
        found: tuple[Any, int] = _scan(text, 0)
    except (StopIteration, ValueError):
        return None
    return found if found[1] == len(text) else None


_scan: Any = None
_encoder: Any = None
try:
    # CPython has this module; another Python, or a later version, may have another one.
    import _json

    _quoted = _json.encode_basestring
    _scan, _encoder = _json.make_scanner(_Reading), _json.make_encoder  # type: ignore[arg-type]
    dumps([0.5, {"a": None}])
except (ImportError, AttributeError, TypeError):
    _scan = _encoder = None
