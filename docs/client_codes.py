"""The tables of error codes in both clients, from the daemon's: ``make docs`` writes them."""

from __future__ import annotations

import bucketd_client

from bucketd.api import responses

PYTHON = "client/python/bucketd_client/_codes.py"
NODE = "client/node/src/codes.ts"


def files() -> dict[str, str]:
    """Return the text of each generated file by its path in the repository."""
    own = sorted(set(bucketd_client.CODES) - set(responses.STATUS))
    return {PYTHON: _python(own), NODE: _node(own)}


def _python(own: list[str]) -> str:
    lines = [
        '"""The closed list of error codes. Made by make docs; change bucketd/errors.py."""',
        "",
        "from typing import Literal",
        "",
        "# A code of a newer daemon is none of these.",
        "Code = Literal[",
        *(f'    "{code}",' for code in sorted([*responses.STATUS, *own])),
        "]",
        "# The HTTP status of each code of the daemon.",
        "STATUS: dict[str, int] = {",
        *(f'    "{code}": {status},' for code, status in responses.STATUS.items()),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _node(own: list[str]) -> str:
    lines = [
        "// The closed list of error codes. Made by `make docs`; change bucketd/errors.py.",
        "",
        "/** The HTTP status of each code of the daemon. */",
        "export const STATUS = {",
        *(f"  {code}: {status}," for code, status in responses.STATUS.items()),
        "} as const;",
        "",
        "/** The code of an error, to branch on: the daemon's, and those of the client itself. */",
        "export type ErrorCode =",
        "  | keyof typeof STATUS",
        *(f'  | "{code}"' for code in own[:-1]),
        f'  | "{own[-1]}";',
    ]
    return "\n".join(lines) + "\n"
