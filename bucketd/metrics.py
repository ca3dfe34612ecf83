"""The text of ``GET /metrics``: the daemon's figures as Prometheus metrics, made when asked for.

Nothing here runs between two scrapes, and prometheus_client is imported by the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from .stats import Histogram, RequestCounter

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Name, what it tells, and where in the status it stands.
GAUGES = (
    ("bucketd_uptime_seconds", "Time since the daemon started.", "uptime_seconds"),
    ("bucketd_contexts", "Live job contexts.", "counts.contexts"),
    ("bucketd_connections", "Open connections.", "counts.connections"),
    ("bucketd_devices", "Devices with something stored.", "counts.devices"),
    ("bucketd_buckets", "Stored buckets of jobs.", "counts.buckets"),
    ("bucketd_device_buckets", "Stored device buckets.", "counts.device_buckets"),
    ("bucketd_quarantined_files", "Files kept in the quarantine.", "counts.quarantined_files"),
    ("bucketd_watchers", "Open event streams.", "counts.watchers"),
    ("bucketd_cached_buckets", "Buckets in the cache.", "store.cached_buckets"),
    ("bucketd_cache_bytes", "Memory that the cache takes.", "store.cache_bytes"),
    ("bucketd_store_healthy", "1 while writes are taken.", "store.healthy"),
    ("bucketd_journal_damaged", "1 if the start found a damaged journal.", "store.journal_damaged"),
    ("bucketd_schemas", "Schemas in force.", "schemas.count"),
)
COUNTERS = (
    ("bucketd_commits_total", "Changes made durable.", "store.commits"),
    ("bucketd_journal_bytes_total", "Bytes appended to the journal.", "store.journal_bytes"),
    ("bucketd_journal_syncs_total", "Calls of fdatasync on the journal.", "store.journal_syncs"),
    ("bucketd_file_syncs_total", "Calls of syncfs for bucket files.", "store.file_syncs"),
    ("bucketd_file_writes_total", "Bucket files written.", "store.file_writes"),
    ("bucketd_cache_hits_total", "Reads that the cache answered.", "store.cache_hits"),
    ("bucketd_cache_misses_total", "Reads that took a look into the file.", "store.cache_misses"),
    ("bucketd_swept_buckets_total", "Buckets removed by retention.", "counts.swept"),
    ("bucketd_replayed_files_total", "Files completed at the start.", "store.replayed_files"),
)
HISTOGRAMS = {
    "bucketd_commit_seconds": "Time from taking up a batch of changes until it is answered.",
    "bucketd_commit_batch_size": "Changes that shared one append to the journal.",
    "bucketd_fsync_seconds": "Time of one fdatasync of the journal.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """All that is known at one moment: the status page, requests, and histograms by name."""

    status: Mapping[str, Any]
    requests: RequestCounter
    histograms: Mapping[str, Histogram]

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        info = GaugeMetricFamily("bucketd_info", "Which daemon this is.", None, ("version",))
        info.add_metric((self.status["version"],), 1)
        yield info
        for name, text, place in GAUGES:
            if (value := self._at(place)) is not None:
                yield GaugeMetricFamily(name, text, value)
        for name, text, place in COUNTERS:
            if (value := self._at(place)) is not None:
                yield CounterMetricFamily(name, text, value)
        for name, text in HISTOGRAMS.items():
            if name in self.histograms:
                yield _family(name, text, (), {(): self.histograms[name]})
        yield from self._of_requests()

    def _of_requests(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        rows = list(self.requests.rows.items())
        requests = CounterMetricFamily(
            "bucketd_requests", "Requests answered.", None, ("route", "method", "status")
        )
        seconds: dict[tuple[str, ...], Histogram] = {}
        for (path, method, status), row in rows:
            requests.add_metric((path, method, str(status)), sum(row.counts))
            seconds.setdefault((path, method), Histogram()).include(row)
        yield requests
        text = "Time from a request's head to its answer."
        yield _family("bucketd_request_seconds", text, ("route", "method"), seconds)

    def _at(self, place: str) -> float | None:
        found: Any = self.status
        for part in place.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return None if found is None else float(found)


def _family(
    name: str, text: str, labels: tuple[str, ...], rows: Mapping[tuple[str, ...], Histogram]
) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=labels)
    for values, row in rows.items():
        bounds = [*(f"{bound:g}" for bound in row.bounds), "+Inf"]
        counts = accumulate(row.counts)
        family.add_metric(values, list(zip(bounds, counts, strict=True)), row.total)
    return family


def exposition(figures: Figures) -> bytes:
    """Prometheus text; takes milliseconds, and the first time some tens of them."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(figures)
    return generate_latest(registry)
