"""Samples and their percentiles, in seconds; the rounds of all contestants alternate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Samples:
    """The times and rates of one contestant in all rounds."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        return percentile(self.seconds, 50)

    @property
    def p99(self) -> float:
        return percentile(self.seconds, 99)

    @property
    def rate(self) -> float:
        """The operations per second, as the median of the rounds."""
        return statistics.median(self.rates)


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def alternate(contestants: dict[str, Callable[[Samples], None]], rounds: int) -> dict[str, Samples]:
    """Run each contestant once per round, so that a drift of the machine affects all equally."""
    found = {name: Samples() for name in contestants}
    for run in contestants.values():
        # The first run warms caches and is not counted.
        run(Samples())
    for _ in range(rounds):
        for name, run in contestants.items():
            run(found[name])
    return found


def one_by_one(call: Callable[[int], object], times: int) -> Callable[[Samples], None]:
    """Return a contestant that calls ``call(number)`` so many times per round, each one timed."""
    counter = iter(range(10**9))

    def run(samples: Samples) -> None:
        began = time.perf_counter()
        for _ in range(times):
            number = next(counter)
            start = time.perf_counter()
            call(number)
            samples.seconds.append(time.perf_counter() - start)
        samples.rates.append(times / (time.perf_counter() - began))

    return run
