"""``bucketd`` to which etcd tells of each change late."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

from bucketd.__main__ import main
from bucketd.store import etcdwatch

SECONDS = 0.3
_watch = etcdwatch.watch


async def late(*args: Any) -> AsyncGenerator[list[etcdwatch.Event], None]:
    async for events in _watch(*args):
        if events:
            await asyncio.sleep(SECONDS)
        yield events


if __name__ == "__main__":
    etcdwatch.watch = late
    sys.exit(main())
