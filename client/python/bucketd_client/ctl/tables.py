"""Tables for people, and the same columns separated by tabs for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .. import _json
from . import colours, output


class Cell(str):
    """A text of a table, with the value that it shows, its colour, and its alignment."""

    raw: object
    colour: str
    right: bool

    @classmethod
    def of(cls, text: str, raw: object, colour: str = "", right: bool = False) -> Cell:
        cell = cls(text)
        cell.raw, cell.colour, cell.right = raw, colour, right
        return cell


# No column is shortened to less, however narrow the terminal is.
MIN_WIDTH = 8
# The names of the first column are shown once for each group of rows.
GROUPED = "DEVICE"
# These are copied to a command line, so they are never cut.
WHOLE = ("ID", "DEVICE", "JOB", "KEY")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def row_lines(rows: Iterable[dict[str, Any]], columns: output.Columns, form: str) -> list[str]:
    """Return the lines of a table, without heads for ``tsv``; none if there are no rows."""
    cells = [[text(row) for text in columns.values()] for row in rows]
    if form == "tsv":
        return ["\t".join(map(_raw, line)) for line in cells]
    return _table(list(columns), cells) if cells else []


def value_lines(value: Any, form: str) -> Iterator[str]:
    """Yield the lines that show a JSON value: of an object one line for each key."""
    if not isinstance(value, dict):
        items = value if isinstance(value, list) else [value]
        yield from (_field(item) if form == "tsv" else _shown(item) for item in items)
    elif form == "tsv":
        yield from (f"{_field(key)}\t{_field(child)}" for key, child in value.items())
    elif value:
        rows = [[output.plain(key), _shown(child)] for key, child in value.items()]
        yield from _table(["KEY", "VALUE"], rows)


def _raw(cell: str) -> str:
    if not isinstance(cell, Cell):
        return cell.translate(_ESCAPES)
    return "" if cell.raw is None else _field(cell.raw)


def _field(value: Any) -> str:
    text = value if isinstance(value, str) else _json.dumps(value)
    return text.translate(_ESCAPES)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else output.masks_shown(_json.dumps(value))
    return output.plain(text)


def _table(headers: list[str], rows: list[list[str]]) -> list[str]:
    texts = [[output.plain(cell) for cell in row] for row in rows]
    is_right = [isinstance(cell, Cell) and cell.right for cell in rows[0]]
    if output.on_terminal() and headers[0] == GROUPED:
        _show_once(texts)
    widths = [max(map(width, column)) for column in zip(headers, *texts)]
    if room := output.columns():
        _fit(
            widths,
            room,
            texts,
            [not right and h not in WHOLE for right, h in zip(is_right, headers)],
        )
    lines = [colours.paint(_line(headers, widths, is_right), colours.BOLD)]
    for row, text in zip(rows, texts):
        paints = [cell.colour if isinstance(cell, Cell) else "" for cell in row]
        lines.append(_line(text, widths, is_right, paints))
    return lines


def _show_once(texts: list[list[str]]) -> None:
    before = None
    for row in texts:
        before, row[0] = row[0], "" if row[0] == before else row[0]


def _fit(widths: list[int], room: int, texts: list[list[str]], may_shrink: list[bool]) -> None:
    """Make columns narrower until a line fits the terminal: those that say nothing, then texts.

    A width of 0 leaves a column out.
    """
    for place in range(len(widths)):
        if _total(widths) > room and all(row[place] == "-" for row in texts):
            widths[place] = 0
    shrinking = [place for place, may in enumerate(may_shrink) if may]
    while _total(widths) > room and shrinking:
        widest = max(shrinking, key=lambda place: widths[place])
        if widths[widest] <= MIN_WIDTH:
            return
        widths[widest] -= 1


def _total(widths: list[int]) -> int:
    shown = [wide for wide in widths if wide]
    return sum(shown) + 2 * (len(shown) - 1)


def _line(
    cells: list[str], widths: list[int], is_right: list[bool], paints: list[str] | None = None
) -> str:
    parts = []
    for place, (cell, wide, right) in enumerate(zip(cells, widths, is_right)):
        if not wide:
            continue
        text = cell if width(cell) <= wide else _cut(cell, wide)
        blanks = " " * (wide - width(text))
        colour = paints[place] if paints else ""
        shown = colours.paint(text, colour) if colour else text
        parts.append(blanks + shown if right else shown + blanks)
    return "  ".join(parts).rstrip()


def _cut(text: str, wide: int) -> str:
    while width(text) >= wide:
        text = text[:-1]
    return f"{text}…"


def width(text: str) -> int:
    """Return the width of a text in columns of a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)
