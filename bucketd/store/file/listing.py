"""Walk over the stored buckets: pages of a list, and counts. Call from a worker thread."""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Iterator

from ...errors import BucketdError, InvalidRequest, Overloaded
from ...fs import errors, filenames, files
from ...model.bucket import BucketKey, Snapshot
from ..base import BucketInfo, Filter, Page
from . import envelope, paths, quarantine
from .bucket_files import BucketFiles
from .trash import Trash

# One page reads at most so many files, so that a filter with few matches takes bounded time.
MAX_READ = 20_000
MAX_PROBLEMS = 20
# Names of files that editors create beside the file they save: "login.json~", ".login.json.swp".
_BESIDE = re.compile(r"\.?(.+?\.json)")
Place = tuple[tuple[str, ...], str]
Keys = dict[str, BucketKey]


class Lister:
    """List one page of buckets, each in the state that ``get`` returns.

    ``acknowledged`` has buckets known from memory, by path. ``edited`` says that another program
    holds ``write.lock``, so files may be missing for a moment. ``search`` returns the buckets in
    the journal, and ``read`` reads a bucket as ``get`` does.
    """

    def __init__(
        self,
        bucket_files: BucketFiles,
        acknowledged: Keys,
        edited: bool,
        search: Callable[[], Keys],
        read: Callable[[BucketKey], Snapshot],
    ) -> None:
        self._files, self._root = bucket_files, bucket_files.root
        self._acknowledged, self._edited = acknowledged, edited
        self._search, self._searched, self._read = search, False, read
        self._gave_up = False
        self._unreadable: list[str] = []

    def page(self, only: Filter, cursor: str | None, limit: int) -> Page:
        """Return the next rows, ordered by encoded device, device bucket first, then job."""
        rows: list[BucketInfo] = []
        for count, place in enumerate(self._places(only, _read_cursor(cursor)), 1):
            row = self._row(place)
            if row is not None and only.matches(row.device, row.job, row.automation):
                rows.append(row)
            if len(rows) >= limit or count >= MAX_READ:
                return Page(rows, _write_cursor(place), self._unreadable)
        return Page(rows, None, self._unreadable)

    def _places(self, only: Filter, after: tuple[str, str | None]) -> Iterator[Place]:
        """Yield the possible places of bucket files in order, beginning after ``after``."""
        known: dict[str, set[str]] = {}
        for path in self._acknowledged:
            _, device, *rest = path.split("/")
            known.setdefault(device, set()).update(rest[1:])
        encoded = None if only.device is None else filenames.encode(only.device)
        devices = sorted({*_devices(self._root), *known}) if encoded is None else [encoded]
        for device in devices:
            if device < after[0]:
                continue
            # None: the device bucket comes first. "": the last page ended with the device bucket.
            behind = after[1] if device == after[0] else None
            home = (paths.DEVICES, device)
            if behind is None and only.job is None:
                yield home, paths.DEVICE_FILE
            if only.job is not None:
                names = {filenames.encode(only.job) + filenames.SUFFIX}
            else:
                names = {*self._job_files(home), *known.get(device, ())}
            for name in sorted(names):
                if not behind or name > behind:
                    yield (*home, paths.JOBS), name

    def _job_files(self, home: tuple[str, ...]) -> list[str]:
        try:
            names = files.names(self._root, (*home, paths.JOBS))
        except OSError:
            self._unreadable.append(filenames.printable("/".join((*home, paths.JOBS))))
            return []
        return [*_bucket_names(names), *(self._names_beside(names) if self._edited else ())]

    def _names_beside(self, names: list[str]) -> list[str]:
        found = (_BESIDE.match(name) for name in names)
        return [name[1] for name in found if name is not None]

    def _row(self, place: Place) -> BucketInfo | None:
        path = "/".join((*place[0], place[1]))
        try:
            key, now = self._stored(place, path)
        except FileNotFoundError:
            return None
        except (OSError, envelope.Unreadable, BucketdError) as error:
            self._gave_up = self._gave_up or isinstance(error, Overloaded)
            self._unreadable.append(filenames.printable(path))
            return None
        if not now.revision:
            return None
        return BucketInfo(
            key.device, key.job, now.automation, now.revision, now.bucket.size, now.updated_at
        )

    def _stored(self, place: Place, path: str) -> tuple[BucketKey, Snapshot]:
        """Return the state of a bucket that ``get`` returns; quick for a file of the daemon."""
        try:
            stored = envelope.read(files.read(self._root, *place))
            if paths.parts(stored.key) != place:
                raise envelope.Unreadable("it names another bucket")
            entry = self._files.entry(stored.key, is_use=False)
            is_newest = entry is None or entry.snapshot.etag == stored.snapshot.etag
            if stored.verified and is_newest and path not in self._acknowledged:
                return stored.key, stored.snapshot
            key = stored.key
        except (OSError, envelope.Unreadable) as error:
            found = self._key(place, path, isinstance(error, FileNotFoundError))
            if found is None or self._gave_up:
                raise
            key = found
        return key, self._read(key)

    def _key(self, place: Place, path: str, missing: bool) -> BucketKey | None:
        """Return the bucket whose file is or was at a place; None if there is none."""
        key = self._acknowledged.get(path)
        if key is not None or (missing and not self._edited):
            return key
        if missing and place[1] == paths.DEVICE_FILE and not self._is_beside(place):
            return None
        if (key := paths.key_of(*place)) is not None:
            return key
        # A long name is shortened in the file name; only the journal has the whole name.
        if not self._searched:
            self._searched = True
            self._acknowledged = {**self._search(), **self._acknowledged}
        return self._acknowledged.get(path)

    def _is_beside(self, place: Place) -> bool:
        return place[1] in self._names_beside(files.names(self._root, place[0]))


def _devices(root: int) -> list[str]:
    """Return the entries of the devices directory that are not regular files."""
    return files.names(root, (paths.DEVICES,), files=False)


def _bucket_names(names: list[str]) -> list[str]:
    return [n for n in names if n.endswith(filenames.SUFFIX) and not n.startswith(".")]


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


_HOW = "look at it (bucketctl quarantine show), then remove it (bucketctl quarantine drop)"


class Counts:
    """Count buckets and devices; counting takes at most a twentieth of the time."""

    def __init__(self, bucket_files: BucketFiles) -> None:
        self._files, self._root = bucket_files, bucket_files.root
        self._known: dict[str, int] = {}
        self._due = 0.0
        # The directories that could not be counted, and the entries of the quarantine.
        self.problems: list[str] = []

    def get(self) -> dict[str, int]:
        with self._files.excluding_editors() as alone:
            pass
        # While another program edits files, some may be missing for a moment.
        if time.monotonic() >= self._due and (alone or not self._known):
            started = time.monotonic()
            self._known, self.problems = self._count()
            self._due = time.monotonic() + 20 * (time.monotonic() - started)
        return self._known

    def _count(self) -> tuple[dict[str, int], list[str]]:
        devices = jobs = device_buckets = 0
        kept: list[str] = []
        trashed: list[str] = []
        problems: list[str] = []
        found: list[str] = []
        try:
            found = _devices(self._root)
            kept = quarantine.kept(self._root)
            trashed, foreign = Trash(self._root).entries()
            problems += [f"{path} is no deleted bucket; move it away" for path in foreign]
        except OSError as error:
            problems.append(f"cannot count the buckets: {error.strerror}")
        for device in found:
            home = (paths.DEVICES, device)
            try:
                of_jobs = len(_bucket_names(files.names(self._root, (*home, paths.JOBS))))
                own = self._has_own(device)
            except OSError as error:
                path = filenames.printable("/".join(home))
                problems.append(f"cannot count the buckets in {path}: {error.strerror}")
                continue
            # The directory of a device stays when its last bucket is removed.
            devices += of_jobs > 0 or own
            jobs += of_jobs
            device_buckets += own
        problems += [f"{path} is kept; {_HOW}" for path in kept]
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
        return {
            "devices": devices,
            "buckets": jobs,
            "device_buckets": device_buckets,
            "quarantined_files": len(kept),
            "trashed_buckets": len(trashed),
        }, problems

    def _has_own(self, device: str) -> bool:
        """Report whether a device bucket exists; the target of a link does not count."""
        path = f"{paths.DEVICES}/{device}/{paths.DEVICE_FILE}"
        try:
            return files.stat_key(self._root, path) is not None
        except OSError as error:
            if errors.is_obstacle(error):
                return False
            raise
