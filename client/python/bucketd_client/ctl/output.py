"""Values for people on a terminal, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from .._calls import Reply


def on_terminal() -> bool:
    return sys.stdout.isatty()


def show(value: Any) -> int:
    """One JSON value: indented on a terminal, on one line elsewhere."""
    write(json.dumps(value, ensure_ascii=False, indent=2 if on_terminal() else None))
    return 0


def show_answer(reply: Reply) -> int:
    """``--json``: everything the daemon said, and the ETag."""
    return show({**reply.members, "etag": reply.etag} if reply.etag else reply.members)


def write(text: str) -> None:
    """A line in UTF-8, whatever the locale is."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


def show_rows(rows: Iterable[dict[str, Any]], columns: dict[str, Any], empty: str) -> int:
    """A table on a terminal (``columns``: header → row → text); else a JSON array, a row a line."""
    if on_terminal():
        lines = [[text(row) for text in columns.values()] for row in rows]
        write(_table(list(columns), lines) if lines else empty)
        return 0
    separator = "["
    for row in rows:
        write(separator + json.dumps(row, ensure_ascii=False))
        separator = ","
    write("[]" if separator == "[" else "]")
    return 0


def _table(headers: list[str], lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headers, *lines)]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in [headers, *lines]
    ]
    return "\n".join(rows)


def plain(text: str) -> str:
    """A name that cannot disturb a terminal."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.1f} MiB"


def age(timestamp: str | None) -> str:
    """How long ago, in its largest unit."""
    if not timestamp:
        return "-"
    from datetime import datetime, timezone

    then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    seconds = (datetime.now(timezone.utc) - then).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= length:
            return _when(seconds / length, unit)
    return _when(seconds, "s")


def _when(count: float, unit: str) -> str:
    return f"in {-count:.0f} {unit}" if count < 0 else f"{count:.0f} {unit} ago"
