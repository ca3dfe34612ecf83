"""How a demo is played: its steps, what is on the screen meanwhile, and how it ends."""

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
    """A step did not show what it should; the message says what it showed."""


# --- the play


def play(steps: Sequence[tuple[str, Callable[[], None]]]) -> None:
    """One after the other, each below its name; Failed where one does not show what it should."""
    for number, (name, step) in enumerate(steps, 1):
        title(number, name)
        step()
    print(f"\nAll {len(steps)} steps showed what they should.")


@contextlib.contextmanager
def told(log: Callable[[], str]) -> Iterator[None]:
    """A play within this that fails, or is interrupted, says so and leaves with 1, or with 130."""
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
    """Where scratch directories go, unless no socket's path could be that long."""
    base = None if len(tempfile.gettempdir()) <= 60 else "/tmp"  # noqa: S108
    return tempfile.TemporaryDirectory(prefix=prefix, dir=base)


def leave_when_told() -> None:
    """On SIGTERM and SIGHUP, by way of all that is to be ended."""
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
    """Print what a program said, folded where it is wide: at blanks, commas and dots."""
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
    """Print a tick and ``what``; Failed with ``otherwise`` where it does not hold."""
    if not holds:
        raise Failed(otherwise)
    print(f"   {_sgr('32')}{_mark('✓', 'ok:')}{_sgr('0')} {what}", flush=True)
