"""The clock for deadlines: monotonic, and running while a test tool has frozen ``time``."""

from __future__ import annotations

from time import CLOCK_MONOTONIC, clock_gettime


def monotonic() -> float:
    """Return seconds of the system's monotonic clock.

    Test tools such as freezegun replace ``time.monotonic``, wherever a module has imported it. A
    deadline on a frozen clock never passes.
    """
    return clock_gettime(CLOCK_MONOTONIC)
