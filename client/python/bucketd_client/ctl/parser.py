"""Parse ``sys.argv`` into a command and its options; help and usage errors.

The parser uses the table of commands instead of argparse, which would add 5 ms to every start and
makes no suggestion for a mistyped word.
"""

from __future__ import annotations

from .table.daily import COMMANDS, Command, Option, Options

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Iterator

# Names of similar commands in other programs.
OTHERS = {
    "add": "set", "cat": "get", "contexts": "context list", "delete": "clear", "devices": "usage",
    "dump": "export", "health": "doctor", "holds": "hold list", "load": "import",
    "lock": "run --hold", "locks": "hold list", "ls": "list", "merge": "set",
    "mv": "device rename", "patch": "set", "put": "replace", "read": "get", "remove": "unset",
    "rename": "device rename", "restore": "import", "rm": "unset", "schemas": "schema list",
    "show": "get", "tail": "watch", "unlock": "hold break", "update": "set", "write": "set",
}  # fmt: skip


class Help(Exception):
    """The command line asks for help; the message is the help text."""


class Usage(Exception):
    """The command line is not valid; the message says why, and how to fix it."""


class Declined(Exception):
    """The user has declined; nothing was changed."""


def parse(argv: list[str]) -> tuple[Command, Options]:
    """Return the command and its options. Raises Help or Usage."""
    command, words = _command(argv)
    options = _options(command, words)
    _count(command, options.arguments)
    return command, options


def _count(command: Command, given: list[str]) -> None:
    if len(given) > command.most:
        key, equals, _ = given[command.most].partition("=")
        extra = repr(key + equals)
        if any(option.name == "data" for option in command.options):
            # The word may be a secret value, so the message does not show it.
            extra = f"argument {command.most + 1}"
        raise Usage(f"cannot {command.name}: it takes no {extra}; usage: {usage(command)}")
    if len(given) < command.needs:
        raise Usage(f"cannot {command.name}: an argument is missing; usage: {usage(command)}")


def _command(argv: list[str]) -> tuple[Command, list[str]]:
    if argv and argv[0] == "help":
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help"):
        raise Help(_overview())
    if argv[0] == "--version":
        from .. import __version__

        raise Help(f"bucketctl {__version__}")
    for commands in (lambda: COMMANDS, _every):
        for words in (2, 1):
            name = " ".join(argv[:words])
            for command in commands():
                if command.name == name:
                    return command, argv[words:]
    raise _unknown_command(argv)


def _unknown_command(argv: list[str]) -> Exception:
    word = argv[0]
    if word.startswith("-"):
        return Usage(f"cannot begin with {word}: the command comes first, then its options")
    family = {c.name.split()[1]: c for c in _every() if c.name.startswith(f"{word} ")}
    if not family:
        names = [command.name.split()[0] for command in _every()]
        near = _nearest(word, names, OTHERS.get(word))
        return Usage(f"cannot do {word!r}: there is no such command{near}")
    if {"-h", "--help"} & set(argv):
        return Help(_family(word, list(family.values())))
    if len(argv) == 1 or argv[1].startswith("-"):
        forms = ", ".join(c.name for c in family.values())
        return Usage(f"cannot do {word!r} alone: there are {forms}")
    near = _nearest(f"{word} {argv[1]}", [c.name for c in family.values()])
    return Usage(f"cannot do '{word} {argv[1]}': there is no such command{near}")


def _options(command: Command, words: list[str]) -> Options:
    options = Options({}, [], command.name)
    rest = iter(words)
    for word in rest:
        if word in ("-h", "--help"):
            raise Help(_page(command))
        if word == "--":
            options.arguments.extend(rest)
        elif word == "-" or not word.startswith("-"):
            options.arguments.append(word)
            # All words after the first argument of run belong to that command.
            if command.name == "run":
                options.arguments.extend(rest)
        else:
            option, value = _option(command, word, rest)
            if option.often and option.name in options.given:
                value = f"{options.given[option.name]}\n{value}"
            options.given[option.name] = value
    return options


def _option(command: Command, word: str, rest: Iterator[str]) -> tuple[Option, str]:
    name, equals, value = word.partition("=")
    option = next((o for o in command.options if name in (f"--{o.name}", f"-{o.short}")), None)
    if option is None:
        raise Usage(f"cannot {command.name}: there is no option {name}{_other(command, name)}")
    if option.value and not equals:
        given = next(rest, None)
        if given is None:
            raise Usage(f"cannot {command.name}: {name} needs a value, {name} {option.value}")
        return option, given
    if equals and not option.value:
        raise Usage(f"cannot {command.name}: {name} takes no value")
    return option, value


def _other(command: Command, name: str) -> str:
    if name == "--curl":
        return "; it is more than one request; bucketctl api METHOD PATH --curl shows one"
    if not name.startswith("--") and command.most:
        return "; put -- before an argument that begins with -"
    return _nearest(name, [f"--{option.name}" for option in command.options])


def _nearest(word: str, known: list[str], meant: str | None = None) -> str:
    from difflib import get_close_matches

    close = [meant] if meant else get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else "; see bucketctl --help"


def usage(command: Command) -> str:
    return f"bucketctl {command.name} [OPTION…] {command.arguments}".rstrip()


def _page(command: Command) -> str:
    summary = command.summary[0].upper() + command.summary[1:]
    lines = [f"usage: {usage(command)}", "", f"{summary}.", ""]
    if command.notes:
        lines += [command.notes, ""]
    lines += ["options:", *map(_line, command.options), ""]
    examples = command.example.split("\n")
    lines += ["example:" if len(examples) == 1 else "examples:"]
    return "\n".join([*lines, *(f"  {example}" for example in examples)])


def _line(option: Option) -> str:
    left = f"{option.forms} {option.value}".rstrip()
    return f"  {left:<20} {option.help}"


def _every() -> tuple[Command, ...]:
    # The import is late, since daily commands do not need the other commands.
    from .table.all import every

    return every()


def _family(word: str, commands: list[Command]) -> str:
    lines = [f"usage: bucketctl {word} COMMAND [OPTION…]", ""]
    lines += [f"  {command.name:<16} {command.summary}" for command in commands]
    return "\n".join([*lines, "", f"`bucketctl {word} COMMAND --help` tells more, with examples."])


def _overview() -> str:
    lines = ["usage: bucketctl COMMAND [OPTION…]", ""]
    lines += ["The buckets of automations: one JSON object for each device and job.", ""]
    lines += [f"  {command.name:<16} {command.summary}" for command in _every()]
    return "\n".join([*lines, "", _MORE, EXIT_STATUS])


_MORE = """\
Inside `bucketctl run` a command finds its bucket by itself; elsewhere name the bucket:
--device D --job J, or --device D alone for the device bucket.

  bucketctl run --device phone-1 --job login -- python3 automation.py
  bucketctl get --device phone-1 --job login

`bucketctl COMMAND --help` tells more, with examples."""
EXIT_STATUS = """\
Exit status: 0 done; 1 refused by the daemon, declined by you, or failed otherwise;
2 usage; 3 no job context; 4 daemon not reachable; 5 schema violation; 6 precondition
failed."""
