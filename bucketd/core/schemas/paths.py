"""Find the exact path of a violation in its bucket.

The library leaves empty keys out of a path, and turns keys of digits into numbers: for
``/a//007`` it returns ``["a", 7]``. The bucket and the value there tell which keys those were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# Values looked at for all violations of a bucket; beyond that the library's path stands.
MAX_LOOKS = 20_000
_DIGITS = re.compile(r"\+?[0-9]+")


class Paths:
    """The exact paths in one bucket."""

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket
        self._looks = 0

    def exact(self, steps: list[Any], value: Any) -> list[Any]:
        """Return the path of a value; keys are strings, and the places of an array are numbers."""
        return next(self._matching(self._bucket, steps, value), steps)

    def _matching(self, here: Any, steps: list[Any], value: Any) -> Iterator[list[Any]]:
        """Yield each path from here that the library would tell by these steps, shortest first."""
        self._looks += 1
        if self._looks > MAX_LOOKS:
            return
        if not steps and _is_meant(here, value):
            yield []
        for step, left in self._next(here, steps):
            for rest in self._matching(here[step], left, value):
                yield [step, *rest]

    def _next(self, here: Any, steps: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
        first = steps[0] if steps else None
        if isinstance(here, list):
            if isinstance(first, int) and first < len(here):
                yield first, steps[1:]
            return
        if not isinstance(here, dict):
            return
        if steps and str(first) in here:
            yield str(first), steps[1:]
        if isinstance(first, int):
            self._looks += len(here)
            yield from ((key, steps[1:]) for key in here if _is_number(key, first))
        if "" in here:
            yield "", steps


def _is_meant(here: Any, value: Any) -> bool:
    """Report whether a violation is of this value, or of one of its keys."""
    return bool(here == value) or (
        isinstance(here, dict) and isinstance(value, str) and value in here
    )


def _is_number(key: str, number: int) -> bool:
    return key != str(number) and _DIGITS.fullmatch(key) is not None and int(key) == number
