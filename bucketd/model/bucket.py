"""Buckets as data: the key of one, a snapshot of it, and the fields of its envelope."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import InvalidRequest
from .document import EMPTY, Document

# The format of the envelope in files, exports and etcd.
FORMAT = "bucketd/1"
MAX_NAME = 128


def check_name(name: object, what: str) -> str:
    """Return the name; raise InvalidRequest unless it has 1–128 valid characters.

    Control characters (category Cc) and lone surrogates are not valid.
    """
    if not isinstance(name, str):
        raise InvalidRequest(f"cannot use the {what} name: it must be a string")
    if not 1 <= len(name) <= MAX_NAME:
        raise InvalidRequest(
            f"cannot use the {what} name: "
            f"it has {len(name)} characters, allowed are 1 to {MAX_NAME}"
        )
    if not name.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        # A name in use may be shown, since it is no value of a bucket. A refused one is not shown:
        # it names nothing, and may be a secret that was given in the place of a name by mistake.
        raise InvalidRequest(
            f"cannot use the {what} name: it has a control character or a lone surrogate"
        )
    return name


class BucketKey(NamedTuple):
    """The key of the bucket of a (device, job) pair, or of the device alone (``job`` None)."""

    device: str
    job: str | None = None

    @classmethod
    def checked(cls, device: object, job: object = None) -> BucketKey:
        """Return the key of two valid names; raise InvalidRequest for others."""
        return cls(check_name(device, "device"), None if job is None else check_name(job, "job"))

    @property
    def fields(self) -> dict[str, str]:
        """Return the names as fields of a line in the log."""
        fields = {"device": self.device}
        return fields if self.job is None else {**fields, "job": self.job}

    def __str__(self) -> str:
        if self.job is None:
            return f"the device bucket of {self.device!r}"
        return f"the bucket of device {self.device!r}, job {self.job!r}"


class Snapshot(NamedTuple):
    """The state of a bucket; revision 0 means that none is stored.

    ``recovered`` is (revision, reason) if the last good generation replaced an unreadable file:
    this generation, or the one before the change just made. ``stale_seconds`` is the maximum age
    of a value that was returned while the store was unavailable. ``warnings`` are the violations
    that a write tolerates, ``undone`` is the revision that it took back, ``trash`` the id under
    which the deleted bucket can be restored, and ``restored`` the id of the one that was; the
    outcome of the write has them, and no stored state.
    """

    bucket: Document = EMPTY
    revision: int = 0
    etag: str | None = None
    automation: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    recovered: tuple[int, str] | None = None
    stale_seconds: float | None = None
    warnings: Sequence[dict[str, Any]] = ()
    undone: int | None = None
    trash: str | None = None
    restored: str | None = None

    def with_warnings(self, warnings: Sequence[dict[str, Any]]) -> Snapshot:
        """Return the outcome of a write that leads to this state."""
        return self._replace(warnings=warnings) if warnings else self


ABSENT = Snapshot()


def envelope_fields(key: BucketKey, now: Snapshot) -> dict[str, Any]:
    """Return all members of a stored bucket's envelope but the bucket."""
    return {
        "format": FORMAT,
        "device": key.device,
        "job": key.job,
        "automation": now.automation,
        "revision": now.revision,
        "created_at": now.created_at,
        "updated_at": now.updated_at,
    }


def timestamp(at: float | None = None) -> str:
    """Return a Unix time in RFC 3339, UTC, milliseconds, such as ``2026-11-23T16:40:05.123Z``."""
    at = time.time() if at is None else at
    second = math.floor(at)
    return f"{_date_and_time(second)}.{int((at - second) * 1000):03d}Z"


_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


def is_timestamp(text: str) -> bool:
    """Report whether ``timestamp`` may have written a string; such strings sort by time."""
    return _TIMESTAMP.fullmatch(text) is not None


@lru_cache(maxsize=64)
def _date_and_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
