"""``bucketd`` that collects no garbage until SIGUSR1, and then logs how many objects that were."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from typing import Any

from bucketd.__main__ import main


def collect(*_: Any) -> None:
    logging.getLogger("bucketd").warning("collected %d", gc.collect())


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, collect)
    gc.disable()
    sys.exit(main())
