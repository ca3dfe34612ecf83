"""Markdown, as far as the pages that are made need it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Its lines; a bar within a cell is escaped."""
    titles = list(head)
    for row in (titles, ["---"] * len(titles), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
