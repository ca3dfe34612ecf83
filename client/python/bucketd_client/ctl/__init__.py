"""``bucketctl``: buckets from a shell. ``main`` parses, calls, and returns the exit status.

Exit status: 0 done; 1 refused by the daemon, declined when asked, or failed otherwise;
2 usage; 3 no job context; 4 daemon not reachable; 5 schema violation; 6 precondition failed.
Each command imports only what it needs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

    from .._errors import BucketError
    from .table.daily import Command, Options

STATUS = {
    "no_job_context": 3,
    "daemon_unreachable": 4,
    "timeout": 4,
    "connection_lost": 4,
    "schema_conflict": 5,
    "schema_violation": 5,
    "hold_lost": 6,
    "precondition_failed": 6,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        from .output import READER_GONE, Unwritten

        return _run(argv)
    except KeyboardInterrupt:
        return 130
    except Unwritten as problem:
        _stop_writing()
        return _complain(f"cannot write to standard output: {problem}{_nevertheless()}", 1)
    except BrokenPipeError:
        _stop_writing()
        return READER_GONE
    except OSError as problem:
        _stop_writing()
        where = f"{problem.filename}: " if problem.filename else ""
        message = f"cannot finish: {where}{problem.strerror or problem}{_nevertheless()}"
        return _complain(message, 1)
    except RecursionError:
        return _refuse(argv, f"cannot finish: the JSON is nested too deep{_nevertheless()}", 1)
    except Exception as problem:
        return _refuse(argv, f"cannot finish: {_unexpected(problem)}{_nevertheless()}", 1)


def _run(argv: list[str]) -> int:
    from .._errors import BucketError
    from .parser import Declined, Help, Usage, parse

    options = None
    try:
        command, options = parse(argv)
        _choose_output(command, options)
        return command.function()(options)
    except Help as answer:
        from .help import show

        show(str(answer))
        return 0
    except Usage as problem:
        return _refuse(argv, str(problem), 2, "invalid_request")
    except Declined:
        return 1
    except BucketError as problem:
        message = _in_words(problem)
        if options is not None and problem.code == "no_job_context":
            message += _taken_for(command, options)
        return _refuse(argv, message, _status_of(problem), problem.code, problem.details)


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


def _taken_for(command: Command, options: Options) -> str:
    """Return what the first argument was taken for, where it may have been meant as a bucket."""
    if command.bucket != "free" or not options.arguments or options.has("device"):
        return ""
    what = "file" if command.name == "diff" else "key"
    return f"; or put DEVICE/JOB before the {what} {options.arguments[0]!r}"


def _unexpected(problem: Exception) -> str:
    """Return the kind and the place of an unexpected error; its text might show a value."""
    frame = problem.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" in {frame.tb_frame.f_code.co_name}, line {frame.tb_lineno}" if frame else ""
    return f"unexpected error ({type(problem).__name__}{place}); please report it"


def _stop_writing() -> None:
    from .output import abandon

    abandon(sys.stdout)


def _nevertheless() -> str:
    """Return a clause for an error after a successful change, which was made nevertheless."""
    from . import output

    return "; the daemon has done what was asked" if output.changed else ""


def _status_of(problem: BucketError) -> int:
    if problem.status is None and problem.code in ("invalid_request", "invalid_json"):
        # The client itself has refused the request; nothing was sent.
        return 2
    return STATUS.get(problem.code, 1)


def _in_words(problem: BucketError) -> str:
    """Return the message, with the request id if the daemon's log has a line about it."""
    if problem.request_id is None or problem.code not in ("internal", "bucket_corrupt"):
        return problem.message
    return f"{problem.message} (request {problem.request_id} in its log)"


def _refuse(
    argv: list[str],
    message: str,
    status: int,
    code: str = "internal",
    details: list[Any] | None = None,
) -> int:
    """Tell of a refusal, with ``--json`` as JSON on standard output, too; return the status."""
    if _wants_json(argv):
        from . import output

        more = {"details": details} if details else {}
        output.show({"success": False, "error": message, "code": code, **more})
        if output.on_terminal():
            return status
    return _complain(message, status, details)


def _wants_json(argv: list[str]) -> bool:
    """Report whether --json is among the options, of whatever can be understood of them."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in words[1:] and words[0] != "run"


def _complain(message: str, status: int, details: list[object] | None = None) -> int:
    from .output import warn

    warn(message)
    lines = [line for detail in details or [] for line in _lines_of(detail)]
    for line in lines:
        if line not in message or len(lines) > 1:
            warn(line, before="  ")
    return status


def _lines_of(detail: object) -> list[str]:
    """Return one detail of an error in words: a violation, or the violations of one bucket."""
    if not isinstance(detail, dict):
        return [str(detail)]
    if "message" in detail:
        return [f"{detail.get('path') or 'the bucket'} {detail['message']}"]
    if "violations" in detail:
        lines = [line for violation in detail["violations"] for line in _lines_of(violation)]
        return [f"{_bucket_of(detail)}: {line}" for line in lines]
    if "by" in detail:
        return [_holder_of(detail)]
    if "bytes" in detail:
        # The message itself names the largest keys.
        return []
    return [str(detail)]


def _holder_of(row: dict[str, Any]) -> str:
    by, label = row["by"], row.get("label")
    does = "holds it" if row["state"] == "held" else "waits for it before you"
    who = f"{by['user']} (process {by['pid']} on {row['host']}) {does} since {row['since']}"
    return f"{who}: {label}" if label else who


def _bucket_of(detail: dict[str, object]) -> str:
    return f"{detail['device']}, {detail['job'] or '(device)'}"
