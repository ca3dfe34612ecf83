"""Detect jumps of the wall clock, by the elapsed time that the daemon has counted."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

MAX_JUMP_SECONDS = 60.0


def jump_seconds(status: dict[str, Any]) -> float:
    """Return by how much the clock was set since the daemon started; 0.0 if it was not.

    ``status`` is the daemon's status document. Suspension of the machine is not a jump.
    """
    try:
        elapsed = (datetime.now(timezone.utc) - parse_time(status["started_at"])).total_seconds()
        awake = float(status["uptime_seconds"])
    except (KeyError, TypeError, ValueError):
        # An older daemon does not report these members.
        return 0.0
    slept = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    jump = elapsed - awake if elapsed < awake else max(0.0, elapsed - awake - slept)
    return jump if abs(jump) > MAX_JUMP_SECONDS else 0.0


def parse_time(text: str) -> datetime:
    """Return a time of the API. Raises ValueError."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
