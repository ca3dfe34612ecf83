"""Scratch directories for disks as a crash leaves them, of which a test writes out thousands."""

from __future__ import annotations

import os
import tempfile

_MEMORY = "/dev/shm"


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a directory in memory, where there is one: what is tested is what it holds."""
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="bd-", dir=memory)
