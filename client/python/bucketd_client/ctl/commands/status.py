"""``bucketctl status``: what the daemon is and has, in five lines or in full."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .. import colours, output
from ..prompts import counted
from ..session import Session, Shown
from ..table.daily import Options


def status(options: Options) -> int:
    try:
        reply = Session(options).call("GET", "/v1/status")
    except Shown:
        return 0
    as_json = options.has("json") or not output.for_people()
    if options.has("settings"):
        return _show_settings(reply.members.get("settings", {}), as_json)
    if as_json:
        return output.show_answer(reply)
    if options.has("verbose"):
        return _show_all(reply.members)
    for line in _short(reply.members):
        output.write(line)
    return 0


def _short(members: dict[str, Any]) -> Iterator[str]:
    """Yield five lines, and one more for each problem."""
    store, counts = members["store"], members["counts"]
    time, unit = output.duration(members["uptime_seconds"])
    healthy = "healthy" if store["healthy"] else colours.paint("refuses writes", colours.RED)
    yield _row("bucketd", f"{members['version']}, for {time:.0f} {unit}, {healthy}")
    yield _row("socket", output.plain(members["socket"]))
    place = f" in {store['state_dir']}" if store.get("state_dir") else ""
    yield _row("store", output.plain(f"{store['engine']}, {members['durability']}{place}"))
    # Some engines do not count their buckets.
    jobs, devices = (counts.get(name) or 0 for name in ("buckets", "device_buckets"))
    of = counted(counts.get("devices") or 0, "device")
    stored = f"{counted(jobs + devices, 'bucket')} of {of}, {_schemas(members)}"
    if backup := members.get("backup"):
        stored += f", backed up {output.age(backup['at'])}"
    yield _row("stored", stored)
    names = ("context", "hold", "watcher", "connection")
    in_use = (counted(counts[f"{name}s"], name) for name in names if f"{name}s" in counts)
    yield _row("in use", ", ".join(in_use))
    for problem in _problems(members):
        yield _row("problem", colours.paint(output.plain(problem), colours.RED))


def _row(name: str, text: str) -> str:
    return f"{name:<8} {text}"


def _schemas(members: dict[str, Any]) -> str:
    return counted(members["schemas"]["count"], "schema")


def _problems(members: dict[str, Any]) -> list[str]:
    """Return all problems that the daemon tells, each once."""
    store = members["store"]
    found = [store["problem"], members.get("settings_problem")]
    found += [*members.get("problems", []), *store.get("problems", [])]
    found += members["schemas"]["problems"]
    if kept := members["counts"].get("quarantined_files"):
        found.append(f"{counted(kept, 'damaged file')} kept; see bucketctl doctor")
    texts = (p if isinstance(p, str) else json.dumps(p, ensure_ascii=False) for p in found if p)
    return list(dict.fromkeys(texts))


def _show_all(members: dict[str, Any]) -> int:
    for name, value in members.items():
        if name == "settings":
            continue
        if isinstance(value, dict):
            output.write(f"{name}:")
            for inner, inner_value in value.items():
                # Members such as durability are shown above already.
                if inner not in members:
                    _line(f"  {inner}", inner_value)
        elif name != "success":
            _line(name, value)
    return 0


def _show_settings(settings: dict[str, Any], as_json: bool) -> int:
    """Show each setting with its value in force and its origin."""
    if as_json:
        return output.show(settings)
    for name, setting in settings.items():
        value, origin = json.dumps(setting["value"], ensure_ascii=False), setting["origin"]
        output.write(output.plain(f"{name} = {value}  # {origin}"))
    return 0


def _line(name: str, value: object) -> None:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int) and name.endswith("bytes"):
        text = output.size(value)
    elif isinstance(value, (list, dict)) and value:
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = "-" if value in (None, [], {}) else str(value)
    output.write(f"{name:<24} {output.plain(text)}")
