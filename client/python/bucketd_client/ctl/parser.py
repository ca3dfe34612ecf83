"""Parse ``sys.argv`` into a command and its options.

The parser uses the table of commands instead of argparse, which would add 5 ms to every start.
What only a person needs is in ``help`` and ``suggestions``.
"""

from __future__ import annotations

import os

from .table.daily import ASSIGNMENTS, COMMANDS, FREE, Command, Option, Options

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Iterator

# A process with one of these has a bucket already, so its first argument names none.
CONTEXT = ("BUCKETD_TOKEN", "BUCKETD_TOKEN_FILE", "BUCKETD_DEVICE")


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
    if command.bucket and "device" not in options.given:
        _take_bucket(command, options)
    _count(command, options.arguments)
    return command, options


def _take_bucket(command: Command, options: Options) -> None:
    """Take the first argument as DEVICE/JOB, or DEVICE/ for the device bucket, if it is one."""
    word = options.arguments[0] if options.arguments else ""
    device, slash, job = word.partition("/")
    if not (device and slash) or not _is_place_of_bucket(command, options.arguments):
        return
    if "/" in job:
        raise Usage(
            "cannot tell which bucket: the first argument has more than one slash; name the bucket "
            "with --device and --job"
        )
    options.place = word
    options.given["device"] = device
    options.given["job" if job else "device-bucket"] = job
    del options.arguments[: 2 if command.name == "run" else 1]


def _is_place_of_bucket(command: Command, arguments: list[str]) -> bool:
    if command.name == "run":
        return arguments[1:2] == ["--"]
    if command.bucket == ASSIGNMENTS:
        return "=" not in arguments[0]
    return may_name_bucket(command)


def may_name_bucket(command: Command) -> bool:
    """Report whether the first argument of a command may name the bucket, in this environment."""
    has_context = any(map(os.environ.get, CONTEXT))
    return bool(command.bucket) and not (command.bucket == FREE and has_context)


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
        from .help import overview

        raise Help(overview(as_json="--json" in argv))
    if argv[0] == "--version":
        from .. import __version__

        raise Help(f"bucketctl {__version__}")
    for commands in (lambda: COMMANDS, _every):
        for words in (2, 1):
            name = " ".join(argv[:words])
            for command in commands():
                if command.name == name:
                    return command, argv[words:]
    from .suggestions import unknown_command

    raise unknown_command(argv)


def _every() -> tuple[Command, ...]:
    # The import is late, since daily commands do not need the other commands.
    from .table.all import every

    return every()


def _options(command: Command, words: list[str]) -> Options:
    options = Options({}, [], command.name)
    rest = iter(words)
    for word in rest:
        if word in ("-h", "--help"):
            from .help import page

            raise Help(page(command, as_json="--json" in words))
        if word == "--":
            options.arguments.extend(rest)
        elif word == "-" or not word.startswith("-"):
            options.arguments.append(word)
            # All words after the first argument of run belong to that command.
            if command.name == "run":
                options.arguments.extend(rest)
        else:
            read = _long_option if word.startswith("--") else _short_options
            for option, value in read(command, word, rest):
                before = options.given.get(option.name)
                is_more = option.often and before is not None
                options.given[option.name] = f"{before}\n{value}" if is_more else value
    return options


def _long_option(command: Command, word: str, rest: Iterator[str]) -> Iterator[tuple[Option, str]]:
    name, equals, value = word.partition("=")
    option = next((o for o in command.options if name == f"--{o.name}"), None)
    if option is None:
        raise _unknown_option(command, name)
    if equals and not option.value:
        raise Usage(f"cannot {command.name}: {name} takes no value")
    yield option, value if equals or not option.value else _value(command, option, name, rest)


def _short_options(
    command: Command, word: str, rest: Iterator[str]
) -> Iterator[tuple[Option, str]]:
    """Yield the options of ``-q``, ``-qr``, ``-d VALUE``, ``-dVALUE`` and ``-d=VALUE``."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = next((o for o in command.options if o.short == letter), None)
        if option is None:
            raise _unknown_option(command, f"-{letter}")
        if not option.value:
            yield option, ""
            continue
        attached, letters = letters.removeprefix("="), ""
        yield option, attached or _value(command, option, f"-{letter}", rest)


def _value(command: Command, option: Option, name: str, rest: Iterator[str]) -> str:
    given = next(rest, None)
    if given is None:
        raise Usage(f"cannot {command.name}: {name} needs a value, {name} {option.value}")
    return given


def _unknown_option(command: Command, name: str) -> Usage:
    from .suggestions import other_option

    return Usage(f"cannot {command.name}: there is no option {name}{other_option(command, name)}")


def usage(command: Command) -> str:
    words = [command.name, "[OPTION…]", command.place_of_bucket, command.arguments]
    return " ".join(["bucketctl", *filter(None, words)])
