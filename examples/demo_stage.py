"""Run the steps of a demo, show them on the screen, and report failures."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

WIDTH = 94


class Failed(Exception):
    """A step had an unexpected result; the message describes it."""


# --- the steps


def run_steps(steps: Sequence[tuple[str, Callable[[], None]]]) -> None:
    """Run the steps in order, each below its title. Raises Failed if a step fails."""
    for number, (name, step) in enumerate(steps, 1):
        title(number, name)
        step()
    print(f"\nAll {len(steps)} steps succeeded.")


@contextlib.contextmanager
def report_failures(log: Callable[[], str]) -> Iterator[None]:
    """Report a failure in the block with the log and exit with 1; after Ctrl-C exit with 130."""
    try:
        yield
    except (Failed, OSError, ValueError, KeyError) as failure:
        if isinstance(failure, KeyError):
            failure = Failed(f"an answer has no member {failure}")
        print(f"   {_cross()} {failure}\n\nThe demo failed at this step.", flush=True)
        print(log(), end="", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\nStopped.")
        raise SystemExit(130) from None


def scratch_directory(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Create a scratch directory, in /tmp if the usual place is too long for a socket's path."""
    base = None if len(tempfile.gettempdir()) <= 60 else "/tmp"  # noqa: S108
    return tempfile.TemporaryDirectory(prefix=prefix, dir=base)


def exit_on_signals() -> None:
    """Exit on SIGTERM and SIGHUP by an exception, so that all started programs are ended."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


# --- the screen


def _sgr(code: str) -> str:
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[{code}m" if coloured and os.environ.get("TERM") != "dumb" else ""


def _mark(sign: str, word: str) -> str:
    try:
        sign.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return word
    return sign


def title(number: int, text: str) -> None:
    print(f"\n{_sgr('1')}{number}. {text}{_sgr('0')}", flush=True)


def command(text: str) -> None:
    print(f"   $ {text}", flush=True)


def output(text: str) -> None:
    """Print the output of a program; wrap long lines at blanks, commas and dots."""
    for line in text.splitlines():
        row = ""
        for piece in re.findall(r"[^ ,.]*[ ,.]?", line):
            if row and len(row) + len(piece) > WIDTH:
                print(f"   | {row.rstrip()}")
                row = ""
            row += piece
        print(f"   | {row}")


def _cross() -> str:
    return f"{_sgr('31')}{_mark('✗', 'FAILED:')}{_sgr('0')}"


def check(holds: bool, what: str, otherwise: str) -> None:
    """Print a tick and ``what``; raise Failed with ``otherwise`` unless ``holds``."""
    if not holds:
        raise Failed(otherwise)
    print(f"   {_sgr('32')}{_mark('✓', 'ok:')}{_sgr('0')} {what}", flush=True)
