"""The composition root and life of one daemon: locks → store → services → server → drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from . import __version__, metrics, startup
from .api.access import Operators
from .api.handlers.contexts import sweep
from .api.services import Services
from .core.buckets import Buckets
from .core.contexts import Contexts
from .core.events.hub import Hub
from .core.quota import Quota
from .core.retention import Retention
from .core.schemas.file_watcher import keep_current
from .core.schemas.registry import Registry
from .core.schemas.replication import Local, Shared
from .model.bucket import timestamp
from .server import Server, bind, unbind
from .settings.sections import AT_START, Settings, SettingsError, shown, taken_over
from .settings.validation import unusable
from .store.file.store import FileStore
from .systemd import Manager, report

log = logging.getLogger(__name__)
_COLLECTIONS = (4_000, 4, 500)  # objects of the young, then times until the older are looked at
_SECONDS_OF_A_THREAD = 0.001  # that works beside the event loop, before that gets its turn


def operators(settings: Settings) -> Operators:
    access = settings.access
    try:
        return Operators.named(access.operator_users, access.operator_groups)
    except KeyError as error:
        kind, name = error.args
        cause = f"this host has no {kind} {name!r}"
        raise unusable(settings, f"access.operator_{kind}s", cause) from None


class Daemon:
    """One run of the daemon, from the locks to the last answer."""

    def __init__(
        self, settings: Settings, reload: Callable[[], Settings], manager: Manager
    ) -> None:
        self._settings, self._reload, self._manager = settings, reload, manager
        self._started, self._started_at = time.monotonic(), timestamp()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. StartError or SocketError: it never began."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        place = self._make()
        listening = await self._server.serve(self._sock)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        log.info("serving %s, state in %s", self._path, self._settings.paths.state_dir)
        # A search for cycles holds up every request, and finds few, as what is done with is freed
        # without it: so not among what was imported, few objects at a time, and seldom all.
        gc.freeze()
        gc.enable()
        gc.set_threshold(*_COLLECTIONS)
        sys.setswitchinterval(_SECONDS_OF_A_THREAD)
        self._manager.notifier.ready(self._standing)
        reporting = asyncio.create_task(
            report(self._manager, lambda: self._store.stalled_seconds, lambda: self._standing)
        )
        tasks = self._until_stop()
        await self._stop.wait()
        log.info("stopping")
        self._manager.notifier.stopping()
        listening.close()
        if place is not None:
            unbind(self._path, place)
        await self._server.drain(self._settings.limits.drain_timeout_seconds)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.close()
        reporting.cancel()

    def _make(self) -> os.stat_result | None:
        """Take the directories and the socket, and make the parts; what to unbind at the end."""
        settings = self._settings
        root = startup.take_state_dir(settings)
        runtime = startup.take_runtime_dir(settings)
        self._sock, place = self._take_socket()
        self._path = self._sock.getsockname()
        self._store = startup.open_store(root, settings)
        self._schemas = Registry(root, settings.paths.state_dir, settings.config_dir)
        self._quota: Quota | None = None
        retention = settings.retention
        self._retention = Retention(self._store, retention.days, retention.interval_seconds)
        self._contexts = Contexts(runtime, **_context_limits(settings))
        self._services = Services(
            self._buckets(settings),
            self._contexts,
            Hub(self._store, settings.limits.max_watchers, settings.limits.heartbeat_seconds),
            self._schemas,
            self._schema_writer(),
            operators(settings),
            settings.limits.body_timeout_seconds,
            self._status,
            self._metrics,
            settings.log.slow_request_seconds,
        )
        self._server = Server(self._services, settings.limits)
        return place

    def _until_stop(self) -> list[asyncio.Task[None]]:
        """What goes on beside requests, and ends by itself once the daemon is to stop."""
        tasks = [
            sweep(self._services, self._stop),
            keep_current(self._schemas, self._stop),
            self._retention.keep(self._stop),
        ]
        writer = self._services.schema_writer
        if isinstance(writer, Shared):
            tasks.append(writer.keep_current(self._stop))
        if not isinstance(self._store, FileStore):
            tasks.append(self._store.keep_present(self._stop))
        running = [asyncio.create_task(task) for task in tasks]
        for task in running:
            task.add_done_callback(_tell_failure)
        return running

    def _buckets(self, settings: Settings) -> Buckets:
        limits = settings.limits
        if self._quota is None or self._quota.most != limits.max_device_bytes:
            most = limits.max_device_bytes
            self._quota = Quota(self._store, most) if most else None
        return Buckets(self._store, self._schemas, limits.max_bucket_bytes, self._quota)

    def _schema_writer(self) -> Local | Shared:
        """What sets schemas: for this host, or for all that share its store."""
        if isinstance(self._store, FileStore):
            return Local(self._schemas)
        etcd = self._settings.store_etcd
        return Shared(self._schemas, self._store.gateway, etcd.prefix, etcd.timeout_seconds)

    def _take_socket(self) -> tuple[socket.socket, os.stat_result | None]:
        """The socket to listen on, and what to remove at the end: nothing of one handed over."""
        path, given = self._settings.socket.path, self._manager.socket
        if given is None:
            return bind(path, self._settings.socket_mode), os.stat(path)
        if given.getsockname() != path:
            log.warning("serving the socket that was handed over, and not %s", path)
        return given, None

    @property
    def _standing(self) -> str:
        return self._store.problem or f"serving {self._path}"

    async def _status(self) -> dict[str, Any]:
        store = await self._store.check()
        counts = {name: store.pop(name) for name in list(store) if name in _COUNTS}
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "durability": store["durability"],
            "store": store,
            "schemas": {
                "count": len(self._schemas.entries()),
                "problems": self._schemas.problems(),
            },
            "socket": self._settings.socket.path,
            "settings": shown(self._settings),
            "counts": {
                **counts,
                "contexts": len(self._contexts),
                "connections": len(self._server.connections),
                "watchers": len(self._services.events),
                "swept": self._retention.swept,
                "requests": self._server.requests_count,
            },
        }

    async def _metrics(self) -> bytes:
        figures = metrics.Figures(
            await self._status(), self._services.tally, self._store.histograms
        )
        return await asyncio.to_thread(metrics.exposition, figures)

    def _on_reload(self) -> None:
        self._manager.notifier.reloading()
        self._manager.notifier.ready(self._take_over() or self._standing)

    def _take_over(self) -> str | None:
        """Put what can change in a running daemon in force; a broken file changes nothing.

        Returns what is wrong with the settings, if anything is.
        """
        try:
            new = self._reload()
        except SettingsError as error:
            log.error("the settings stay as they are: %s", error)
            return f"the settings stay as they are: {error}"
        logging.getLogger().setLevel(new.log.level.upper())
        self._contexts.limits(**_context_limits(new))
        self._services.buckets = self._buckets(new)
        self._retention.days = new.retention.days
        self._retention.interval = new.retention.interval_seconds
        if operators(new) != self._services.operators:
            self._services.operators = operators(new)
            self._services.events.end(None)  # whoever still is one comes back
        self._services.body_timeout = new.limits.body_timeout_seconds
        self._server.take_limits(new.limits)
        self._services.events.most = new.limits.max_watchers
        self._services.events.heartbeat_seconds = new.limits.heartbeat_seconds
        self._services.slow_seconds = new.log.slow_request_seconds
        for section in AT_START:
            if getattr(new, section) != getattr(self._settings, section):
                log.warning("a change in [%s] takes effect at the next start", section)
        self._settings = taken_over(self._settings, new)
        log.info("settings reloaded")
        return None


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("one of the tasks beside requests has failed", exc_info=error)


_COUNTS = ("devices", "buckets", "device_buckets", "quarantined_files")


def _context_limits(settings: Settings) -> dict[str, Any]:
    limits = settings.contexts
    return {
        "max_live": limits.max_live,
        "default_ttl": limits.ttl_seconds,
        "max_ttl": limits.max_ttl_seconds,
    }
