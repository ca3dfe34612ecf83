"""The composition root: build one daemon, run it, reload its settings, and drain it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from . import logs, process, startup
from .api.access import Operators
from .api.handlers.contexts import sweep
from .api.services import Services
from .core.backup_record import BackupRecord
from .core.buckets import Buckets
from .core.clock_record import ClockRecord
from .core.contexts import Contexts
from .core.events import Hub
from .core.holds import Holds
from .core.quota import Quota
from .core.retention import Retention
from .core.schemas.file_watcher import FileWatcher
from .core.schemas.registry import Registry
from .core.schemas.replication import LocalSchemas, ReplicatedSchemas
from .core.trash import Trash
from .endpoint import Endpoint, Unreachable
from .server import Server
from .settings.sections import AT_START, Settings, SettingsError, reloaded
from .settings.validation import unusable
from .status import Status
from .supervisor import Supervisor
from .systemd import Manager, report

log = logging.getLogger(__name__)
__all__ = ["Daemon", "Unreachable", "operators"]


def operators(settings: Settings) -> Operators:
    """Return who may use operator routes. Raises SettingsError for an unknown name."""
    access = settings.access
    try:
        return Operators.named(access.operator_users, access.operator_groups)
    except KeyError as error:
        kind, name = error.args
        cause = f"this host has no {kind} {name!r}"
        raise unusable(settings, f"access.operator_{kind}s", cause) from None


class Daemon:
    """One daemon, from taking the locks to the last response."""

    def __init__(
        self, settings: Settings, reload: Callable[[], Settings], manager: Manager
    ) -> None:
        self._settings, self._reload, self._manager = settings, reload, manager
        self._stop = asyncio.Event()
        self._supervisor = Supervisor(self._stop)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Raises StartError or SocketError if the daemon cannot start, and Unreachable if it stopped
        because clients could no longer connect.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._build()
        await self._services.holds.restore()
        await self._endpoint.serve(self._server)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        log.info("serving %s, state in %s", self._endpoint.path, self._settings.paths.state_dir)
        process.tune_for_serving()
        self._manager.notifier.ready(self._status_line)
        self._start_background_tasks()
        watchdog = asyncio.create_task(
            report(
                self._manager,
                lambda: self._store.stalled_seconds,
                lambda: self._supervisor.healthy,
                lambda: self._status_line,
            )
        )
        await self._stop.wait()
        log.info("stopping")
        self._manager.notifier.stopping()
        self._endpoint.close()
        await self._server.drain(self._settings.limits.drain_timeout_seconds)
        await self._supervisor.wait()
        await self._store.close()
        watchdog.cancel()
        self._endpoint.check_reachable()

    def _build(self) -> None:
        """Take the directories and the socket, and build the parts of the daemon."""
        settings = self._settings
        root = startup.take_state_dir(settings)
        self._endpoint = Endpoint(settings, self._manager.socket)
        self._clock = ClockRecord(root)
        self._store = startup.open_store(root, settings)
        self._schemas = Registry(root, settings.paths.state_dir, settings.config_dir)
        self._schema_files = FileWatcher(self._schemas)
        self._quota: Quota | None = None
        retention = settings.retention
        self._trash = Trash(self._store, self._clock, settings.trash.days)
        self._retention = Retention(
            self._store, self._clock, self._trash, retention.days, retention.interval_seconds
        )
        self._contexts = Contexts(self._endpoint.runtime, **_context_limits(settings))
        self._status = Status(settings, self._problems)
        shared = self._store.shared_schemas()
        limits = settings.limits
        hub = Hub(self._store, limits.max_watchers, limits.heartbeat_seconds)
        self._services = Services(
            self._buckets(settings),
            self._contexts,
            hub,
            Holds(
                self._store.holds,
                self._endpoint.runtime,
                limits.max_holds,
                limits.heartbeat_seconds,
                hub.publish_hold,
            ),
            self._schemas,
            ReplicatedSchemas(self._schemas, shared) if shared else LocalSchemas(self._schemas),
            self._retention,
            BackupRecord(root),
            self._trash,
            operators(settings),
            limits.body_timeout_seconds,
            self._status.document,
            self._status.exposition,
            settings.log.slow_request_seconds,
        )
        self._server = Server(self._services, limits)
        self._status.attach(self._store, self._services, self._server, self._retention)

    def _start_background_tasks(self) -> None:
        start = self._supervisor.start
        start("expiry of contexts", lambda stop: sweep(self._services, stop))
        start("schema files", self._schema_files.run)
        start("retention", self._retention.keep)
        start("trash", self._trash.keep)
        start("clock", self._clock.keep)
        kept = (self._contexts, self._services.holds)
        start("socket", lambda stop: self._endpoint.keep_reachable(kept, stop))
        start("shared schemas", self._services.schema_writer.keep_current)
        start("store", self._store.run_background)

    def _buckets(self, settings: Settings) -> Buckets:
        limits = settings.limits
        if self._quota is None or self._quota.most != limits.max_device_bytes:
            most = limits.max_device_bytes
            self._quota = Quota(self._store, most) if most else None
        return Buckets(self._store, self._schemas, limits.max_bucket_bytes, self._quota)

    def _problems(self) -> list[str]:
        """Return all problems but those of the store and the schemas, which report their own."""
        unreachable = self._endpoint.problem
        return [
            *self._supervisor.problems(),
            *self._contexts.problems(),
            *self._services.holds.problems(),
            *self._schema_files.problems(),
            *self._clock.problems(),
            *([] if unreachable is None else [unreachable]),
        ]

    @property
    def _status_line(self) -> str:
        problems = self._supervisor.problems()
        first = self._store.problem or self._endpoint.problem or (problems[0] if problems else None)
        return first or self._status.settings_problem or f"serving {self._endpoint.path}"

    def _on_reload(self) -> None:
        self._manager.notifier.reloading()
        self._apply_settings()
        self._manager.notifier.ready(self._status_line)

    def _apply_settings(self) -> None:
        """Put settings in force that can change in a running daemon.

        An invalid file changes nothing, and is a problem until a later reload succeeds. Schema
        files are read again in any case.
        """
        self._schema_files.request_rescan()
        try:
            new = self._reload()
        except SettingsError as error:
            self._status.reload_failed(str(error))
            log.error("%s", self._status.settings_problem)
            return
        logs.configure(new.log, os.environ)
        self._contexts.limits(**_context_limits(new))
        self._services.buckets = self._buckets(new)
        self._trash.days = new.trash.days
        self._retention.days = new.retention.days
        self._retention.interval = new.retention.interval_seconds
        if operators(new) != self._services.operators:
            self._services.operators = operators(new)
            # The list of operators may have changed, so their streams end; users who still are
            # operators connect again.
            self._services.events.end(None)
            self._services.holds.end_disallowed()
        self._services.body_timeout = new.limits.body_timeout_seconds
        self._server.take_limits(new.limits)
        self._services.events.max_subscriptions = new.limits.max_watchers
        self._services.events.heartbeat_seconds = new.limits.heartbeat_seconds
        self._services.holds.max_holds = new.limits.max_holds
        self._services.holds.heartbeat_seconds = new.limits.heartbeat_seconds
        self._services.slow_seconds = new.log.slow_request_seconds
        for section in AT_START:
            if getattr(new, section) != getattr(self._settings, section):
                log.warning("a change in [%s] takes effect at the next start", section)
        self._settings = reloaded(self._settings, new)
        self._status.reload_succeeded(self._settings)
        log.info("settings reloaded")


def _context_limits(settings: Settings) -> dict[str, Any]:
    limits = settings.contexts
    return {
        "max_live": limits.max_live,
        "default_ttl": limits.ttl_seconds,
        "max_ttl": limits.max_ttl_seconds,
    }
