"""From what was written to what it means: types, and what makes sense together."""

from __future__ import annotations

from typing import Any

from .sections import LEVELS, Settings, SettingsError, in_force

MOST_BUCKET_BYTES = 32 * 1024 * 1024  # which the store reads back, with its envelope


def convert(name: str, value: Any, default: Any, origin: str) -> Any:
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


def checked(settings: Settings) -> Settings:
    """Refuse what has the right type and still makes no sense."""
    try:
        sensible = 0 <= settings.socket_mode <= 0o777
    except ValueError:
        sensible = False
    if not sensible:
        raise unusable(settings, "socket.mode", 'it must be an octal text such as "0666"')
    if settings.log.level not in LEVELS:
        raise unusable(settings, "log.level", f"it must be one of {', '.join(LEVELS)}")
    if settings.store.durability not in ("strict", "relaxed"):
        raise unusable(settings, "store.durability", 'it must be "strict" or "relaxed"')
    if settings.store.engine not in ("file", "etcd"):
        raise unusable(settings, "store.engine", 'it must be "file" or "etcd"')
    _check_etcd(settings)
    if settings.limits.max_bucket_bytes > MOST_BUCKET_BYTES:
        raise unusable(settings, "limits.max_bucket_bytes", f"the most is {MOST_BUCKET_BYTES}")
    if settings.store.journal_bytes < 2 * settings.limits.max_bucket_bytes + 65536:
        raise unusable(
            settings, "store.journal_bytes", "it must hold two buckets of the largest size"
        )
    if settings.contexts.ttl_seconds > settings.contexts.max_ttl_seconds:
        raise unusable(settings, "contexts.ttl_seconds", "it is over contexts.max_ttl_seconds")
    return settings


def _check_etcd(settings: Settings) -> None:
    etcd = settings.store_etcd
    try:
        seconds(etcd.stale_reads)
    except ValueError:
        cause = 'it must be a number with its unit, such as "30s", "5m" or "1h"'
        raise unusable(settings, "store.etcd.stale_reads", cause) from None
    try:
        named = shards(etcd.shards)
    except ValueError as error:
        raise unusable(settings, "store.etcd.shards", str(error)) from None
    if settings.store.engine == "etcd" and not etcd.endpoints and not named:
        raise unusable(settings, "store.etcd.endpoints", "it must name at least one URL")
    if etcd.endpoints and named:
        raise unusable(settings, "store.etcd.endpoints", "shards name their endpoints themselves")


def seconds(text: str) -> float:
    """A time such as ``5m``; 0 for the empty text. Raises ValueError."""
    if not text:
        return 0.0
    number = float(text[:-1]) * _UNITS.get(text[-1], 0)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


_UNITS = {"s": 1, "m": 60, "h": 3600}


def shards(texts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The endpoints of each, by its name, of texts ``name=URL URL…``. Raises ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, urls = text.partition("=")
        name = name.strip()
        if not name or "/" in name or not urls.split():
            raise ValueError(f'{text!r} must be a name and URLs: "name=https://one https://two"')
        if name in found:
            raise ValueError(f"there are two of the name {name!r}")
        found[name] = tuple(urls.split())
    if len(found) == 1:
        raise ValueError("one shard alone is no shard; give its URLs as endpoints")
    return found


def unusable(settings: Settings, name: str, cause: str) -> SettingsError:
    """Of "section.key": which value, where that came from, and why it cannot be used."""
    value = in_force(settings)[name]
    value = list(value) if isinstance(value, tuple) else value  # as in a file
    origin = settings.origins.get(name, "default")
    return SettingsError(f"cannot use {name} = {value!r} ({origin}): {cause}")
