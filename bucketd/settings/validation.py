"""Validate settings: their types, their bounds, and their combinations.

A message describes a refused value by its kind and length alone, since settings may come from a
secret store.
"""

from __future__ import annotations

from typing import Any

from .sections import LEVELS, LOG_FORMATS, MAY_BE_ZERO, Settings, SettingsError, in_force

# The store must be able to read such a bucket back, with its envelope.
MAX_BUCKET_BYTES = 32 * 1024 * 1024
# 100 years: longer times lead to dates that Python cannot represent.
MAX_DAYS = 36_525.0


def convert(name: str, value: Any, default: Any, origin: str) -> Any:
    """Return the value in the type of its default; strings of flags and environment are parsed."""
    try:
        if isinstance(default, tuple):
            items = value.split(",") if isinstance(value, str) else value
            return tuple(_string(item).strip() for item in items if item != "")
        if isinstance(default, str):
            return _string(value)
        if isinstance(default, bool):
            return _truth(value)
        return _number(value, default, default == 0 or name in MAY_BE_ZERO)
    except (ValueError, TypeError, KeyError, OverflowError):
        kind = "a list of strings" if isinstance(default, tuple) else _KINDS[type(default)]
        if (default == 0 or name in MAY_BE_ZERO) and type(default) in (int, float):
            kind += ", or 0"
        raise SettingsError(
            f"cannot use {name} ({origin}): it must be {kind}, got {_kind_of(value)}"
        ) from None


_KINDS = {
    bool: "true or false",
    str: "a string",
    int: "a whole number over 0",
    float: "a number over 0",
}


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}[_string(value).lower()]


def _number(value: Any, default: int | float, may_be_zero: bool) -> int | float:
    """Return a number over 0, or 0 where that has a meaning."""
    if isinstance(value, bool) or (isinstance(default, int) and isinstance(value, float)):
        raise TypeError
    number = type(default)(value)
    if not 0 <= number < float("inf") or (number == 0 and not may_be_zero):
        raise ValueError
    return number


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def checked(settings: Settings) -> Settings:
    """Return the settings; raise SettingsError for values that are out of range or contradict."""
    try:
        sensible = 0 <= settings.socket_mode <= 0o777
    except ValueError:
        sensible = False
    if not sensible:
        raise unusable(settings, "socket.mode", 'it must be an octal string such as "0666"')
    if settings.log.level not in LEVELS:
        raise unusable(settings, "log.level", f"it must be one of {', '.join(LEVELS)}")
    if settings.log.format not in LOG_FORMATS:
        raise unusable(settings, "log.format", f"it must be one of {', '.join(LOG_FORMATS)}")
    if settings.store.durability not in ("strict", "relaxed"):
        raise unusable(settings, "store.durability", 'it must be "strict" or "relaxed"')
    if settings.store.engine not in ("file", "etcd"):
        raise unusable(settings, "store.engine", 'it must be "file" or "etcd"')
    _check_etcd(settings)
    _check_durations(settings)
    if settings.limits.max_bucket_bytes > MAX_BUCKET_BYTES:
        raise unusable(settings, "limits.max_bucket_bytes", f"the maximum is {MAX_BUCKET_BYTES}")
    if settings.store.journal_bytes < 2 * settings.limits.max_bucket_bytes + 65536:
        raise unusable(
            settings, "store.journal_bytes", "it must hold two buckets of the largest size"
        )
    if settings.contexts.ttl_seconds > settings.contexts.max_ttl_seconds:
        raise unusable(settings, "contexts.ttl_seconds", "it is over contexts.max_ttl_seconds")
    return settings


def _check_durations(settings: Settings) -> None:
    """Refuse a duration so long that dates and timers overflow."""
    for name, days in ("retention", settings.retention.days), ("trash", settings.trash.days):
        if days > MAX_DAYS:
            cause = f"the maximum is {MAX_DAYS:.0f} (100 years); 0 turns the {name} off"
            raise unusable(settings, f"{name}.days", cause)
    for name, value in in_force(settings).items():
        if name.endswith("_seconds") and value > MAX_DAYS * 86400:
            raise unusable(settings, name, f"the maximum is {MAX_DAYS * 86400:.0f} (100 years)")


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
    """Return the seconds of a duration such as ``5m``; 0 for an empty string. Raises ValueError."""
    if not text:
        return 0.0
    number = float(text[:-1]) * _UNITS.get(text[-1], 0)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


_UNITS = {"s": 1, "m": 60, "h": 3600}


def shards(texts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Parse strings ``name=URL URL…``; return the URLs by name. Raises ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, urls = text.partition("=")
        name = name.strip()
        if not name or "/" in name or not urls.split():
            raise ValueError('each must be a name and URLs: "name=https://one https://two"')
        if name in found:
            raise ValueError(f"two shards have the name {name!r}")
        found[name] = tuple(urls.split())
    if len(found) == 1:
        raise ValueError("a single shard has no use; give its URLs as endpoints")
    return found


def unusable(settings: Settings, name: str, cause: str) -> SettingsError:
    """Return the error for "section.key" with the source of the value and the cause."""
    value, origin = in_force(settings)[name], settings.origins.get(name, "default")
    return SettingsError(f"cannot use {name} ({origin}): {cause}, got {_kind_of(value)}")


def _kind_of(value: Any) -> str:
    """Return the kind and the length of a value, which a message may show."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return f"a string of {len(value)} characters"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"
