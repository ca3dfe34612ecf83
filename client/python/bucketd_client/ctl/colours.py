"""Colours on a terminal."""

from __future__ import annotations

import os

from . import output

RED, GREEN, YELLOW, BOLD = "31", "32", "33", "1"


def wanted() -> bool:
    """Report whether standard output is a terminal with colours, and $NO_COLOR is not set."""
    return (
        output.on_terminal()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") not in ("dumb", "")
    )


def paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if wanted() else text
