"""The record of the last backup, as the program that made it reported: ``<state>/backup.json``."""

from __future__ import annotations

import logging
import threading
from datetime import datetime
from typing import Any

import orjson

from ..errors import InvalidRequest
from ..fs import errors, files
from ..model.bucket import timestamp

log = logging.getLogger(__name__)
FILE = "backup.json"
_COUNTS = ("buckets", "schemas", "bytes")


class BackupRecord:
    """The last backup of this state directory. ``root`` is a descriptor of it."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._lock = threading.Lock()
        self.last: dict[str, Any] | None = None
        try:
            found = orjson.loads(files.read(root, (), FILE).text)
            at = datetime.fromisoformat(found.pop("at"))
            self.last = {"at": timestamp(at.timestamp()), **_counts(found)}
        except FileNotFoundError:
            pass
        # A record that cannot be read is as none: the next backup writes a new one.
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            InvalidRequest,
        ) as error:
            log.warning("cannot read %s, so the last backup is unknown: %s", FILE, error)

    def record(self, told: dict[str, Any]) -> dict[str, Any]:
        """Note that a backup with these counts is complete now, and return the record.

        Call from a worker thread. Raises InvalidRequest, or the error of a file that cannot be
        written.
        """
        made = {"at": timestamp(), **_counts(told)}
        with self._lock:
            try:
                files.write(self._root, (), FILE, lambda _origin: orjson.dumps(made) + b"\n")
            except OSError as error:
                raise errors.refusal("record the backup", error) from error
            self.last = made
        return made


def _counts(told: dict[str, Any]) -> dict[str, int]:
    for name in told.keys() - {*_COUNTS}:
        raise InvalidRequest(
            f"cannot record the backup: {name[:40]!r} is not one of {', '.join(_COUNTS)}"
        )
    for name in _COUNTS:
        count = told.get(name)
        # 404.0 is a whole number in JSON, too.
        if not isinstance(count, int | float) or isinstance(count, bool) or count < 0 or count % 1:
            raise InvalidRequest(f"cannot record the backup: {name!r} must be a whole number")
    return {name: int(told[name]) for name in _COUNTS}
