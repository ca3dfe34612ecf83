"""Measure one client on asyncio, in a process, as ``bench/node/contestant.mjs`` does on Node.

``python -m bench.contestant bucketd|redis SOCKET get|set CONCURRENCY COUNT [BYTES]`` prints one
line of JSON: operations a second, and percentiles of the latency in microseconds. Each of the
CONCURRENCY workers has a bucket, or a key, of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from .inprocess import module
from .timing import percentile

WARM_UP = 500  # calls that are not measured


class Place(NamedTuple):
    """The bucket or key of one worker, as two functions."""

    get: Callable[[], Awaitable[Any]]
    set: Callable[[dict[str, Any]], Awaitable[Any]]


def _bucketd(socket: str) -> Callable[[str], Place]:
    from bucketd_client import AsyncBucket

    def open_(name: str) -> Place:
        bucket: Any = AsyncBucket(device="bench", job=name, socket=socket)
        return Place(bucket.get, bucket.set)

    return open_


def _redis(socket: str) -> Callable[[str], Place]:
    client = module("redis.asyncio", "redis").Redis(unix_socket_path=socket)

    def open_(name: str) -> Place:
        async def get() -> Any:
            return json.loads(await client.get(name))

        return Place(get, lambda data: client.set(name, json.dumps(data)))

    return open_


def value_of(size: int, number: int) -> dict[str, Any]:
    data = {"n": number, "filler": ""}
    return {**data, "filler": "x" * max(0, size - len(json.dumps(data)))}


async def _measure(places: list[Place], operation: str, count: int, size: int) -> list[float]:
    numbers, seconds = iter(range(count)), []

    async def work(place: Place) -> None:
        for number in numbers:
            data = value_of(size, number) if operation == "set" else {}
            begun = time.perf_counter()
            await (place.set(data) if operation == "set" else place.get())
            seconds.append(time.perf_counter() - begun)

    await asyncio.gather(*map(work, places))
    return seconds


async def _main(kind: str, socket: str, operation: str, counts: list[int]) -> dict[str, float]:
    concurrency, count, size = counts
    open_ = {"bucketd": _bucketd, "redis": _redis}[kind](socket)
    places = [open_(f"asyncio-{worker}") for worker in range(concurrency)]
    for place in places:
        await place.set(value_of(size, 0))
    await _measure(places, operation, WARM_UP, size)
    begun = time.perf_counter()
    seconds = await _measure(places, operation, count, size)
    rate = count / (time.perf_counter() - begun)
    return {"per_second": rate} | {f"p{p}": percentile(seconds, p) * 1e6 for p in (50, 99)}


if __name__ == "__main__":
    kind, socket, operation, *counts = sys.argv[1:]
    sizes = [int(text) for text in (*counts, "1024")][:3]
    print(json.dumps(asyncio.run(_main(kind, socket, operation, sizes))))
