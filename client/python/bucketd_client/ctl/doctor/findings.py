"""A finding of ``bucketctl doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..._errors import BucketError

OK, WARNING, PROBLEM, UNKNOWN = "ok", "warning", "problem", "unknown"


class Finding(NamedTuple):
    """The result of one check; ``fix`` says how to fix the problem, empty if there is none."""

    level: str
    about: str
    what: str
    fix: str = ""


def failed(about: str, problem: BucketError) -> Finding:
    """Return the finding for a failed request of doctor itself."""
    return Finding(PROBLEM, about, problem.message, "look into the daemon's log")


def guarded(about: str, found: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the findings; turn a failed request into a finding, so that the others are kept."""
    try:
        yield from found
    except BucketError as problem:
        yield failed(about, problem)
