"""The label of one start of ``bucketctl run``, by which the history names the run."""

from __future__ import annotations

import os
import time

# The label may have 128 characters, of which time and number take 24.
MAX_PROGRAM = 80
# Programs that run the file that is their argument, which says more than their own name.
INTERPRETERS = ("bash", "bun", "deno", "node", "perl", "python", "ruby", "sh", "tsx")


def run_label(command: list[str]) -> str:
    """Return a label such as ``20261130T020512Z-login.py-a3f9c1``.

    Labels sort by the time of the start; the number keeps starts of the same second apart.
    """
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{at}-{_program(command)}-{os.urandom(3).hex()}"


def _program(command: list[str]) -> str:
    """Return the name of the program, without what a label or a shell could not take."""
    word = command[0]
    if os.path.basename(word).startswith(INTERPRETERS):
        # Only the name of a file: another argument may be a script with a secret in it.
        word = next((each for each in command[1:] if os.path.isfile(each)), word)
    name = os.path.basename(word)[:MAX_PROGRAM]
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name) or "run"
