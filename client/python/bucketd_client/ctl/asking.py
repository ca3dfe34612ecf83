"""Asking a person before something that cannot be undone."""

from __future__ import annotations

import sys

from . import output
from .commands import Options
from .parser import Usage


def agreed(options: Options, what: str) -> bool:
    """Whether to do it: said beforehand by ``--yes``, or by a person now."""
    if options.has("yes"):
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        raise Usage(f"cannot {what} unasked: give --yes, or look first with --dry-run")
    output.warn(f"{what}? [y/N]", before="")
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    output.warn("nothing was changed")
    return False


def counted(number: int, what: str) -> str:
    """``1 bucket``, ``2 buckets``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
