"""Write manual pages of all commands: ``python -m bucketd_client.ctl.commands.man DIR``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from ... import __version__
from ..help import EXIT_STATUS, GROUPS, OUTPUT, grouped
from ..parser import usage
from ..table.all import every
from ..table.daily import Command, Option

SECTION = "1"
ENVIRONMENT = (
    ("BUCKETD_SOCKET", "the daemon's socket"),
    ("BUCKETD_TOKEN, BUCKETD_TOKEN_FILE", "the token of a job context, or a file that holds it"),
    ("BUCKETD_DEVICE, BUCKETD_JOB, BUCKETD_AUTOMATION", "without a token: the names of the bucket"),
    ("BUCKETD_FENCE, BUCKETD_HOLD", "the fence of a hold, sent with writes, and what is held"),
    ("BUCKETD_RUN", "set by run for its command: the label of the run"),
    ("VISUAL, EDITOR", "the editor that edit opens"),
    ("NO_COLOR", "unless empty, no colours anywhere"),
    ("CLICOLOR_FORCE", "unless empty or 0, colours also where standard output is no terminal"),
)


def pages() -> dict[str, str]:
    """Return file names and texts: one page for each command, and one that lists them."""
    found = {f"bucketctl.{SECTION}": _text(_overview())}
    for command in every():
        found[f"{_name(command)}.{SECTION}"] = _text(_page(command))
    return found


def _name(command: Command) -> str:
    return "bucketctl-" + command.name.replace(" ", "-")


def _text(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def _page(command: Command) -> Iterator[str]:
    yield from _head(_name(command), command.summary)
    yield from (".SH SYNOPSIS", f".B {plain(usage(command))}")
    if command.notes:
        yield ".SH DESCRIPTION"
        yield from map(line, command.notes.split("\n"))
    yield ".SH OPTIONS"
    for option in command.options:
        yield from (".TP", f".B {_option(option)}", line(option.help))
    yield from (".SH EXAMPLES", ".nf", *map(line, command.example.split("\n")), ".fi")
    yield from _foot()
    yield from (".SH SEE ALSO", f".BR bucketctl ({SECTION})")


def _option(option: Option) -> str:
    return plain(f"{option.forms} {option.value}".rstrip())


def _overview() -> Iterator[str]:
    yield from _head("bucketctl", "the buckets of automations, from a shell")
    yield from (".SH SYNOPSIS", ".B bucketctl", line("COMMAND [OPTION…]"))
    yield from (".SH DESCRIPTION", "One JSON object is kept for each device and job.")
    yield "Each command has a page of its own:"
    for group, commands in grouped().items():
        yield f".SS {plain(f'{group}: {GROUPS[group][0]}')}"
        for command in commands:
            yield from (".TP", f".BR {plain(_name(command))} ({SECTION})", line(command.summary))
    yield from (".SH OUTPUT", *map(line, OUTPUT.split("\n")))
    yield ".SH ENVIRONMENT"
    for name, meaning in ENVIRONMENT:
        yield from (".TP", f".B {plain(name)}", line(meaning))
    yield from _foot()


def _head(name: str, summary: str) -> Iterator[str]:
    title = plain(name).upper()
    yield f'.TH {title} {SECTION} "" "bucketctl {__version__}" "User Commands"'
    yield from (".SH NAME", f"{plain(name)} \\- {plain(summary)}")


def _foot() -> Iterator[str]:
    yield from (".SH EXIT STATUS", *map(line, EXIT_STATUS.split("\n")))


def line(text: str) -> str:
    """Return a line of text; escape a dot or apostrophe at its beginning, which roff interprets."""
    return ("\\&" if text[:1] in (".", "'") else "") + plain(text)


def plain(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m bucketd_client.ctl.commands.man DIR\n")
        return 2
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, text in pages().items():
        with open(os.path.join(sys.argv[1], name), "w", encoding="ascii") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
