"""Walks over the stored buckets: pages of a list, and counts. Run on a worker thread."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import time
from collections.abc import Iterator

from ...errors import InvalidRequest
from ...fs import errors, filenames, files
from ..base import BucketInfo, Filter, Page
from . import envelope, paths, quarantine

log = logging.getLogger(__name__)

MAX_READ = 20_000  # files that one page may look into, so that a filter without hits ends in time
Place = tuple[tuple[str, ...], str]


def page(root: int, only: Filter, cursor: str | None, limit: int) -> Page:
    """The next rows after ``cursor``, ordered by encoded device, device bucket first, then job."""
    rows: list[BucketInfo] = []
    unreadable: list[str] = []
    after = _read_cursor(cursor)
    for count, place in enumerate(_places(root, only, after), 1):
        row = _row(root, place, unreadable)
        if row is not None and only.matches(row.device, row.job, row.automation):
            rows.append(row)
        if len(rows) >= limit or count >= MAX_READ:
            return Page(rows, _write_cursor(place), unreadable)
    return Page(rows, None, unreadable)


def _places(root: int, only: Filter, after: tuple[str, str | None]) -> Iterator[Place]:
    """Where bucket files may be, in order, beginning behind ``after``."""
    encoded = None if only.device is None else filenames.encode(only.device)
    devices = _devices(root) if encoded is None else [encoded]
    for device in devices:
        if device < after[0]:
            continue
        # None: the device bucket comes first; "": it was the last one given
        behind = after[1] if device == after[0] else None
        home = (paths.DEVICES, device)
        if behind is None and only.job is None:
            yield home, paths.DEVICE_FILE
        for name in _job_files(root, home, only.job):
            if not behind or name > behind:
                yield (*home, paths.JOBS), name


def _devices(root: int) -> list[str]:
    """The directories of devices, and what else stands there but files, which are nobody's."""
    return files.names(root, (paths.DEVICES,), files=False)


def _job_files(root: int, home: tuple[str, ...], job: str | None) -> list[str]:
    if job is not None:
        return [filenames.encode(job) + filenames.SUFFIX]
    names = files.names(root, (*home, paths.JOBS))
    return [n for n in names if n.endswith(filenames.SUFFIX) and not n.startswith(".")]


def _row(root: int, place: Place, unreadable: list[str]) -> BucketInfo | None:
    try:
        stored = envelope.read(files.read(root, *place))
        if paths.parts(stored.key) != place:
            raise envelope.Unreadable("it names another bucket")
    except FileNotFoundError:
        return None
    except (OSError, envelope.Unreadable):
        unreadable.append("/".join((*place[0], place[1])))
        return None
    key, now = stored.key, stored.snapshot
    revision = now.revision if stored.verified else now.revision + 1
    return BucketInfo(
        key.device, key.job, now.automation, revision, len(now.bucket), now.updated_at
    )


def _write_cursor(place: Place) -> str:
    parts, name = place
    behind = name if len(parts) == 3 else ""
    return base64.urlsafe_b64encode(json.dumps([parts[1], behind]).encode()).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> tuple[str, str | None]:
    if cursor is None:
        return "", None
    try:
        device, behind = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error):
        device = behind = None
    if not isinstance(device, str) or not isinstance(behind, str):
        raise InvalidRequest("cannot list from this cursor: use a next_cursor as it was given")
    return device, behind


class Counts:
    """How many buckets and devices there are; counting takes at most a twentieth of the time."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._until = 0.0

    def get(self) -> dict[str, int]:
        if time.monotonic() >= self._until:
            started = time.monotonic()
            try:
                self._known = _count(self._root)
            except OSError as error:  # no reason not to tell all else
                log.warning("cannot count the buckets: %s", error.strerror)
            self._until = time.monotonic() + 20 * (time.monotonic() - started)
        return self._known


def _has_own(root: int, device: str) -> bool:
    """Whether the device has a bucket of its own; nothing behind a link is one."""
    try:
        return files.stat_key(root, f"{paths.DEVICES}/{device}/{paths.DEVICE_FILE}") is not None
    except OSError as error:
        if errors.is_obstacle(error):
            return False
        raise


def _count(root: int) -> dict[str, int]:
    devices = jobs = device_buckets = 0
    for device in _devices(root):
        home = (paths.DEVICES, device)
        of_jobs = len(_job_files(root, home, None))
        own = _has_own(root, device)
        devices += of_jobs > 0 or own  # a directory stays when its last bucket goes
        jobs += of_jobs
        device_buckets += own
    quarantined = quarantine.count(root)
    return {
        "devices": devices,
        "buckets": jobs,
        "device_buckets": device_buckets,
        "quarantined_files": quarantined,
    }
