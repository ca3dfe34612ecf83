"""``bucketd`` to which etcd tells of each change late."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

from bucketd.__main__ import main
from bucketd.store.etcd import watch

SECONDS = 0.3
_watch = watch.watch


async def late(*args: Any) -> AsyncGenerator[list[watch.Event], None]:
    async for events in _watch(*args):
        if events:
            await asyncio.sleep(SECONDS)
        yield events


if __name__ == "__main__":
    watch.watch = late
    sys.exit(main())
