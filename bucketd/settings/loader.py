"""Where settings come from: flags, environment, files, and the defaults of this host.

Precedence: flag, ``BUCKETD_<SECTION>_<KEY>``, drop-ins in ``<file>.d/``
(``bucketd.d/*.toml``, the last name wins), the file, the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .sections import SECTIONS, Paths, Settings, SettingsError, attribute, fields
from .validation import checked, convert

SYSTEM_CONFIG = "/etc/bucketd/bucketd.toml"


def load(flags: Mapping[str, str], config: str | None, environ: Mapping[str, str]) -> Settings:
    """Read all sources; ``flags`` maps "section.key" to text. Raises SettingsError."""
    values: dict[str, tuple[Any, str]] = {}
    for path in _files(config, environ):
        values.update(_from_file(path))
    values.update(_from_environ(environ))
    values.update({name: (text, "command line") for name, text in flags.items()})
    _refuse_empty(values)
    config_dir = os.path.dirname(os.path.abspath(config or _default_config(environ)))
    settings = dataclasses.replace(_build(values), config_dir=config_dir)
    return checked(_with_default_paths(settings, environ))


def _refuse_empty(values: Mapping[str, tuple[Any, str]]) -> None:
    """Refuse an empty path: a script's unset variable would lead to the host's own state."""
    for name in ("paths.state_dir", "paths.runtime_dir", "socket.path"):
        value, origin = values.get(name, (None, ""))
        if value == "" and origin.startswith(("command line", "environment")):
            raise SettingsError(
                f"cannot use {name} ({origin}): it is empty; leave it out for the default"
            )


def _files(config: str | None, environ: Mapping[str, str]) -> list[Path]:
    if config == "":
        raise SettingsError("cannot read the settings: --config is empty; leave it out instead")
    main = Path(config or _default_config(environ))
    try:
        main.stat()
    except FileNotFoundError as error:
        if config:
            raise SettingsError(f"cannot read {main}: there is no such file") from error
        return []
    except OSError as error:
        # After setpriv, HOME may be a directory of another user; that one has no settings for
        # this user.
        if config or _is_system(environ):
            raise SettingsError(f"cannot read {main}: {error.strerror}") from error
        return []
    return [main, *sorted(main.with_suffix(".d").glob("*.toml"))]


def _default_config(environ: Mapping[str, str]) -> str:
    if _is_system(environ):
        return SYSTEM_CONFIG
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{home}/bucketd/bucketd.toml"


def _is_system(environ: Mapping[str, str]) -> bool:
    """Report whether this is the host's daemon: run by root, or by systemd as a system service."""
    return os.geteuid() == 0 or "STATE_DIRECTORY" in environ


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from None
    found: dict[str, tuple[Any, str]] = {}
    for section, table in _tables(document):
        if section in SECTIONS and not isinstance(table, dict):
            raise SettingsError(f"cannot use {path}: {section} is a section: write [{section}]")
        if section not in SECTIONS:
            hint = _nearest(section, SECTIONS)
            raise SettingsError(f"cannot use {path}: there is no section [{section}]{hint}")
        for key, value in table.items():
            if key not in fields(section):
                hint = _nearest(key, fields(section))
                raise SettingsError(f"cannot use {path}: [{section}] has no {key}{hint}")
            found[f"{section}.{key}"] = (value, str(path))
    return found


def _tables(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the file's sections by name; ``[store.etcd]`` counts as a section."""
    store = document.get("store")
    if not isinstance(store, dict) or not isinstance(store.get("etcd"), dict):
        return list(document.items())
    rest = {key: value for key, value in store.items() if key != "etcd"}
    return [*{**document, "store": rest}.items(), ("store.etcd", store["etcd"])]


def _from_environ(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return the settings of variables ``BUCKETD_<SECTION>_<KEY>``; ignore those of clients."""
    known = {f"BUCKETD_{attribute(s)}_{k}".upper(): f"{s}.{k}" for s in SECTIONS for k in fields(s)}
    prefixes = tuple(f"BUCKETD_{s}_".upper() for s in SECTIONS)
    for name in environ:
        if name.startswith(prefixes) and name not in known:
            raise SettingsError(f"cannot use {name}: no such setting{_nearest(name, known)}")
    return {known[n]: (v, f"environment, {n}") for n, v in environ.items() if n in known}


def _build(values: Mapping[str, tuple[Any, str]]) -> Settings:
    sections: dict[str, Any] = {}
    for section, kind in SECTIONS.items():
        given = {}
        for name, default in fields(section).items():
            if f"{section}.{name}" in values:
                value, origin = values[f"{section}.{name}"]
                given[name] = convert(f"{section}.{name}", value, default, origin)
        sections[attribute(section)] = kind(**given)
    return Settings(**sections, origins={name: origin for name, (_, origin) in values.items()})


def _with_default_paths(settings: Settings, environ: Mapping[str, str]) -> Settings:
    system = _is_system(environ)
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
    """Return the first directory of a variable: systemd separates several by colons."""
    return environ.get(name, "").split(":")[0]


def _user_runtime(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_RUNTIME_DIR")
    if not base:
        raise SettingsError(
            "cannot choose a runtime directory: XDG_RUNTIME_DIR is not set; "
            "set it, or give --runtime-dir"
        )
    return f"{base}/bucketd"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(known))}"
