"""The composition root and life of one daemon: locks → store → services → server → drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from . import __version__, fleet, metrics
from . import settings as settings_module
from .api.access import Operators
from .api.call import Services
from .api.contexts import announce
from .buckets import Buckets
from .contexts import Contexts
from .events import Hub
from .model import timestamp
from .quota import Quota
from .retention import Retention
from .schemas.registry import Registry
from .schemas.sharing import Local, Shared
from .schemas.watching import keep_current
from .server import Server, bind, unbind
from .settings import Settings, SettingsError
from .store import disk, filesystem
from .store.etcd import EtcdStore
from .store.files import FileStore, Options
from .store.locks import hold_daemon_lock
from .store.records import JournalError
from .systemd import Manager, report

log = logging.getLogger(__name__)
_OBJECTS_BETWEEN_COLLECTIONS = 200_000
SWEEP_SECONDS = 60.0


class StartError(Exception):
    """The daemon cannot start; the message says why, and what to do."""


def operators(settings: Settings) -> Operators:
    access = settings.access
    try:
        return Operators.named(access.operator_users, access.operator_groups)
    except KeyError as error:
        raise SettingsError(f"cannot use [access]: {error.args[0]}") from None


class Daemon:
    """One run of the daemon, from the locks to the last answer."""

    def __init__(
        self, settings: Settings, reload: Callable[[], Settings], manager: Manager
    ) -> None:
        self._settings, self._reload, self._manager = settings, reload, manager
        self._started, self._started_at = time.monotonic(), timestamp()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop, settings = asyncio.get_running_loop(), self._settings
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        root = _take_state_dir(settings)
        runtime = _take_runtime_dir(settings)
        sock, place = self._take_socket()
        self._path = sock.getsockname()
        self._store = _open_store(root, settings)
        self._schemas = Registry(root, settings.paths.state_dir, settings.config_dir)
        self._quota = Quota(self._store, settings.limits.max_device_bytes)
        self._retention = Retention(
            self._store, settings.retention.days, settings.retention.interval_seconds
        )
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
        listening = await self._server.serve(sock)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        log.info("serving %s, state in %s", self._path, settings.paths.state_dir)
        # Looking for cycles holds up every request: not among what was imported, and seldom.
        gc.freeze()
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)
        self._manager.notifier.ready(self._standing)
        reporting = asyncio.create_task(
            report(self._manager, lambda: self._store.stalled_seconds, lambda: self._standing)
        )
        watching = asyncio.create_task(keep_current(self._schemas, self._stop))
        sweeping = asyncio.create_task(self._retention.keep(self._stop))
        writer = self._services.schema_writer
        sharing = (
            asyncio.create_task(writer.keep_current(self._stop))
            if isinstance(writer, Shared)
            else None
        )
        await self._until_stopped()
        log.info("stopping")
        self._manager.notifier.stopping()
        listening.close()
        if place is not None:
            unbind(self._path, place)
        await self._server.drain(settings.limits.drain_timeout_seconds)
        await watching
        await sweeping
        if sharing is not None:
            await sharing
        await self._store.close()
        reporting.cancel()

    def _buckets(self, settings: Settings) -> Buckets:
        return Buckets(self._store, self._schemas, settings.limits.max_bucket_bytes, self._quota)

    def _schema_writer(self) -> Local | Shared:
        """What sets schemas: for this host, or for all that share its store."""
        if not isinstance(self._store, EtcdStore):
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

    async def _until_stopped(self) -> None:
        due = time.monotonic() + SWEEP_SECONDS
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), 1.0)
            except TimeoutError:
                if self._services.events.watched_by_operators or time.monotonic() > due:
                    due = time.monotonic() + SWEEP_SECONDS
                    for context in await asyncio.to_thread(self._contexts.sweep):
                        announce(self._services, "expired", context)

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
            "settings": settings_module.shown(self._settings),
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
        self._quota.most = new.limits.max_device_bytes
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
        for section in settings_module.AT_START:
            if getattr(new, section) != getattr(self._settings, section):
                log.warning("a change in [%s] takes effect at the next start", section)
        self._settings = settings_module.taken_over(self._settings, new)
        log.info("settings reloaded")
        return None


_COUNTS = ("devices", "buckets", "device_buckets", "quarantined_files")


def _check_filesystem(settings: Settings) -> str | None:
    """Why the state directory cannot keep the promise, where that was accepted."""
    path = settings.paths.state_dir
    cause = filesystem.unfit(path)
    if cause is None:
        return None
    if not settings.store.unsafe_filesystem:
        raise StartError(
            f"cannot keep buckets safely in {path}: {cause}, so a power cut may cost "
            "acknowledged writes; give a directory on a local disk with --state-dir, "
            "or accept that with --unsafe-filesystem"
        )
    log.warning("a power cut may cost acknowledged writes in %s: %s", path, cause)
    return cause


def _open_store(root: int, settings: Settings) -> FileStore | EtcdStore:
    store = settings.store
    if store.engine == "etcd":
        return fleet.open_store(settings.store_etcd, os.environ)
    options = Options(
        cache_bytes=store.cache_bytes,
        lock_timeout=store.lock_timeout_seconds,
        journal_bytes=store.journal_bytes,
        relaxed_seconds=store.relaxed_seconds if store.durability == "relaxed" else None,
        unsafe=_check_filesystem(settings),
    )
    try:
        return FileStore(os.dup(root), settings.paths.state_dir, options)
    except JournalError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(
            f"cannot open the journal in {settings.paths.state_dir}: {error.strerror}; "
            "nothing is lost, mend that and start again"
        ) from error


def _context_limits(settings: Settings) -> dict[str, Any]:
    limits = settings.contexts
    return {
        "max_live": limits.max_live,
        "default_ttl": limits.ttl_seconds,
        "max_ttl": limits.max_ttl_seconds,
    }


# What may be in a directory that nobody else has a use for, so that it may be closed to others.
_OURS = {"devices", "journal", "quarantine", "schemas", "write.lock", "daemon.lock", "lost+found"}


def _take_state_dir(settings: Settings) -> int:
    """A descriptor of the state directory, held alone for the life of this process."""
    path = settings.paths.state_dir
    try:
        root = disk.open_root(path)
        if _OURS.issuperset(os.listdir(root)):
            os.fchmod(root, 0o700)  # made by somebody else, with their umask
        _check_owner(root, path, "--state-dir")
        held, holder = hold_daemon_lock(root)
    except OSError as error:
        raise StartError(
            f"cannot use the state directory {path}: {error.strerror}; "
            "give another with --state-dir, or make it writable for this user"
        ) from error
    if held is None:
        raise StartError(
            f"cannot use the state directory {path}: another bucketd holds it (process {holder}); "
            "stop that one, or give another directory with --state-dir"
        )
    return root


def _take_runtime_dir(settings: Settings) -> int:
    """A descriptor of the runtime directory: anyone may reach the socket in it (0755)."""
    path = settings.paths.runtime_dir
    try:
        existed = os.path.isdir(path)
        runtime = disk.open_root(path)
        if not existed:
            os.fchmod(runtime, 0o755)
        _check_owner(runtime, path, "--runtime-dir")
    except OSError as error:
        raise StartError(
            f"cannot use the runtime directory {path}: {error.strerror}; "
            "give another with --runtime-dir"
        ) from error
    return runtime


def _check_owner(fd: int, path: str, flag: str) -> None:
    """Whoever can write to a directory of ours could plant files or contexts there."""
    status, uid = os.fstat(fd), os.geteuid()
    if status.st_uid != uid:
        raise StartError(
            f"cannot use the directory {path}: it belongs to user {status.st_uid}, and this is "
            f"user {uid}; run as that user, chown it, or give another with {flag}"
        )
    if status.st_mode & 0o022:
        raise StartError(
            f"cannot use the directory {path}: other users may write to it; "
            f"chmod go-w it, or give another with {flag}"
        )
