"""Every setting, read once from flags, environment, TOML files and defaults, then frozen.

Precedence: flag, ``BUCKETD_<SECTION>_<KEY>``, drop-ins in ``<file>.d/``
(``bucketd.d/*.toml``, the last name wins), the file, the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SYSTEM_CONFIG = "/etc/bucketd/bucketd.toml"


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
    prefix: str = "/bucketd/"
    timeout_seconds: float = 5.0
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


def load(flags: Mapping[str, str], config: str | None, environ: Mapping[str, str]) -> Settings:
    """Read all sources; ``flags`` maps "section.key" to text. Raises SettingsError."""
    values: dict[str, tuple[Any, str]] = {}
    for path in _files(config, environ):
        values.update(_from_file(path))
    values.update(_from_environ(environ))
    values.update({name: (text, "command line") for name, text in flags.items()})
    config_dir = os.path.dirname(os.path.abspath(config or _default_config(environ)))
    settings = dataclasses.replace(_build(values), config_dir=config_dir)
    return _checked(_with_default_paths(settings, environ))


def _files(config: str | None, environ: Mapping[str, str]) -> list[Path]:
    main = Path(config or _default_config(environ))
    try:
        main.stat()
    except FileNotFoundError as error:
        if config:
            raise SettingsError(f"cannot read {main}: there is no such file") from error
        return []
    except OSError as error:
        # A home that this user may not enter, as after setpriv, holds no settings of this user.
        if config or is_system(environ):
            raise SettingsError(f"cannot read {main}: {error.strerror}") from error
        return []
    return [main, *sorted(main.with_suffix(".d").glob("*.toml"))]


def _default_config(environ: Mapping[str, str]) -> str:
    if is_system(environ):
        return SYSTEM_CONFIG
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{home}/bucketd/bucketd.toml"


def is_system(environ: Mapping[str, str]) -> bool:
    """Whether this is the host's daemon: run by root, or as a system service by its manager."""
    return os.geteuid() == 0 or "STATE_DIRECTORY" in environ


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from None
    found: dict[str, tuple[Any, str]] = {}
    for section, table in _tables(document):
        if section not in SECTIONS or not isinstance(table, dict):
            hint = _nearest(section, SECTIONS)
            raise SettingsError(f"cannot use {path}: there is no section [{section}]{hint}")
        for key, value in table.items():
            if key not in _fields(section):
                hint = _nearest(key, _fields(section))
                raise SettingsError(f"cannot use {path}: [{section}] has no {key}{hint}")
            found[f"{section}.{key}"] = (value, str(path))
    return found


def _tables(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """The file's sections; ``[store.etcd]`` is one of its own."""
    store = document.get("store")
    if not isinstance(store, dict) or not isinstance(store.get("etcd"), dict):
        return list(document.items())
    rest = {key: value for key, value in store.items() if key != "etcd"}
    return [*{**document, "store": rest}.items(), ("store.etcd", store["etcd"])]


def _from_environ(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Only names that begin with ``BUCKETD_<SECTION>_`` are ours; clients have others."""
    known = {
        f"BUCKETD_{_attribute(s)}_{k}".upper(): f"{s}.{k}" for s in SECTIONS for k in _fields(s)
    }
    prefixes = tuple(f"BUCKETD_{s}_".upper() for s in SECTIONS)
    for name in environ:
        if name.startswith(prefixes) and name not in known:
            raise SettingsError(f"cannot use {name}: no such setting{_nearest(name, known)}")
    return {known[n]: (v, f"environment, {n}") for n, v in environ.items() if n in known}


def _build(values: Mapping[str, tuple[Any, str]]) -> Settings:
    sections: dict[str, Any] = {}
    for section, kind in SECTIONS.items():
        given = {}
        for name, default in _fields(section).items():
            if f"{section}.{name}" in values:
                value, origin = values[f"{section}.{name}"]
                given[name] = _convert(f"{section}.{name}", value, default, origin)
        sections[_attribute(section)] = kind(**given)
    return Settings(**sections, origins={name: origin for name, (_, origin) in values.items()})


def _convert(name: str, value: Any, default: Any, origin: str) -> Any:
    """The value in the type of its default; texts, from flags and environment, are parsed."""
    try:
        if isinstance(default, tuple):
            items = value.split(",") if isinstance(value, str) else value
            return tuple(_text(item).strip() for item in items if item != "")
        if isinstance(default, str):
            return _text(value)
        if isinstance(default, bool):
            return _truth(value)
        return _number(value, default)
    except (ValueError, TypeError, KeyError, OverflowError):
        kind = "a list of texts" if isinstance(default, tuple) else _KINDS[type(default)]
        if default == 0 and type(default) in (int, float):
            kind += ", or 0"
        raise SettingsError(
            f"cannot use {name} = {value!r} ({origin}): it must be {kind}"
        ) from None


_KINDS = {
    bool: "true or false",
    str: "a text",
    int: "a whole number over 0",
    float: "a number over 0",
}


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}[_text(value).lower()]


def _number(value: Any, default: int | float) -> int | float:
    """A number over 0; or 0, where that is the default and so means something."""
    if isinstance(value, bool) or (isinstance(default, int) and isinstance(value, float)):
        raise TypeError
    number = type(default)(value)
    if not 0 <= number < float("inf") or (number == 0 and default != 0):
        raise ValueError
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _checked(settings: Settings) -> Settings:
    """Refuse what has the right type and still makes no sense."""
    try:
        sensible = 0 <= settings.socket_mode <= 0o777
    except ValueError:
        sensible = False
    if not sensible:
        raise _unusable(settings, "socket.mode", 'it must be an octal text such as "0666"')
    if settings.log.level not in LEVELS:
        raise _unusable(settings, "log.level", f"it must be one of {', '.join(LEVELS)}")
    if settings.store.durability not in ("strict", "relaxed"):
        raise _unusable(settings, "store.durability", 'it must be "strict" or "relaxed"')
    if settings.store.engine not in ("file", "etcd"):
        raise _unusable(settings, "store.engine", 'it must be "file" or "etcd"')
    if settings.store.engine == "etcd" and not settings.store_etcd.endpoints:
        raise _unusable(settings, "store.etcd.endpoints", "it must name at least one URL")
    if settings.store.journal_bytes < 2 * settings.limits.max_bucket_bytes + 65536:
        raise _unusable(
            settings, "store.journal_bytes", "it must hold two buckets of the largest size"
        )
    if settings.contexts.ttl_seconds > settings.contexts.max_ttl_seconds:
        raise _unusable(settings, "contexts.ttl_seconds", "it is over contexts.max_ttl_seconds")
    return settings


def _unusable(settings: Settings, name: str, cause: str) -> SettingsError:
    value = in_force(settings)[name]
    origin = settings.origins.get(name, "default")
    return SettingsError(f"cannot use {name} = {value!r} ({origin}): {cause}")


def _with_default_paths(settings: Settings, environ: Mapping[str, str]) -> Settings:
    system = is_system(environ)
    state, runtime, socket = settings.paths.state_dir, settings.paths.runtime_dir, settings.socket
    if not state:
        data = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        state = _first(environ, "STATE_DIRECTORY") or (
            "/var/lib/bucketd" if system else f"{data}/bucketd"
        )
    if not runtime:
        runtime = _first(environ, "RUNTIME_DIRECTORY") or (
            "/run/bucketd" if system else _user_runtime(environ)
        )
    state, runtime = os.path.abspath(state), os.path.abspath(runtime)
    path = os.path.abspath(socket.path or f"{runtime}/bucketd.sock")
    return dataclasses.replace(
        settings,
        paths=Paths(state, runtime),
        socket=dataclasses.replace(socket, path=path),
    )


def _first(environ: Mapping[str, str], name: str) -> str:
    """systemd gives several directories as one text, with colons between."""
    return environ.get(name, "").split(":")[0]


def _user_runtime(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_RUNTIME_DIR")
    if not base:
        raise SettingsError(
            "cannot choose a runtime directory: XDG_RUNTIME_DIR is not set; "
            "set it, or give --runtime-dir"
        )
    return f"{base}/bucketd"


def in_force(settings: Settings) -> dict[str, Any]:
    """Every setting as "section.key" and its value."""
    return {
        f"{section}.{key}": getattr(getattr(settings, _attribute(section)), key)
        for section in SECTIONS
        for key in _fields(section)
    }


def shown(settings: Settings) -> dict[str, dict[str, Any]]:
    """For "section.key" the ``value`` in force and the ``origin`` that it came from."""
    return {
        name: {"value": value, "origin": settings.origins.get(name, "default")}
        for name, value in in_force(settings).items()
    }


def taken_over(old: Settings, new: Settings) -> Settings:
    """What is in force after a reload: some sections wait for the next start."""
    kept = {section: getattr(old, section) for section in AT_START}
    origins = {n: o for n, o in new.origins.items() if n.partition(".")[0] not in AT_START}
    origins |= {n: o for n, o in old.origins.items() if n.partition(".")[0] in AT_START}
    return dataclasses.replace(new, **kept, origins=origins)


def _attribute(section: str) -> str:
    return section.replace(".", "_")


def _fields(section: str) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(SECTIONS[section])}


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(known))}"
