"""Refusals that end a command: the exit status, and the words or the JSON that tell why."""

from __future__ import annotations

import sys
from typing import Any

from .._errors import BucketError
from . import output
from .parser import Usage, parse
from .table.daily import FREE

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


def tell(argv: list[str], problem: Exception) -> int:
    """Tell why a command line was not done; return the exit status."""
    if isinstance(problem, BrokenPipeError):
        output.abandon(sys.stdout)
        return output.READER_GONE
    if isinstance(problem, output.Unwritten):
        output.abandon(sys.stdout)
        return _complain(f"cannot write to standard output: {problem}{_nevertheless()}", 1)
    if isinstance(problem, Usage):
        return _refuse(argv, str(problem), 2, "invalid_request")
    if isinstance(problem, BucketError):
        message = _in_words(problem)
        if problem.code == "no_job_context":
            message += _taken_for(argv)
        return _refuse(argv, message, status_of(problem), problem.code, problem.details)
    if isinstance(problem, OSError):
        output.abandon(sys.stdout)
        where = f"{problem.filename}: " if problem.filename else ""
        cause = f"{where}{problem.strerror or problem}"
        return _complain(f"cannot finish: {cause}{_nevertheless()}", 1)
    if isinstance(problem, RecursionError):
        cause = "the JSON is nested too deep"
    else:
        cause = _unexpected(problem)
    return _refuse(argv, f"cannot finish: {cause}{_nevertheless()}", 1, "internal")


def status_of(problem: BucketError) -> int:
    """Return the exit status for an error of a request."""
    if problem.status is None and problem.code in ("invalid_request", "invalid_json"):
        # The client itself has refused the request; nothing was sent.
        return 2
    return STATUS.get(problem.code, 1)


def _taken_for(argv: list[str]) -> str:
    """Return what the first argument was taken for, where it may have been meant as a bucket."""
    command, options = parse(argv)
    if command.bucket != FREE or not options.arguments or options.has("device"):
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


def _nevertheless() -> str:
    """Return a clause for an error after a successful change, which was made nevertheless."""
    return "; the daemon has done what was asked" if output.changed else ""


def _in_words(problem: BucketError) -> str:
    """Return the message, with the request id if the daemon's log has a line about it."""
    if problem.request_id is None or problem.code not in ("internal", "bucket_corrupt"):
        return problem.message
    return f"{problem.message} (request {problem.request_id} in its log)"


def _refuse(
    argv: list[str], message: str, status: int, code: str, details: list[Any] | None = None
) -> int:
    """Tell of a refusal, with ``--json`` as JSON on standard output, too; return the status."""
    if _wants_json(argv):
        more = {"details": details} if details else {}
        try:
            output.show({"success": False, "error": message, "code": code, **more})
        except (OSError, output.Unwritten):
            output.abandon(sys.stdout)
        else:
            if output.on_terminal():
                return status
    return _complain(message, status, details)


def _wants_json(argv: list[str]) -> bool:
    """Report whether --json is among the options, of whatever can be understood of them."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in words[1:] and words[0] != "run"


def _complain(message: str, status: int, details: list[object] | None = None) -> int:
    output.warn(message)
    lines = [line for detail in details or [] for line in lines_of(detail)]
    for line in lines:
        if line not in message or len(lines) > 1:
            output.warn(line, before="  ")
    return status


def lines_of(detail: object) -> list[str]:
    """Return one detail of an error in words: a violation, or the violations of one bucket."""
    if not isinstance(detail, dict):
        return [str(detail)]
    if "message" in detail:
        return [f"{detail.get('path') or 'the bucket'} {detail['message']}"]
    if "violations" in detail:
        lines = [line for violation in detail["violations"] for line in lines_of(violation)]
        return [f"{bucket_of(detail)}: {line}" for line in lines]
    if "by" in detail:
        return [_holder_of(detail)]
    if "key" in detail and "revision" in detail:
        # The keys that stand in the way of an undo.
        from .json_diff import pointer

        return [f"{pointer(detail['key'])} was changed by revision {detail['revision']}"]
    if "bytes" in detail:
        # The message itself names the largest keys.
        return []
    return [str(detail)]


def _holder_of(row: dict[str, Any]) -> str:
    by, label = row["by"], row.get("label")
    does = "holds it" if row["state"] == "held" else "waits for it before you"
    who = f"{by['user']} (process {by['pid']} on {row['host']}) {does} since {row['since']}"
    return f"{who}: {label}" if label else who


def bucket_of(detail: dict[str, object]) -> str:
    return f"{detail['device']}, {detail['job'] or '(device)'}"
