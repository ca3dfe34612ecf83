"""Times as people write them: ``60s``, ``5m``, ``1.5h``, ``2d``, or a number of seconds."""

from __future__ import annotations

import re

from .._context import MAX_SECONDS
from .parser import Usage

UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_FORM = re.compile(rf"(\d+(?:\.\d+)?|\.\d+)({'|'.join(sorted(UNITS, key=len, reverse=True))})")


def seconds(text: str, option: str) -> float:
    """Return a time in seconds. Raises Usage, which names the option."""
    found = _FORM.fullmatch(text)
    number = float(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < number <= MAX_SECONDS:
        raise Usage(f"cannot use --{option} {text}: it must be a time such as 60s, 5m, 2h or 7d")
    return number
