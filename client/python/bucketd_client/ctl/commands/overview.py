"""The commands on the whole daemon: list, status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .. import filters, output
from ..parser import Usage
from ..session import Session, Shown
from ..table.daily import Options
from .holds import Holders


def show(options: Options) -> int:
    session = Session(options)
    pages = filters.pages(session, "/v1/buckets", "buckets", _limit(options))
    output.end_with_reader()
    left_out = filters.LeftOut()
    try:
        if options.has("json"):
            joined = _joined(pages)
            output.show(joined)
            left_out.note(joined)
        else:
            columns = COLUMNS
            is_table = output.on_terminal() and not options.has("curl")
            if is_table and (holders := Holders(session)):
                columns = {**COLUMNS, "HELD BY": holders.describe}
            output.show_rows(filters.rows(pages, "buckets", left_out), columns, "no buckets")
    except Shown:
        return 0
    return left_out.status


COLUMNS: output.Columns = {
    "DEVICE": lambda row: row["device"],
    "JOB": lambda row: "(device)" if row["job"] is None else row["job"],
    "AUTOMATION": lambda row: row["automation"] or "-",
    "REVISION": lambda row: str(row["revision"]),
    "SIZE": lambda row: output.size(row["size"]),
    "UPDATED": lambda row: output.age(row["updated_at"]),
}


def _joined(pages: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Return all pages as one response, in the form of the last."""
    joined: dict[str, Any] = {}
    for members in pages:
        for name in ("buckets", "unreadable"):
            if name in members or name in joined:
                members[name] = joined.get(name, []) + members.get(name, [])
        joined = members
    return joined


def _limit(options: Options) -> int | None:
    text = options.get("limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0):
        raise Usage(f"cannot use --limit {text}: it must be a whole number over 0")
    return int(text)


def status(options: Options) -> int:
    try:
        reply = Session(options).call("GET", "/v1/status")
    except Shown:
        return 0
    if options.has("settings"):
        settings = reply.members.get("settings", {})
        return _show_settings(settings, as_json=options.has("json") or not output.on_terminal())
    if options.has("json") or not output.on_terminal():
        return output.show_answer(reply)
    for name, value in reply.members.items():
        if name == "settings":
            continue
        if isinstance(value, dict):
            output.write(f"{name}:")
            for inner, inner_value in value.items():
                # Members such as durability are shown above already.
                if inner not in reply.members:
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
