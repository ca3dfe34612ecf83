"""Suggestions for a mistyped command or option; none proposes what removes."""

from __future__ import annotations

from collections.abc import Iterable

from . import help
from .parser import Help, Usage
from .table.all import every
from .table.daily import Command

# The names of these commands in other programs. Words that mean removal are left out.
SYNONYMS = {
    "add": "set", "cat": "get", "check": "doctor", "compare": "diff",
    "config": "status --settings", "contexts": "context list", "describe": "get",
    "devices": "usage", "df": "usage", "dump": "export", "du": "usage", "env": "run",
    "exec": "run", "find": "list", "fetch": "get", "follow": "watch", "health": "doctor",
    "hget": "get", "holds": "hold list", "hset": "set", "info": "status", "jobs": "list",
    "keys": "get", "load": "import", "lock": "run --hold", "locks": "hold list",
    "log": "history", "ls": "list", "merge": "set", "monitor": "watch", "mv": "device rename",
    "nano": "edit", "ping": "doctor", "poll": "wait", "ps": "hold list", "put": "replace",
    "read": "get", "recover": "undo", "rename": "device rename",
    "revert": "undo", "rollback": "undo", "run-as": "run", "save": "export",
    "schemas": "schema list", "search": "grep", "settings": "status --settings", "show": "get",
    "start": "run", "stats": "status", "subscribe": "watch", "tail": "watch",
    "token": "context create",
    "until": "wait", "update": "set", "validate": "schema check", "version": "--version",
    "vi": "edit", "vim": "edit", "write": "set",
}  # fmt: skip
# Those whose names would be guessed, and what they remove would be gone.
REMOVING = {
    "clear", "unset", "sweep", "device forget", "schema remove", "context revoke", "hold break",
    "trash empty", "quarantine drop",
}  # fmt: skip
REMOVING_WORDS = {
    "clean", "del", "delete", "destroy", "drop", "erase", "flush", "forget", "hdel", "kill",
    "prune", "purge", "remove", "reset", "rm", "unlock", "wipe",
}  # fmt: skip
OPTION_SYNONYMS = {
    "--app": "--automation", "--output": "--format", "--dryrun": "--dry-run",
    "--etag": "--if-match", "--fields": "--columns", "--host": "--socket", "--match": "--where",
    "--older": "--stale", "--phone": "--device", "--query": "--where", "--raw-output": "--raw",
    "--rev": "--revision", "--serial": "--device", "--show-secrets": "--reveal",
    "--silent": "--quiet", "--sock": "--socket", "--unix-socket": "--socket",
    "--unmask": "--reveal", "-s": "--device", "-t": "--timeout", "-n": "--limit",
}  # fmt: skip
# These make a command remove more, or unasked.
RISKY = {"--all", "--force", "--no-trash", "--yes"}
HELP = "; see bucketctl --help"


def unknown_command(argv: list[str]) -> Exception:
    """Return the Usage, or for a family of commands the Help, that answers a command line."""
    word = argv[0]
    if word.startswith("-"):
        return Usage(f"cannot begin with {word}: the command comes first, then its options")
    family = {c.name.split()[1]: c for c in every() if c.name.startswith(f"{word} ")}
    if not family:
        return Usage(f"cannot do {word!r}: there is no such command{_other_command(word)}")
    if {"-h", "--help"} & set(argv):
        return Help(help.family(word, list(family.values())))
    if len(argv) == 1 or argv[1].startswith("-"):
        forms = ", ".join(c.name for c in family.values())
        return Usage(f"cannot do {word!r} alone: there are {forms}")
    names = [c.name for c in family.values() if c.name not in REMOVING]
    near = _nearest(f"{word} {argv[1]}", names)
    return Usage(f"cannot do '{word} {argv[1]}': there is no such command{near}")


def _other_command(word: str) -> str:
    if word in REMOVING_WORDS:
        return f"{HELP} for those that remove"
    if (meant := SYNONYMS.get(word)) is not None and _exists(meant):
        return f"; did you mean {meant}?"
    # The first words of families are proposed, too; of those that only remove there is none.
    names = {c.name.split()[0] for c in every() if c.name not in REMOVING}
    return _nearest(word, names)


def _exists(words: str) -> bool:
    command = words.partition(" -")[0]
    return words.startswith("--") or any(c.name == command for c in every())


def other_option(command: Command, name: str) -> str:
    """Return the rest of the message about an unknown option."""
    known = {f"--{option.name}" for option in command.options}
    if name == "--curl":
        return "; it is more than one request; bucketctl api METHOD PATH --curl shows one"
    if (meant := OPTION_SYNONYMS.get(name)) in known:
        return f"; did you mean {meant}?"
    if not name.startswith("--") and command.most:
        return "; put -- before an argument that begins with -"
    return _nearest(name, known - RISKY)


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    # A short word with two letters exchanged, such as gte, is less alike than a long one.
    close = get_close_matches(word, sorted(known), 1, 0.65 if len(word) < 5 else 0.75)
    return f"; did you mean {close[0]}?" if close else HELP
