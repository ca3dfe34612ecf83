"""What ``bucketctl doctor`` finds."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, PROBLEM, UNKNOWN = "ok", "warning", "problem", "unknown"


class Finding(NamedTuple):
    """One thing that was looked at; ``fix`` is what to do about it, empty where all is well."""

    level: str
    about: str
    what: str
    fix: str = ""
