"""The daemon's log on standard error: lines for people, or JSON objects for journald."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping

HUMAN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Priorities of syslog, which journald reads at the beginning of a line: see sd-daemon(3).
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


class JournaldFormatter(logging.Formatter):
    """Format a record as a priority and an object: level, logger, message, perhaps traceback."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        priority = _PRIORITIES.get(record.levelname, 6)
        return f"<{priority}>{json.dumps(fields, ensure_ascii=False)}"


def to_stderr(level: str, environ: Mapping[str, str]) -> None:
    """Log to standard error at this level and above, as JSON if journald reads it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournaldFormatter() if _is_journald(environ) else logging.Formatter(HUMAN))
    logging.basicConfig(handlers=[handler], level=level.upper())
    # At lower levels watchfiles logs each file that changes.
    logging.getLogger("watchfiles").setLevel("WARNING")


def _is_journald(environ: Mapping[str, str]) -> bool:
    """Report whether standard error is a stream to journald that the service manager opened."""
    status = os.fstat(2)
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
