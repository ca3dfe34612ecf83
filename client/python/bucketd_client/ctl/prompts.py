"""Asking a person before something that cannot be undone."""

from __future__ import annotations

import sys

from . import output
from .parser import Declined, Usage
from .table.daily import Options


def ask(options: Options, what: str) -> None:
    """Go on where ``--yes`` said so beforehand, or a person says it now. Raises Declined."""
    if options.has("yes"):
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise Usage(f"cannot {what} unasked: give --yes, or look first with --dry-run")
    output.warn(f"{what}? [y/N]", before="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        output.warn("nothing was changed")
        raise Declined


def counted(number: int, what: str) -> str:
    """``1 bucket``, ``2 buckets``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
