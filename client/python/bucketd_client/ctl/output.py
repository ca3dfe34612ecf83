"""Print values for people on a terminal, and JSON for programs."""

from __future__ import annotations

import os
import sys

from .. import _json

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TextIO

    from .._api import Reply
    from .tables import Cell

    Columns = dict[str, Callable[[dict[str, Any]], str]]


ERASE = "\r\x1b[K"
# The escape sequence that removes the current progress bar, if any.
erase = ""
# People see this in place of a secret.
BULLETS = "••••"
# The exit status by which a shell reports SIGPIPE.
READER_GONE = 141
# At most so many tolerated violations of one bucket are shown.
MAX_WARNINGS = 20
# Whether the last request has changed something.
changed = False
# The form that -o asks for; empty: that of a terminal there, JSON elsewhere.
form = ""
# True with -q: nothing goes to standard output, and no remarks are made.
quiet = False
FORMS = ("table", "json", "ndjson", "tsv")
# A bucket that was not written for so long is shown as stale.
STALE_DAYS = 30
YELLOW = "33"


class Unwritten(Exception):
    """Writing to standard output failed; the message says why."""


def on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def into_pipe() -> bool:
    """Report whether standard output is a pipe."""
    import stat

    return sys.stdout is not None and stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)


def columns() -> int:
    """Return how wide the terminal is; 0 if it is not known, or there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns if on_terminal() else 0
    except OSError:
        return 0


def for_people() -> bool:
    """Report whether the output is in words and tables, as on a terminal."""
    return form == "table" or (not form and on_terminal())


def show(value: Any) -> int:
    """Write one JSON value: indented on a terminal, on one line elsewhere, or in the form of -o."""
    if form in ("table", "tsv"):
        from .tables import value_lines

        for line in value_lines(value, form):
            write(line)
    elif on_terminal() and form != "ndjson":
        import json

        from .colours import in_json

        text = json.dumps(value, ensure_ascii=False, indent=2)
        write(in_json(harmless(masks_shown(text))))
    else:
        write_json(value)
    return 0


def show_line(value: Any) -> None:
    """Write one of several JSON values, on one line everywhere."""
    if form == "tsv":
        show(value)
    else:
        write(harmless(masks_shown(_json.dumps(value))))


def write_json(value: Any) -> None:
    """Write one JSON value on one line, unescaped."""
    text = _json.dumps(value)
    write(masks_shown(text) if on_terminal() else text)


def masks_shown(text: str) -> str:
    """Return JSON with ``••••`` for each mask; a string cannot contain what is replaced."""
    if '"$masked"' not in text:
        return text
    import re

    return re.sub(r'\{\s*"\$masked":\s*true\s*\}', BULLETS, text)


def show_answer(reply: Reply) -> int:
    """Write the whole response and its ETag, for ``--json``."""
    return show({**reply.members, "etag": reply.etag} if reply.etag else reply.members)


def write(text: str) -> None:
    """Write a line in UTF-8, whatever the locale is."""
    put(text.encode("utf-8", "surrogateescape") + b"\n", flush=True)


def put(data: bytes, flush: bool = False) -> None:
    """Write bytes as they are. Raises Unwritten, or BrokenPipeError where the reader has gone."""
    if quiet:
        return
    if sys.stdout is None:
        raise Unwritten("it is closed")
    try:
        sys.stdout.buffer.write(data)
        if flush:
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise Unwritten(problem.strerror or str(problem)) from None


def end_with_reader() -> None:
    """End the process with status 141 once the reader of standard output has closed it.

    A write would fail as well, but a watch may have nothing to write for days. For commands that
    change nothing and own no files, since they may end at any place.
    """
    import select
    import threading

    if sys.stdout is None or not hasattr(select, "poll"):
        return
    poller = select.poll()
    # poll reports errors and hang-ups even if no events are requested.
    poller.register(sys.stdout.fileno(), 0)

    def wait_for_reader() -> None:
        poller.poll()
        if erase and sys.stderr is not None:
            os.write(sys.stderr.fileno(), erase.encode())
        os._exit(READER_GONE)

    threading.Thread(target=wait_for_reader, daemon=True).start()


def warn(message: str, before: str = "bucketctl: ", colour: str = "") -> None:
    """Write one line to standard error, if it is open, in place of a progress bar there."""
    if sys.stderr is None:
        return
    line = before + plain(message.replace("\n", " "))
    if colour:
        from .colours import paint

        line = paint(line, colour, sys.stderr)
    line = erase + line
    try:
        sys.stderr.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
        sys.stderr.buffer.flush()
    except OSError:
        # The message cannot be shown anywhere.
        abandon(sys.stderr)


def remark(message: str) -> None:
    """Write a line for a person to standard error, if that is a terminal and -q is not given.

    Nothing else is told of it, so that no mail of cron and no log has more lines than before.
    """
    if not quiet and sys.stderr is not None and sys.stderr.isatty():
        warn(message)


def warn_of_recovery(recovered: dict[str, Any]) -> None:
    """Warn that the bucket may lack changes that were once stored, and why."""
    what = f"revision {recovered.get('revision')} has replaced a damaged file"
    warn(f"{what}, and may lack changes: {recovered.get('reason')}")


def warn_of_violations(violations: list[dict[str, Any]], bucket: str) -> None:
    """Warn that a bucket still violates its schema, which tolerates that, and how to fix it."""
    for violation in violations[:MAX_WARNINGS]:
        place = violation.get("path") or "the bucket"
        warn(
            f"{bucket}{place} {violation.get('message')}; this stood before and is tolerated: "
            "correct it with bucketctl edit, or change the schema"
        )
    if (more := len(violations) - MAX_WARNINGS) > 0:
        warn(f"{bucket}{more} more violations are tolerated; --json has them all")


def abandon(stream: TextIO | None) -> None:
    """Drop the buffered output of a stream; its flush at exit would change the exit status."""
    from contextlib import suppress

    with suppress(OSError, ValueError):
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show_rows(rows: Iterable[dict[str, Any]], columns: Columns, empty: str) -> int:
    """Write a table (``columns``: header → row → text), a JSON array, or the form of -o."""
    if for_people() or form == "tsv":
        from .tables import row_lines

        for line in row_lines(rows, columns, form) or ([] if form == "tsv" else [empty]):
            write(line)
        return 0
    if form == "ndjson":
        for row in rows:
            write_json(row)
        return 0
    separator = "["
    for row in rows:
        write(separator + _json.dumps(row))
        separator = ","
    write("[]" if separator == "[" else "]")
    return 0


def plain(text: str) -> str:
    """Return a text in which characters that could disturb a terminal are escaped."""
    return "".join(c if _is_harmless(c) else f"\\u{ord(c):04x}" for c in text)


def harmless(text: str) -> str:
    """Return JSON in which the control characters that JSON allows are escaped."""
    return "\n".join(map(plain, text.split("\n")))


def _is_harmless(char: str) -> bool:
    # Joiners combine several emoji into one; beyond U+FFFF an escape would need two units.
    return char.isprintable() or char in "\u200d\u00a0\u3000" or ord(char) > 0xFFFF


def name(value: str | None, absent: str = "-") -> Cell:
    """Return a name that may be absent."""
    from .tables import Cell

    return Cell.of(value or absent, value or None)


def job(value: str | None) -> Cell:
    """Return the name of a job; without one it is the bucket of the device."""
    from .tables import Cell

    return Cell.of("(device)" if value is None else value, value)


def number(count: int) -> Cell:
    from .tables import Cell

    return Cell.of(str(count), count, right=True)


def size(count: int) -> Cell:
    """Return a number of bytes as people read it: 14 B, 1.4 KiB, 230 MiB."""
    from .tables import Cell

    if count < 1024:
        return Cell.of(f"{count} B", count, right=True)
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1023.5 or unit == "TiB":
            break
    digits = 1 if value < 99.95 else 0
    return Cell.of(f"{value:.{digits}f} {unit}", count, right=True)


def age(timestamp: str | None, stale_days: float | None = None) -> Cell:
    """Return the time from now to a time stamp, past or future, in the largest unit.

    After ``stale_days`` it has a colour.
    """
    from .tables import Cell

    if not timestamp:
        return Cell.of("-", None)
    from datetime import datetime, timezone

    try:
        then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
        seconds = (datetime.now(timezone.utc) - then).total_seconds()
    except (ValueError, TypeError):
        # An invalid time written by hand must not make the whole table fail.
        return Cell.of(timestamp, timestamp)
    is_stale = stale_days is not None and seconds > stale_days * 86400
    return Cell.of(_when(seconds), timestamp, YELLOW if is_stale else "")


def _when(seconds: float) -> str:
    count, unit = duration(abs(seconds))
    return f"in {count:.0f} {unit}" if seconds < 0 else f"{count:.0f} {unit} ago"


def duration(seconds: float) -> tuple[float, str]:
    """Return a time in the largest unit of which there is one."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return seconds / length, unit
    return seconds, "s"
