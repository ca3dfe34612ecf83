"""All settings as frozen data, with their defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class SettingsError(Exception):
    """A setting cannot be used; the message names the setting and its source."""


@dataclass(frozen=True, slots=True)
class Paths:
    state_dir: str = ""
    runtime_dir: str = ""


@dataclass(frozen=True, slots=True)
class Socket:
    path: str = ""
    mode: str = "0666"


@dataclass(frozen=True, slots=True)
class Access:
    operator_users: tuple[str, ...] = ()
    operator_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    max_bucket_bytes: int = 1024 * 1024
    max_device_bytes: int = 0
    max_connections: int = 4096
    max_watchers: int = 2000
    max_holds: int = 4000
    heartbeat_seconds: float = 15.0
    header_timeout_seconds: float = 10.0
    body_timeout_seconds: float = 30.0
    idle_timeout_seconds: float = 600.0
    drain_timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class ContextLimits:
    ttl_seconds: float = 24 * 3600.0
    max_ttl_seconds: float = 366 * 24 * 3600.0
    max_live: int = 100_000


@dataclass(frozen=True, slots=True)
class StoreSettings:
    engine: str = "file"
    durability: str = "strict"
    relaxed_seconds: float = 1.0
    journal_bytes: int = 8 * 1024 * 1024
    unsafe_filesystem: bool = False
    cache_bytes: int = 64 * 1024 * 1024
    lock_timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Etcd:
    endpoints: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    prefix: str = "/bucketd/"
    timeout_seconds: float = 5.0
    stale_reads: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class HistorySettings:
    revisions: int = 64
    bytes: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    days: float = 0.0
    interval_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class TrashSettings:
    days: float = 30.0


@dataclass(frozen=True, slots=True)
class Log:
    level: str = "info"
    format: str = "auto"
    slow_request_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. ``origins`` gives the source of each value by "section.key".

    ``config_dir`` holds the settings file, and ``schemas/`` beside it.
    """

    paths: Paths
    socket: Socket
    access: Access
    limits: Limits
    contexts: ContextLimits
    store: StoreSettings
    store_etcd: Etcd
    history: HistorySettings
    retention: RetentionSettings
    trash: TrashSettings
    log: Log
    origins: Mapping[str, str] = field(default_factory=dict)
    config_dir: str = ""

    @property
    def socket_mode(self) -> int:
        return int(self.socket.mode, 8)


SECTIONS: dict[str, Any] = {
    "paths": Paths,
    "socket": Socket,
    "access": Access,
    "limits": Limits,
    "contexts": ContextLimits,
    "store": StoreSettings,
    "store.etcd": Etcd,
    "history": HistorySettings,
    "retention": RetentionSettings,
    "trash": TrashSettings,
    "log": Log,
}
# Settings whose default is not 0, and which 0 turns off.
MAY_BE_ZERO = ("history.revisions", "history.bytes", "trash.days")
# Sections that take effect at the start only; a reload does not change them.
AT_START = ("paths", "socket", "store", "store_etcd", "history")
LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "text", "json")


def in_force(settings: Settings) -> dict[str, Any]:
    """Return the value of every setting by "section.key"."""
    return {
        f"{section}.{key}": getattr(getattr(settings, attribute(section)), key)
        for section in SECTIONS
        for key in fields(section)
    }


def changed(settings: Settings) -> dict[str, Any]:
    """Return by "section.key" the values that somebody has set, and that are not the default."""
    default = {f"{section}.{key}": d for section in SECTIONS for key, d in fields(section).items()}
    return {
        name: value
        for name, value in in_force(settings).items()
        if name in settings.origins and value != default[name]
    }


def shown(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the ``value`` and the ``origin`` of every setting by "section.key"."""
    return {
        name: {"value": value, "origin": settings.origins.get(name, "default")}
        for name, value in in_force(settings).items()
    }


def reloaded(old: Settings, new: Settings) -> Settings:
    """Return the settings in force after a reload, which leaves the AT_START sections unchanged."""
    kept = {section: getattr(old, section) for section in AT_START}
    origins = {n: o for n, o in new.origins.items() if n.partition(".")[0] not in AT_START}
    origins |= {n: o for n, o in old.origins.items() if n.partition(".")[0] in AT_START}
    return dataclasses.replace(new, **kept, origins=origins)


def attribute(section: str) -> str:
    return section.replace(".", "_")


def fields(section: str) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(SECTIONS[section])}
