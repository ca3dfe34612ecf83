"""Colours on a terminal, or where $CLICOLOR_FORCE asks for them."""

from __future__ import annotations

import os
import re
from typing import TextIO

from . import output

RED, GREEN, YELLOW, BLUE, BOLD = "31", "32", output.YELLOW, "34", "1"
# A string with the colon of a key, a string, a mask, or another value.
_TOKEN = re.compile(
    r'("(?:[^"\\]|\\.)*")(\s*:)?|' + output.BULLETS + r"|-?\d[\d.eE+-]*|true|false|null"
)


def wanted(stream: TextIO | None = None) -> bool:
    """Report whether to use colours on standard output, or on another stream."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    is_terminal = output.on_terminal() if stream is None else stream.isatty()
    return is_terminal and os.environ.get("TERM") not in ("dumb", "")


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if wanted(stream) else text


def in_json(text: str) -> str:
    """Return JSON with keys, strings and other values in colours."""
    return _TOKEN.sub(_painted, text) if wanted() else text


def _painted(found: re.Match[str]) -> str:
    string, colon = found.groups()
    if string is None:
        return f"\x1b[{YELLOW}m{found.group()}\x1b[0m"
    return f"\x1b[{BLUE if colon else GREEN}m{string}\x1b[0m{colon or ''}"
