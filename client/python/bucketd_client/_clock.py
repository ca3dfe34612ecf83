"""The monotonic clock for deadlines, which also runs while a test tool has frozen ``time``."""

from __future__ import annotations

from time import CLOCK_MONOTONIC, clock_gettime


def monotonic() -> float:
    """Return seconds of the system's monotonic clock.

    Test tools such as freezegun replace ``time.monotonic`` in all modules. On such a frozen clock a
    deadline would never pass.
    """
    return clock_gettime(CLOCK_MONOTONIC)
