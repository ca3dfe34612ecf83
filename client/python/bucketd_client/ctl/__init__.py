"""``bucketctl``: buckets from a shell. ``main`` parses, calls, and tells how it went.

Exit status: 0 done; 1 refused by the daemon; 2 usage; 3 no job context;
4 daemon not reachable; 5 schema violation; 6 precondition failed.
Nothing is imported that the command at hand does not need.
"""

from __future__ import annotations

import os
import sys

STATUS = {
    "no_job_context": 3,
    "daemon_unreachable": 4,
    "timeout": 4,
    "connection_lost": 4,
    "schema_violation": 5,
    "precondition_failed": 6,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    from .._errors import BucketError
    from . import parser

    try:
        command, options = parser.parse(sys.argv[1:] if argv is None else argv)
        return command.function()(options)
    except parser.Help as answer:
        return _finish(str(answer))
    except parser.Usage as problem:
        return _complain(str(problem), 2)
    except BucketError as problem:
        return _complain(problem.message, STATUS.get(problem.code, 1), problem.details)
    except BrokenPipeError:
        # Whoever read our output has gone; point stdout elsewhere, or the exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def _finish(text: str) -> int:
    print(text)
    sys.stdout.flush()
    return 0


def _complain(message: str, status: int, details: list[object] | None = None) -> int:
    print(f"bucketctl: {_printable(message)}", file=sys.stderr)
    for detail in details or []:
        shown = detail
        if isinstance(detail, dict) and "message" in detail:
            shown = f"{detail.get('path', '')}: {detail['message']}"
        print(f"  {_printable(str(shown))}", file=sys.stderr)
    return status


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
