"""Prometheus text for ``GET /metrics``, rendered at each scrape.

Nothing here runs between two scrapes, and only the first scrape imports prometheus_client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from .stats import Histogram, RequestCounter

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Name, help text, and path in the status document.
GAUGES = (
    ("bucketd_uptime_seconds", "Time since the daemon started.", "uptime_seconds"),
    ("bucketd_contexts", "Live job contexts.", "counts.contexts"),
    ("bucketd_connections", "Open connections.", "counts.connections"),
    ("bucketd_devices", "Devices with a stored bucket.", "counts.devices"),
    ("bucketd_buckets", "Stored buckets of jobs.", "counts.buckets"),
    ("bucketd_device_buckets", "Stored device buckets.", "counts.device_buckets"),
    ("bucketd_quarantined_files", "Files in the quarantine.", "counts.quarantined_files"),
    (
        "bucketd_trashed_buckets",
        "Deleted buckets that can be restored.",
        "counts.trashed_buckets",
    ),
    ("bucketd_watchers", "Open event streams.", "counts.watchers"),
    ("bucketd_holds", "Live holds.", "counts.holds"),
    ("bucketd_hold_waiters", "Requests that wait for a hold.", "counts.hold_waiters"),
    ("bucketd_cached_buckets", "Buckets in the cache.", "store.cached_buckets"),
    ("bucketd_cache_bytes", "Size of the cache in memory.", "store.cache_bytes"),
    ("bucketd_store_healthy", "1 while the store accepts writes.", "store.healthy"),
    (
        "bucketd_journal_damaged",
        "1 if the journal was damaged at the start.",
        "store.journal_damaged",
    ),
    ("bucketd_schemas", "Schemas in force.", "schemas.count"),
    (
        "bucketd_last_backup_timestamp_seconds",
        "Unix time of the last complete backup, by bucketctl backup.",
        "backup.at",
    ),
)
COUNTERS = (
    ("bucketd_commits_total", "Changes made durable.", "store.commits"),
    ("bucketd_journal_bytes_total", "Bytes appended to the journal.", "store.journal_bytes"),
    ("bucketd_journal_syncs_total", "Calls of fdatasync on the journal.", "store.journal_syncs"),
    ("bucketd_file_syncs_total", "Calls of syncfs for bucket files.", "store.file_syncs"),
    ("bucketd_file_writes_total", "Bucket files written.", "store.file_writes"),
    ("bucketd_cache_hits_total", "Reads served by the cache.", "store.cache_hits"),
    ("bucketd_cache_misses_total", "Reads that had to read the file.", "store.cache_misses"),
    (
        "bucketd_fences_refused_total",
        "Writes refused since the hold of their fence had ended.",
        "counts.fences_refused",
    ),
    ("bucketd_swept_buckets_total", "Buckets removed by retention.", "counts.swept"),
    (
        "bucketd_replayed_files_total",
        "Files restored from the journal at the start.",
        "store.replayed_files",
    ),
)
HISTOGRAMS = {
    "bucketd_commit_seconds": "Time to commit a batch of changes, until it is acknowledged.",
    "bucketd_commit_batch_size": "Changes that shared one append to the journal.",
    "bucketd_fsync_seconds": "Duration of one fdatasync of the journal.",
    "bucketd_hold_wait_seconds": "Time from the request of a hold until it was had.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Collector:
    """Collect the metrics of one moment: the status document, requests, histograms by name."""

    status: Mapping[str, Any]
    requests: RequestCounter
    histograms: Mapping[str, Histogram]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; prometheus_client calls this at a scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        info = GaugeMetricFamily("bucketd_info", "Version of the daemon.", None, ("version",))
        info.add_metric((self.status["version"],), 1)
        yield info
        for name, text, path in GAUGES:
            if (value := self._value(path)) is not None:
                yield GaugeMetricFamily(name, text, value)
        for name, text, path in COUNTERS:
            if (value := self._value(path)) is not None:
                yield CounterMetricFamily(name, text, value)
        for name, text in HISTOGRAMS.items():
            if name in self.histograms:
                yield _family(name, text, (), {(): self.histograms[name]})
        yield from self._request_metrics()

    def _request_metrics(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        rows = list(self.requests.rows.items())
        requests = CounterMetricFamily(
            "bucketd_requests",
            "Requests by route, method and status.",
            None,
            ("route", "method", "status"),
        )
        seconds: dict[tuple[str, ...], Histogram] = {}
        for ((route, method), status), row in rows:
            requests.add_metric((route, method, str(status)), sum(row.counts))
            seconds.setdefault((route, method), Histogram()).include(row)
        yield requests
        text = "Time from a request's head to its response."
        yield _family("bucketd_request_seconds", text, ("route", "method"), seconds)

    def _value(self, path: str) -> float | None:
        found: Any = self.status
        for part in path.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, str):
            return datetime.fromisoformat(found).timestamp()
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


def exposition(collector: Collector) -> bytes:
    """Return the metrics as Prometheus text, in milliseconds; the first call takes tens of them."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)
