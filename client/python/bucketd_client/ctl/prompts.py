"""Ask the user before an action that cannot be undone."""

from __future__ import annotations

import sys

from . import output
from .parser import Declined, Usage
from .table.daily import Options


def ask(options: Options, what: str) -> None:
    """Return if ``--yes`` was given or the user agrees. Raises Declined, or Usage."""
    if options.has("yes"):
        return
    if not person_is_there():
        raise Usage(f"cannot {what} unasked: give --yes, or check first with --dry-run")
    if answer(f"{what}? [y/N]").strip() not in ("y", "yes"):
        output.warn("nothing was changed")
        raise Declined


def person_is_there() -> bool:
    """Report whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def answer(question: str) -> str:
    """Ask a question, and return the answer in lower case; empty at the end of the input."""
    output.warn(question, before="")
    return sys.stdin.buffer.readline().decode("utf-8", "replace").lower()


def counted(number: int, what: str) -> str:
    """Return ``1 bucket``, ``2 buckets``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
