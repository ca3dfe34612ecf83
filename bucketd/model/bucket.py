"""The nouns: a bucket's key, a snapshot of it, and the guard of a write. Plain frozen data."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from ..errors import InvalidRequest

MAX_NAME = 128


def check_name(name: object, what: str) -> str:
    """The name itself, or InvalidRequest: 1–128 characters, no control character, no surrogate."""
    if not isinstance(name, str):
        raise InvalidRequest(f"cannot use the {what} name: it must be a text")
    if not 1 <= len(name) <= MAX_NAME:
        raise InvalidRequest(
            f"cannot use the {what} name: "
            f"it has {len(name)} characters, allowed are 1 to {MAX_NAME}"
        )
    if not name.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise InvalidRequest(
            f"cannot use the {what} name {name!a}: it has a control character or a lone surrogate"
        )
    return name


class BucketKey(NamedTuple):
    """Which bucket: of one (device, job) pair, or of the device alone (``job`` None)."""

    device: str
    job: str | None = None

    @classmethod
    def checked(cls, device: object, job: object = None) -> BucketKey:
        """A key of two legal names, or InvalidRequest."""
        return cls(check_name(device, "device"), None if job is None else check_name(job, "job"))

    def __str__(self) -> str:
        if self.job is None:
            return f"the device bucket of {self.device!r}"
        return f"the bucket of device {self.device!r}, job {self.job!r}"


class Snapshot(NamedTuple):
    """What is stored at one moment: ``bucket`` as compact JSON; revision 0 when nothing is.

    ``recovered`` is (revision, reason) where the last good generation, this one or the one before
    the change just made, took the place of a file that could not be read. ``stale_seconds`` is how
    old at most this is, where the store could not ask for anything newer.
    """

    bucket: bytes = b"{}"
    revision: int = 0
    etag: str | None = None
    automation: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    recovered: tuple[int, str] | None = None
    stale_seconds: float | None = None


ABSENT = Snapshot()


class Metadata(NamedTuple):
    """Which revision a state is, since when its bucket is there, and since when it is as it is.

    As part of a change: what is to be kept of another store's state; 0 and None for the rest.
    """

    revision: int = 0
    created_at: str | None = None
    updated_at: str | None = None


_NEW = Metadata()


Check = Callable[[bytes | None, bytes, str | None], None]


class Change(NamedTuple):
    """A pure function from bucket to bucket, both compact JSON and None where none is stored.

    It returns its very argument when it changes nothing, and raises to refuse.
    A ``large`` one may take a while to apply, and a ``slow`` one too long for others to wait for.
    A ``blind`` change does not look at what is there, so it can replace what cannot be read.
    ``check`` raises to refuse what ``apply`` came to: given the bucket before, the one after,
    and the automation that the pair is bound to.
    One that ``removes`` leaves no bucket, whatever there was.
    ``metadata`` is of a state that is carried here from another store, and kept.
    """

    apply: Callable[[bytes | None], bytes | None]
    blind: bool = False
    check: Check | None = None
    large: bool = False
    metadata: Metadata | None = None
    removes: bool = False
    slow: bool = False

    def result(self, stored: bytes | None, automation: str | None) -> bytes | None:
        """What it makes of the stored bucket, checked."""
        after = self.apply(stored)
        if after is not None and self.check is not None:
            self.check(stored, after, automation)
        return after

    def checked(self, check: Check) -> Change:
        """The same, with this check."""
        # All fields, as _replace would give them, in half a microsecond less; every set does this.
        return Change(
            self.apply, self.blind, check, self.large, self.metadata, self.removes, self.slow
        )

    def metadata_after(self, before: Snapshot) -> Metadata:
        """Revision and times of the state that follows; revisions of one bucket only grow."""
        kept, now = self.metadata or _NEW, timestamp()
        return Metadata(
            max(kept.revision, before.revision + 1),
            kept.created_at or before.created_at or now,
            kept.updated_at or now,
        )


REMOVAL = Change(lambda _stored: None, blind=True, removes=True)


def timestamp(at: float | None = None) -> str:
    """A Unix time as RFC 3339 in UTC with milliseconds, such as ``2026-11-23T16:40:05.123Z``."""
    at = time.time() if at is None else at
    second = math.floor(at)
    return f"{_date_and_time(second)}.{int((at - second) * 1000):03d}Z"


_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


def is_timestamp(text: str) -> bool:
    """Whether ``timestamp`` may have written it; those compare as their times do."""
    return _TIMESTAMP.fullmatch(text) is not None


@lru_cache(maxsize=64)
def _date_and_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
