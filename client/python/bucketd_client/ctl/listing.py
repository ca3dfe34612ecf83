"""The commands that look at the whole daemon: list, status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._context import escape
from . import output
from .commands import Options
from .parser import Usage
from .session import Session, Shown

PAGE = 1000


def show(options: Options) -> int:
    session, most = Session(options), _limit(options)
    try:
        if options.has("json"):
            return output.show({"success": True, "buckets": list(_rows(session, most))})
        columns = {
            "DEVICE": lambda row: output.plain(row["device"]),
            "JOB": lambda row: output.plain(row["job"]) if row["job"] is not None else "(device)",
            "AUTOMATION": lambda row: output.plain(row["automation"] or "-"),
            "REVISION": lambda row: str(row["revision"]),
            "SIZE": lambda row: output.size(row["size"]),
            "UPDATED": lambda row: output.age(row["updated_at"]),
        }
        return output.show_rows(_rows(session, most), columns, "no buckets")
    except Shown:
        return 0


def _rows(session: Session, most: int | None) -> Iterator[dict[str, Any]]:
    """Page after page, until the end or the limit."""
    filters = [
        f"{name}={escape(value)}"
        for name in ("device", "job", "automation")
        if (value := session.options.get(name)) is not None
    ]
    cursor: str | None = ""
    while cursor is not None and most != 0:
        page = PAGE if most is None else min(PAGE, most)
        query = [*filters, f"limit={page}", *([f"cursor={cursor}"] if cursor else [])]
        members = session.call("GET", "/v1/buckets?" + "&".join(query)).members
        yield from members["buckets"]
        most = None if most is None else most - len(members["buckets"])
        cursor = members["next_cursor"]
        _warn_unreadable(members.get("unreadable", []))


def _warn_unreadable(paths: list[str]) -> None:
    import sys

    for path in paths:
        print(
            f"bucketctl: left out, because it cannot be read: {output.plain(path)}", file=sys.stderr
        )


def _limit(options: Options) -> int | None:
    text = options.get("limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise Usage(f"cannot use --limit {text}: it must be a whole number over 0")
    return int(text)


def status(options: Options) -> int:
    try:
        reply = Session(options).call("GET", "/v1/status")
    except Shown:
        return 0
    if options.has("json") or not output.on_terminal():
        return output.show_answer(reply)
    members = {name: value for name, value in reply.members.items() if name != "success"}
    for name, value in members.items():
        if isinstance(value, dict):
            output.write(f"{name}:")
            for inner, inner_value in value.items():
                output.write(f"  {inner:<20} {_plain(inner_value)}")
        else:
            output.write(f"{name:<22} {_plain(value)}")
    return 0


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
