"""bucketd, killed by SIGKILL at a named step: ``killed_daemon.py CALL:WHEN:NTH serve …``.

CALL is a file system call of the store (``pwrite``, ``fdatasync``, ``rename`` …), WHEN
is ``before`` or ``after`` it, NTH counts such calls from 1.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from bucketd.__main__ import main
from bucketd.fs import files, logfile


class KillingOs:
    """Stands in for ``os`` inside ``disk`` and ``logfile``."""

    def __init__(self, plan: str) -> None:
        self.call, self.when, nth = plan.split(":")
        self.left = int(nth)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self.deadly(real) if name == self.call else real

    def deadly(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0 and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


if __name__ == "__main__":
    killing = KillingOs(sys.argv.pop(1))
    if killing.call == "syncfs":
        files.syncfs = killing.deadly(files.syncfs)
    else:
        files.os = logfile.os = killing  # type: ignore[assignment]
    sys.exit(main())
