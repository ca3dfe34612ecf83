"""The status document, from which ``GET /v1/status`` and ``GET /metrics`` are built."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import __version__, metrics
from .api.services import Services
from .core.retention import Retention
from .model.bucket import timestamp
from .settings.sections import Settings, shown
from .store.base import Store

if TYPE_CHECKING:
    from .server import Server

_STORE_COUNTS = ("devices", "buckets", "device_buckets", "quarantined_files", "trashed_buckets")


class Status:
    """Report the daemon's status. ``problems`` returns the problems of all parts but the store."""

    def __init__(self, settings: Settings, problems: Callable[[], Iterable[str]]) -> None:
        self.settings = settings
        self._problems = problems
        self._started, self._started_at = time.monotonic(), timestamp()
        self._settings_since = self._started_at
        self.settings_problem: str | None = None

    def attach(
        self, store: Store, services: Services, server: Server, retention: Retention
    ) -> None:
        """Set the parts to report on, once they exist."""
        self._store, self._services = store, services
        self._server, self._retention = server, retention

    def reload_succeeded(self, settings: Settings) -> None:
        """Note that these settings are in force from now on."""
        self.settings, self._settings_since = settings, timestamp()
        self.settings_problem = None

    def reload_failed(self, problem: str) -> None:
        """Note that a reload has found settings that cannot be used, so the old ones stay."""
        self.settings_problem = (
            f"the settings of {self._settings_since} stay in force, since the reload at "
            f"{timestamp()} failed: {problem}"
        )

    async def document(self) -> dict[str, Any]:
        """Return the status document."""
        store = await self._store.check()
        counts = {name: store.pop(name) for name in list(store) if name in _STORE_COUNTS}
        schemas = self._services.schemas
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "durability": store["durability"],
            "problems": list(self._problems()),
            "store": store,
            "schemas": {"count": len(schemas.entries()), "problems": schemas.problems()},
            "backup": self._services.backups.last,
            "socket": self.settings.socket.path,
            "settings": shown(self.settings),
            "settings_since": self._settings_since,
            "settings_problem": self.settings_problem,
            "counts": {
                **counts,
                "contexts": len(self._services.contexts),
                "connections": len(self._server.connections),
                "watchers": len(self._services.events),
                **self._services.holds.counts,
                "swept": self._retention.swept,
                "requests": self._server.requests_count,
            },
        }

    async def exposition(self) -> bytes:
        """Return the metrics as Prometheus text."""
        collector = metrics.Collector(
            await self.document(),
            self._services.tally,
            {**self._store.histograms, "bucketd_hold_wait_seconds": self._services.holds.waited},
        )
        return await asyncio.to_thread(metrics.exposition, collector)
