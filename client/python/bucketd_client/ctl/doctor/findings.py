"""What ``bucketctl doctor`` finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..._errors import BucketError

OK, WARNING, PROBLEM, UNKNOWN = "ok", "warning", "problem", "unknown"


class Finding(NamedTuple):
    """One thing that was looked at; ``fix`` is what to do about it, empty where all is well."""

    level: str
    about: str
    what: str
    fix: str = ""


def failed(about: str, problem: BucketError) -> Finding:
    """A request of the doctor's own that was not answered."""
    return Finding(PROBLEM, about, problem.message, "look into the daemon's log")


def guarded(about: str, found: Iterator[Finding]) -> Iterator[Finding]:
    """The same; what fails on the way is found too, lest all others are lost with it."""
    try:
        yield from found
    except BucketError as problem:
        yield failed(about, problem)
