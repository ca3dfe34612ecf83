"""Where calls of asyncio run: on threads of their own, over the connections that all share.

A second transport on asyncio's streams would be a second set of the rules about
what may be repeated, and bound to one loop. The loop's default threads are few
and serve the program's name look-ups, which a stopped daemon must not hold up.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, TypeVar

R = TypeVar("R")
THREADS = 16

_executors: dict[int, ThreadPoolExecutor] = {}


async def off_loop(function: Callable[..., R], *args: Any, **more: Any) -> R:
    """The result of a blocking call. Cancelled, it still ends on its thread, unheard."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_executor(), partial(function, *args, **more))


def _executor() -> ThreadPoolExecutor:
    """This process's: a fork copies an executor, but none of its threads."""
    pid = os.getpid()
    if pid not in _executors:
        _executors.setdefault(pid, ThreadPoolExecutor(THREADS, "bucketd-client"))
    return _executors[pid]
