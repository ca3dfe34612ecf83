"""Elapsed time since boot, which nobody can set and which includes suspension."""

from __future__ import annotations

import time
from functools import cache

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boottime() -> float:
    """Return the seconds since the machine was booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def boot_id() -> str:
    """Return the id of this boot; empty if it is hidden, as by ``ProcSubset=pid``."""
    try:
        with open(_BOOT_ID) as file:
            return file.read().strip()
    except OSError:
        return ""


def is_this_boot(saved_id: str, saved_boottime: float) -> bool:
    """Report whether a boot time was read in this boot, as far as that is known."""
    if saved_id and boot_id():
        return saved_id == boot_id()
    return saved_boottime <= boottime()
