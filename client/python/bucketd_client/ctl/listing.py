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
    pages = _pages(Session(options), _limit(options))
    try:
        if options.has("json"):
            return output.show(_joined(pages))
        return output.show_rows(_rows(pages), COLUMNS, "no buckets")
    except Shown:
        return 0


COLUMNS: output.Columns = {
    "DEVICE": lambda row: row["device"],
    "JOB": lambda row: "(device)" if row["job"] is None else row["job"],
    "AUTOMATION": lambda row: row["automation"] or "-",
    "REVISION": lambda row: str(row["revision"]),
    "SIZE": lambda row: output.size(row["size"]),
    "UPDATED": lambda row: output.age(row["updated_at"]),
}


def _pages(session: Session, most: int | None) -> Iterator[dict[str, Any]]:
    """Answer after answer, until the end or the limit."""
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
        yield members
        most = None if most is None else most - len(members["buckets"])
        cursor = members["next_cursor"]


def _rows(pages: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for members in pages:
        yield from members["buckets"]
        _warn_unreadable(members.get("unreadable", []))


def _joined(pages: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """All pages as one answer, in the form of the last."""
    joined: dict[str, Any] = {}
    for members in pages:
        for name in ("buckets", "unreadable"):
            if name in members or name in joined:
                members[name] = joined.get(name, []) + members.get(name, [])
        joined = members
    return joined


def _warn_unreadable(paths: list[str]) -> None:
    for path in paths:
        output.warn(f"left out, because it cannot be read: {path}")


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
    for name, value in reply.members.items():
        if isinstance(value, dict):
            output.write(f"{name}:")
            for inner, inner_value in value.items():
                _line(f"  {inner}", inner_value)
        elif name != "success":
            _line(name, value)
    return 0


def _line(name: str, value: object) -> None:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int) and name.endswith("bytes"):
        text = output.size(value)
    else:
        text = "-" if value is None else str(value)
    output.write(f"{name:<24} {output.plain(text)}")
