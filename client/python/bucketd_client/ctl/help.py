"""The help texts of ``bucketctl``, for people and as JSON."""

from __future__ import annotations

import re
from itertools import groupby
from textwrap import wrap
from typing import Any

from . import output
from .parser import usage
from .table.all import every
from .table.daily import Command, Option

# The groups of the overview, with the commands, or families of commands, in the order of use.
GROUPS = {
    "use": (
        "one bucket",
        ("get", "set", "unset", "patch", "replace", "clear", "edit", "wait", "watch"),
    ),
    "run": ("automations, and who may run", ("run", "context", "hold")),
    "look": ("what is there", ("list", "usage", "status", "grep", "diff", "history", "console")),
    "mend": ("what went wrong", ("undo", "trash", "doctor", "quarantine", "device", "sweep")),
    "schemas": ("what a bucket may hold", ("schema", "types")),
    "operate": (
        "many buckets, and scripts",
        ("backup", "restore", "export", "import", "apply", "migrate", "api"),
    ),
}
LAST = "operate"
OUTPUT = """\
A terminal gets words and tables, a pipe JSON. -o table prints the former into a pipe, too, and
-o json the latter on a terminal; -o ndjson prints one row or value per line; -o tsv separates the
columns by tabs, without heads, with sizes in bytes, times as the daemon has them, and \\t, \\n and
\\\\ in place of a tab, a line break and a backslash. There are colours on a terminal, never with
NO_COLOR, and everywhere with CLICOLOR_FORCE=1. With --json a refusal is JSON, too, on standard
output: {"success": false, "error", "code", "details"}. Remarks for people appear on standard error
only where that is a terminal, and never with -q."""
NAMING = """\
Inside `bucketctl run` a command finds its bucket by itself; elsewhere name the bucket first:
DEVICE/JOB, or DEVICE/ for the device bucket; -d DEVICE -j JOB if a name has a slash.

  bucketctl run phone-1/login -- python3 automation.py
  bucketctl get phone-1/login sessionToken -r

`bucketctl COMMAND --help` tells more, with examples; --help --json is for programs."""
EXIT_STATUS = """\
Exit status: 0 done; 1 refused by the daemon, declined by you, or failed otherwise;
2 usage; 3 no job context; 4 daemon not reachable; 5 schema violation; 6 precondition
failed."""
STATUSES = {
    "0": "done",
    "1": "refused by the daemon, declined, or failed otherwise",
    "2": "usage",
    "3": "no job context",
    "4": "daemon not reachable",
    "5": "schema violation",
    "6": "precondition failed",
}


def group_of(command: Command) -> str:
    family = command.name.split()[0]
    return next((g for g, (_, names) in GROUPS.items() if family in names), LAST)


def grouped() -> dict[str, list[Command]]:
    """Return the commands of each group in the order of the groups."""
    found: dict[str, list[Command]] = {group: [] for group in GROUPS}
    for command in every():
        found[group_of(command)].append(command)
    for group, commands in found.items():
        order = GROUPS[group][1]
        commands.sort(key=lambda c: _place(c.name.split()[0], order))
    return found


def _place(family: str, order: tuple[str, ...]) -> int:
    return order.index(family) if family in order else len(order)


def overview(as_json: bool = False) -> str:
    if as_json:
        data = [_data(c) for commands in grouped().values() for c in commands]
        groups = {group: title for group, (title, _) in GROUPS.items()}
        return _json({"groups": groups, "commands": data, "exit_status": STATUSES})
    lines = ["usage: bucketctl COMMAND [OPTION…]", ""]
    lines += ["The buckets of automations: one JSON object for each device and job.", ""]
    for group, commands in grouped().items():
        lines += [f"{group}: {GROUPS[group][0]}", *map(_row, commands), ""]
    return "\n".join([*lines, NAMING, "", OUTPUT, "", EXIT_STATUS])


def page(command: Command, as_json: bool = False) -> str:
    """Return the help of one command."""
    if as_json:
        return _json(_data(command))
    summary = command.summary[0].upper() + command.summary[1:]
    lines = [f"usage: {usage(command)}", "", f"{summary}.", ""]
    if command.notes:
        lines += [command.notes, ""]
    lines += ["options:", *map(_line, command.options), ""]
    examples = command.example.split("\n")
    lines += ["example:" if len(examples) == 1 else "examples:"]
    return "\n".join([*lines, *(f"  {example}" for example in examples)])


def show(text: str) -> None:
    """Write a help text; on a terminal its lines are as long as that is wide."""
    wide = output.columns()
    output.write(fitted(text, wide) if wide else text)


def fitted(text: str, wide: int) -> str:
    """Return a help text in lines of at most ``wide`` columns."""
    lines: list[str] = []
    for is_indented, group in groupby(text.split("\n"), lambda line: line[:2] in ("  ", "")):
        if not is_indented:
            lines += wrap(" ".join(group), wide, break_on_hyphens=False)
            continue
        for line in group:
            # The second column stays where it is.
            column = re.match(r"  \S.*?\s{2,}(?=\S)", line)
            indent = " " * len(column[0]) if column else "    "
            lines += wrap(
                line, wide, subsequent_indent=indent, drop_whitespace=True, break_on_hyphens=False
            ) or [""]
    return "\n".join(lines)


def family(word: str, commands: list[Command]) -> str:
    """Return the help of the commands that begin with a word."""
    lines = [f"usage: bucketctl {word} COMMAND [OPTION…]", "", *map(_row, commands)]
    return "\n".join([*lines, "", f"`bucketctl {word} COMMAND --help` tells more, with examples."])


def _row(command: Command) -> str:
    return f"  {command.name:<16} {command.summary}"


def _line(option: Option) -> str:
    left = f"{option.forms} {option.value}".rstrip()
    return f"  {left:<20} {option.help}"


def _data(command: Command) -> dict[str, Any]:
    return {
        "name": command.name,
        "group": group_of(command),
        "summary": command.summary,
        "usage": usage(command),
        "options": [_option(option) for option in command.options],
        "notes": command.notes,
        "examples": command.example.split("\n"),
    }


def _option(option: Option) -> dict[str, Any]:
    forms = {"name": f"--{option.name}", "short": f"-{option.short}" if option.short else None}
    return {**forms, "value": option.value or None, "often": option.often, "help": option.help}


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=2)
