"""``loads`` and ``dumps`` of ``json``, by its C part alone where this Python has one.

``json`` compiles regular expressions that its C part never looks at, and what those need takes
longer to import than all else that a call of bucketctl does. Whatever is no JSON goes on to
``json`` itself, which knows best what to say of it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\n\r"


def loads(text: str) -> Any:
    """``json.loads(text)``. Raises ValueError, or RecursionError."""
    found = _scanned(text)
    if found is None:
        from json import loads as slowly

        return slowly(text)
    return found[0]


def dumps(value: Any, separators: tuple[str, str] = (", ", ": "), allow_nan: bool = True) -> str:
    """``json.dumps(value, ensure_ascii=False, …)``. Raises as that does."""
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
    """How the scanner reads, which it is told by attributes as ``json.JSONDecoder`` has them."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float


def _scanned(text: str) -> tuple[Any, int] | None:
    """The value and where it ends; None where that is not all, or nothing."""
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
    import _json  # CPython's; another Python, or a later one, may have it in another way

    _quoted = _json.encode_basestring
    _scan, _encoder = _json.make_scanner(_Reading), _json.make_encoder  # type: ignore[arg-type]
    dumps([0.5, {"a": None}])
except (ImportError, AttributeError, TypeError):
    _scan = _encoder = None
