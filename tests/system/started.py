"""bucketd as systemd starts it, run by hand: ``started.py FDS SLOW DEFECT serve …``.

FDS are inherited descriptors, with commas between, that become 3, 4, …; while
a file named SLOW exists, nothing that is written becomes durable. A file named
DEFECT names the error by which a background task dies.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from bucketd import daemon
from bucketd.__main__ import main
from bucketd.core.clock_record import ClockRecord
from bucketd.fs import logfile


class SlowOs:
    """Stands in for ``os`` inside ``logfile``."""

    def __init__(self, slow: Path) -> None:
        self.slow = slow

    def __getattr__(self, name: str) -> Any:
        return self.fdatasync if name == "fdatasync" else getattr(os, name)

    def fdatasync(self, fd: int) -> None:
        while self.slow.exists():
            time.sleep(0.01)
        os.fdatasync(fd)


class DefectiveClock(ClockRecord):
    """Has a background task with a defect, as long as a file says so."""

    defect: Path

    async def keep(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.observe()
            if self.defect.exists():
                raise {"error": RuntimeError, "end": asyncio.CancelledError}[
                    self.defect.read_text()
                ]
            await asyncio.sleep(0.05)


def hand_over(given: list[int]) -> None:
    for number, fd in enumerate(given, start=3):
        os.dup2(fd, number, inheritable=True)
    if given:
        os.environ |= {"LISTEN_FDS": str(len(given)), "LISTEN_PID": str(os.getpid())}


if __name__ == "__main__":
    fds, slow = sys.argv.pop(1), Path(sys.argv.pop(1))
    DefectiveClock.defect = Path(sys.argv.pop(1))
    daemon.ClockRecord = DefectiveClock  # type: ignore[misc]
    hand_over([int(fd) for fd in fds.split(",") if fd])
    logfile.os = SlowOs(slow)  # type: ignore[assignment]
    sys.exit(main())
