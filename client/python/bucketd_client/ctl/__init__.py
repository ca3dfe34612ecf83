"""``bucketctl``: buckets from a shell. ``main`` parses, calls, and returns the exit status.

Exit status: 0 done; 1 refused by the daemon, declined when asked, or failed otherwise;
2 usage; 3 no job context; 4 daemon not reachable; 5 schema violation; 6 precondition failed.
Each command imports only what it needs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from .table.daily import Command, Options


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return 130
    except Exception as problem:
        # The import is late, since most commands do what they are asked.
        from .refusals import tell

        return tell(argv, problem)


def _run(argv: list[str]) -> int:
    from .parser import Declined, Help, parse

    try:
        command, options = parse(argv)
        _choose_output(command, options)
        return command.function()(options)
    except Help as answer:
        from .help import show

        show(str(answer))
        return 0
    except Declined:
        return 1


def _choose_output(command: Command, options: Options) -> None:
    """Set the form of the output. Raises Usage."""
    from . import output
    from .parser import Usage

    form = options.get("format")
    if options.has("quiet"):
        if form is not None or options.has("json"):
            raise Usage("cannot use --quiet with --json or -o: it prints nothing")
        output.quiet = not options.has("curl")
    # The formats of export are its own.
    if form is None or command.name == "export":
        return
    if form not in output.FORMS:
        raise Usage(f"cannot print as {form!r}: -o is one of {', '.join(output.FORMS)}")
    if options.has("json"):
        raise Usage("cannot use --json with -o: one prints the whole response, the other a part")
    output.form = form
