"""Work that takes long and waits for nothing: on one thread beside the event loop, in turn.

Only one thread runs Python at a time. More of them would get no more done, and the loop
would have to wait behind each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_worker = ThreadPoolExecutor(1, thread_name_prefix="bucketd-work")


async def aside(function: Callable[..., T], *given: Any) -> T:
    """What the function returns or raises, worked out beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(_worker, function, *given)
