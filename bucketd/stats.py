"""Histograms and request counts: cheap to add to, and read only for metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

SECONDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Histogram:
    """Count values by bounds: each count is of values up to its bound, the last of all others."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def include(self, other: Histogram) -> None:
        """Add the counts of another histogram with the same bounds."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class RequestCounter:
    """Count requests and their times by path and method of the route, and by status."""

    def __init__(self) -> None:
        self.rows: defaultdict[tuple[tuple[str, str], int], Histogram] = defaultdict(Histogram)

    def add(self, about: tuple[str, str], status: int, seconds: float) -> None:
        self.rows[about, status].add(seconds)
