"""The progress of long work, shown on a terminal only."""

from __future__ import annotations

import os
import sys
import time

from . import output

WIDTH = 30
EVERY_SECONDS = 0.1


class Progress:
    """A progress line on standard error, which is removed when the work is done."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr is not None and sys.stderr.isatty()
        self._shown = self._shown and os.environ.get("TERM") not in ("dumb", "")
        self._began = self._next = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw("")

    def at(self, count: int, part: float | None = None) -> None:
        """Show that ``count`` buckets are done, a fraction ``part`` of all (None: unknown)."""
        now = time.monotonic()
        if not self._shown or not count or now < self._next:
            return
        self._next = now + EVERY_SECONDS
        rate = count / max(now - self._began, 0.001)
        many = f"{count:,} bucket{'s' if count > 1 else ''}"
        self._draw(f"{self._what} {_bar(part)}{many}, {rate:,.0f}/s{self._left(part)}")

    def _left(self, part: float | None) -> str:
        if not part or part >= 1:
            return ""
        seconds = (time.monotonic() - self._began) * (1 - part) / part
        return f", {seconds:.0f} s left"

    def _draw(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(output.ERASE + text)
            sys.stderr.flush()
            output.erase = output.ERASE if text else ""


def _bar(part: float | None) -> str:
    if part is None:
        return ""
    done = int(min(part, 1.0) * WIDTH)
    return f"[{'#' * done}{'.' * (WIDTH - done)}] {min(part, 1.0):4.0%}  "
