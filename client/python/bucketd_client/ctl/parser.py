"""From ``sys.argv`` to a command and its options; help and usage errors on the way.

A table and forty lines instead of argparse, whose import alone takes longer
than the whole of ``bucketctl get``.
"""

from __future__ import annotations

from .commands import COMMANDS, Command, Option, Options


class Help(Exception):
    """The text that was asked for."""


class Usage(Exception):
    """What was typed is no command; the text says why, and what would be."""


def parse(argv: list[str]) -> tuple[Command, Options]:
    """The command and its options. Raises Help or Usage."""
    command, rest = _command(argv)
    if "--" in rest:
        split = rest.index("--")
        rest, behind = rest[:split], rest[split + 1 :]
    else:
        behind = []
    options = _options(command, rest)
    options.arguments.extend(behind)
    if not command.needs <= len(options.arguments) <= command.most:
        raise Usage(f"cannot {command.name}: usage: {usage(command)}")
    return command, options


def _command(argv: list[str]) -> tuple[Command, list[str]]:
    if not argv or argv[0] in ("-h", "--help", "help"):
        raise Help(_overview())
    if argv[0] == "--version":
        from .. import __version__

        raise Help(f"bucketctl {__version__}")
    for words in (2, 1):
        name = " ".join(argv[:words])
        for command in COMMANDS:
            if command.name == name:
                return command, argv[words:]
    raise _unknown_command(argv)


def _unknown_command(argv: list[str]) -> Exception:
    family = [c.name for c in COMMANDS if c.name.split()[0] == argv[0]]
    if family:
        if len(argv) > 1 and argv[1] in ("-h", "--help"):
            return Help(
                "\n".join(["usage:", *(f"  {usage(c)}" for c in COMMANDS if c.name in family)])
            )
        return Usage(f"cannot do that: there are {', '.join(family)}")
    names = [c.name for c in COMMANDS] + [c.name.split()[0] for c in COMMANDS]
    return Usage(f"cannot do {argv[0]!r}: there is no such command{_nearest(argv[0], names)}")


def _options(command: Command, words: list[str]) -> Options:
    known = {f"--{option.name}": option for option in command.options}
    options = Options({}, [])
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word in ("-h", "--help"):
            raise Help(_page(command))
        if not word.startswith("-") or word == "-":
            options.arguments.append(word)
            if command.name == "run":  # what comes behind the command belongs to it
                options.arguments.extend(words[position:])
                break
            continue
        name, equals, value = word.partition("=")
        option = known.get(name)
        if option is None:
            raise Usage(
                f"cannot {command.name}: there is no option {name}{_nearest(name, list(known))}"
            )
        if option.value and not equals:
            if position == len(words):
                raise Usage(f"cannot {command.name}: {name} needs a value, {name} {option.value}")
            value = words[position]
            position += 1
        if not option.value and equals:
            raise Usage(f"cannot {command.name}: {name} takes no value")
        options.given[option.name] = value
    return options


def _nearest(word: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else "; see bucketctl --help"


def usage(command: Command) -> str:
    return f"bucketctl {command.name} [OPTION…] {command.arguments}".rstrip()


def _page(command: Command) -> str:
    lines = [f"usage: {usage(command)}", "", command.summary.capitalize() + ".", "", "options:"]
    lines += [_line(option) for option in command.options]
    lines += ["", "example:", f"  {command.example}"]
    return "\n".join(lines)


def _line(option: Option) -> str:
    left = f"--{option.name} {option.value}".rstrip()
    return f"  {left:<20} {option.help}"


def _overview() -> str:
    from .. import ctl

    lines = ["usage: bucketctl COMMAND [OPTION…]", ""]
    lines.append("The buckets of automations: one JSON object for each device and job.")
    lines.append("")
    lines += [f"  {command.name:<16} {command.summary}" for command in COMMANDS]
    lines += ["", "Inside `bucketctl run` a command finds its bucket by itself; elsewhere name"]
    lines += ["it: --device D --job J, or --device D alone for the device bucket."]
    lines += ["`bucketctl COMMAND --help` tells more, with an example.", ""]
    lines.append((ctl.__doc__ or "").split("\n\n")[1].rpartition("\nNothing")[0])
    return "\n".join(lines)
