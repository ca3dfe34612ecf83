"""The daemon's own log, on standard error: for people, or one JSON object a line for journald."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping

HUMAN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# What sd-daemon(3) puts before a line, so that journald knows how bad it is.
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


class Journal(logging.Formatter):
    """A priority, then ``level``, ``logger``, ``message``, and a ``traceback`` of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        members = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            members["traceback"] = self.formatException(record.exc_info)
        priority = _PRIORITIES.get(record.levelname, 6)
        return f"<{priority}>{json.dumps(members, ensure_ascii=False)}"


def to_stderr(level: str, environ: Mapping[str, str]) -> None:
    """Log there from this level on, in the form for whoever reads it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Journal() if _is_journal(environ) else logging.Formatter(HUMAN))
    logging.basicConfig(handlers=[handler], level=level.upper())
    logging.getLogger("watchfiles").setLevel("WARNING")  # it tells of each file that changes


def _is_journal(environ: Mapping[str, str]) -> bool:
    """Whether standard error is the stream to journald that the service manager made."""
    status = os.fstat(2)
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
