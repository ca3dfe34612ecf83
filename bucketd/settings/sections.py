"""What can be set, as frozen data, and what its defaults are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class SettingsError(Exception):
    """A setting that cannot be used; the message names it and where it came from."""


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
class RetentionSettings:
    days: float = 0.0
    interval_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Log:
    level: str = "info"
    slow_request_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What is in force. ``origins`` tells for "section.key" where its value came from.

    ``config_dir`` holds the settings file, and ``schemas/`` beside it.
    """

    paths: Paths
    socket: Socket
    access: Access
    limits: Limits
    contexts: ContextLimits
    store: StoreSettings
    store_etcd: Etcd
    retention: RetentionSettings
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
    "retention": RetentionSettings,
    "log": Log,
}
AT_START = ("paths", "socket", "store", "store_etcd")  # sections that a reload leaves alone
LEVELS = ("debug", "info", "warning", "error")


def in_force(settings: Settings) -> dict[str, Any]:
    """Every setting as "section.key" and its value."""
    return {
        f"{section}.{key}": getattr(getattr(settings, attribute(section)), key)
        for section in SECTIONS
        for key in fields(section)
    }


def shown(settings: Settings) -> dict[str, dict[str, Any]]:
    """For "section.key" the ``value`` in force and the ``origin`` that it came from."""
    return {
        name: {"value": value, "origin": settings.origins.get(name, "default")}
        for name, value in in_force(settings).items()
    }


def reloaded(old: Settings, new: Settings) -> Settings:
    """Return what is in force after a reload: some sections wait for the next start."""
    kept = {section: getattr(old, section) for section in AT_START}
    origins = {n: o for n, o in new.origins.items() if n.partition(".")[0] not in AT_START}
    origins |= {n: o for n, o in old.origins.items() if n.partition(".")[0] in AT_START}
    return dataclasses.replace(new, **kept, origins=origins)


def attribute(section: str) -> str:
    return section.replace(".", "_")


def fields(section: str) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(SECTIONS[section])}
