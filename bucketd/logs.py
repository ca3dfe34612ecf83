"""The daemon's log: text for people or JSON on standard error, or entries of journald.

A record may name what it is about: ``extra={"fields": {"device": …, "job": …, "request_id": …}}``.
journald stores such fields beside the text (``journalctl DEVICE=phone-1``), JSON has them as
members, and text leaves them out.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping

from .settings.sections import Log

HUMAN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
# A journald that does not read may block the daemon for so long.
SEND_SECONDS = 1.0
# Priorities of syslog, which journald also reads at the beginning of a line: see sd-daemon(3).
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


class JsonFormatter(logging.Formatter):
    """Format a record as an object: level, logger, message, its fields, perhaps a traceback.

    ``prefixed``: its priority comes first, for journald.
    """

    def __init__(self, prefixed: bool) -> None:
        super().__init__()
        self._prefixed = prefixed

    def format(self, record: logging.LogRecord) -> str:
        members = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            members["traceback"] = self.formatException(record.exc_info)
        text = json.dumps(members, ensure_ascii=False)
        return f"<{_priority(record)}>{text}" if self._prefixed else text


class LineFormatter(logging.Formatter):
    """Format a record as its message behind its priority, each line of it, for journald."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record)}>"
        return prefix + super().format(record).replace("\n", f"\n{prefix}")


class JournalHandler(logging.Handler):
    """Send each record to journald as an entry with fields, by its native protocol.

    What cannot be sent, such as an entry larger than a datagram, goes to standard error.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter())
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_SECONDS)
        self._lines = logging.StreamHandler(sys.stderr)
        self._lines.setFormatter(LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        # A formatter adds the traceback to the message.
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_priority(record)),
            "SYSLOG_IDENTIFIER": "bucketd",
            "LOGGER": record.name,
            **{name.upper(): value for name, value in _fields(record).items()},
        }
        try:
            self._socket.sendto(b"".join(map(_entry, fields.items())), self._address)
        except OSError:
            self._lines.emit(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def configure(settings: Log, environ: Mapping[str, str]) -> None:
    """Log at this level and above, in this format; replaces what was configured before."""
    logging.basicConfig(
        handlers=[_handler(settings.format, _is_journald(environ))],
        level=settings.level.upper(),
        force=True,
    )
    # At lower levels watchfiles logs each file that changes.
    logging.getLogger("watchfiles").setLevel("WARNING")


def _handler(kind: str, journald: bool) -> logging.Handler:
    if kind == "auto" and journald:
        return JournalHandler(JOURNAL_SOCKET)
    handler = logging.StreamHandler(sys.stderr)
    if kind == "json":
        handler.setFormatter(JsonFormatter(prefixed=journald))
    else:
        handler.setFormatter(LineFormatter() if journald else logging.Formatter(HUMAN))
    return handler


def _priority(record: logging.LogRecord) -> int:
    return _PRIORITIES.get(record.levelname, 6)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    fields: dict[str, str] = getattr(record, "fields", {})
    return fields


def _entry(field: tuple[str, str]) -> bytes:
    """Return a field as journald reads it: one with a line break has its length before it."""
    name, value = field[0].encode(), field[1].encode("utf-8", "backslashreplace")
    if b"\n" not in value:
        return b"%b=%b\n" % (name, value)
    return b"%b\n%b%b\n" % (name, struct.pack("<Q", len(value)), value)


def _is_journald(environ: Mapping[str, str]) -> bool:
    """Report whether standard error is a stream to journald that the service manager opened."""
    status = os.fstat(2)
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
