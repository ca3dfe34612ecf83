"""Bucket files as snapshots: read through the cache, written, set aside. Synchronous."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import threading
from collections.abc import Set
from typing import NamedTuple

from ...errors import BucketCorrupt, BucketdError
from ...fs import errors, files
from ...model.bucket import ABSENT, BucketKey, Snapshot
from . import envelope, paths, quarantine
from .cache import Cache, Entry

log = logging.getLogger(__name__)
MAX_PLACES = 8192


class Loaded(NamedTuple):
    """What a file says; not ``verified`` when somebody else than the daemon wrote it.

    ``before``: what it said before that, where it is known.
    """

    snapshot: Snapshot
    verified: bool
    before: Snapshot | None = None


_NOTHING = Loaded(ABSENT, verified=True)


class BucketFiles:
    """The files below one state directory. Safe for readers on any thread and one writer."""

    def __init__(self, root: int, path: str, cache_bytes: int) -> None:
        self.root, self.path = root, path
        self.writes = self.hits = self.misses = 0
        self._cache = Cache(cache_bytes)
        self._guard = threading.Lock()
        self._places: set[tuple[str, ...]] = set()  # where files may be put
        self._changes = 0  # of files: odd while one is under way

    def cached(self, key: BucketKey) -> Snapshot | None:
        """The snapshot where it takes one ``stat`` to know it; None where the file must be read."""
        try:
            stat_key = files.stat_key(self.root, paths.path(key))
        except OSError as error:
            raise self.unreadable(key, error) from error
        entry = self.entry(key)
        if stat_key is None and entry is None:
            return ABSENT
        if entry is None or entry.stat_key != stat_key:
            return None
        self.hits += 1
        return entry.snapshot

    def load(self, key: BucketKey) -> Loaded:
        """What the file says now. Raises BucketCorrupt for one that is no envelope of ``key``."""
        # Before the file: what is known then is never newer than what is read.
        changes, known = self._changes, self.entry(key)
        where = paths.parts(key)
        try:
            if known is not None and known.stat_key == files.stat_key(self.root, paths.path(key)):
                return Loaded(known.snapshot, known.verified, known.before)
            content = files.read(self.root, *where)
            self.misses += 1
            stored = envelope.read(content)
            if stored.key != key:
                raise envelope.Unreadable(f"it says that it is {stored.key}")
        except FileNotFoundError:
            return self._missing(key, known, changes)
        except envelope.Unreadable as error:
            raise self._corrupt(key, str(error)) from error
        except OSError as error:
            raise self.unreadable(key, error) from error
        snapshot, verified = _reconcile(stored, known)
        before = None if verified else _before(known)
        self._remember_read(key, Entry(snapshot, content.stat_key, verified, before), changes)
        return Loaded(snapshot, verified, before)

    def shows(self, key: BucketKey, snapshot: Snapshot) -> bool:
        """Whether the file is as ``put`` has written it of this snapshot."""
        try:
            loaded = self.load(key)
        except BucketdError:
            return False
        return loaded.verified and loaded.snapshot.etag == snapshot.etag

    def _missing(self, key: BucketKey, known: Entry | None, changes: int) -> Loaded:
        """No file: one that was known before has been removed by somebody else."""
        if known is None:
            return _NOTHING
        before = _before(known)
        self._remember_read(key, Entry(ABSENT, None, verified=False, before=before), changes)
        return Loaded(ABSENT, verified=False, before=before)

    def check_writable(self, key: BucketKey) -> None:
        """Raise BucketdError where this user may not put the file, say below somebody else's mkdir.

        Asked before a change is journaled, so it stays this bucket's trouble. A directory is
        looked at once.
        """
        parts = paths.parts(key)[0]
        if parts in self._places:
            return
        try:
            if not files.can_create(self.root, parts):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise errors.refusal(f"write {self.name(key)}", error) from error
        if len(self._places) >= MAX_PLACES:
            self._places.clear()
        self._places.add(parts)

    def put(self, key: BucketKey, snapshot: Snapshot) -> None:
        """Make the file say this; ABSENT removes it. Atomic, not durable. Raises OSError."""
        self.writes += 1
        self._changes += 1
        try:
            self._put(key, snapshot)
        finally:
            self._changes += 1

    def _put(self, key: BucketKey, snapshot: Snapshot) -> None:
        where = paths.parts(key)
        if snapshot.revision == 0:
            files.remove(self.root, *where, durably=False)
            self._forget(key)
            return
        try:
            stat_key = self._write(key, snapshot)
        except OSError as error:
            if not errors.is_obstacle(error):
                raise
            quarantine.move_obstacle(self.root, where[0])
            stat_key = self._write(key, snapshot)
        self._remember(key, Entry(snapshot, stat_key, verified=True))

    def _write(self, key: BucketKey, snapshot: Snapshot) -> files.StatKey:
        return files.write(
            self.root,
            *paths.parts(key),
            lambda file_id: envelope.write(key, snapshot, file_id),
            durably=False,
        )

    def quarantine(self, key: BucketKey) -> None:
        """Keep whatever stands there in the quarantine as well. Raises OSError."""
        parts, name = paths.parts(key)
        quarantine.move_obstacle(self.root, parts)
        quarantine.keep_file(self.root, parts, name)

    def entry(self, key: BucketKey) -> Entry | None:
        with self._guard:
            return self._cache.get(key)

    def stale(self, among: Set[BucketKey] | None) -> list[BucketKey]:
        """Which of these, or of all that are cached, are not in their files what is known."""
        with self._guard:
            known = self._cache.entries()
        asked = (one for one in known if among is None or one[0] in among)
        return [key for key, entry in asked if not self._stands(key, entry)]

    def _stands(self, key: BucketKey, entry: Entry) -> bool:
        try:
            return files.stat_key(self.root, paths.path(key)) == entry.stat_key
        except OSError:  # something else stands in the way to it
            return False

    def cache_use(self) -> tuple[int, int]:
        """Entries and bytes."""
        with self._guard:
            return len(self._cache), self._cache.bytes

    def name(self, key: BucketKey) -> str:
        return f"{self.path}/{paths.path(key)}"

    def unreadable(self, key: BucketKey, error: OSError) -> BucketdError:
        if errors.is_obstacle(error):
            return self._corrupt(key, error.strerror)
        return errors.refusal(f"read {self.name(key)}", error)

    def _corrupt(self, key: BucketKey, cause: str | None) -> BucketCorrupt:
        damage = f"{self.name(key)} is damaged ({cause})"
        error = BucketCorrupt(
            f"cannot read {key}: {damage}; it was left untouched. "
            "Put a good file in its place, or replace or delete the bucket"
        )
        error.damage = damage
        return error

    def _remember(self, key: BucketKey, entry: Entry) -> None:
        with self._guard:
            self._cache.put(key, entry)

    def _remember_read(self, key: BucketKey, entry: Entry, changes: int) -> None:
        """Unless the daemon changed any file meanwhile: an older state would look brought back."""
        with self._guard:
            if changes == self._changes and not changes % 2:
                self._cache.put(key, entry)

    def _forget(self, key: BucketKey) -> None:
        with self._guard:
            self._cache.drop(key)


def _before(known: Entry | None) -> Snapshot | None:
    """The state before an edit by somebody else: the newest that the daemon has told of."""
    if known is None:
        return None
    return known.snapshot if known.verified else known.before


def _reconcile(stored: envelope.Stored, known: Entry | None) -> tuple[Snapshot, bool]:
    """The snapshot that a file stands for, given what was last known of that bucket.

    A file that the daemon did not write, or that it wrote and somebody brought
    back, is one more revision than the newest that is known.
    """
    found = stored.snapshot
    last = known.snapshot if known is not None else ABSENT
    if found.etag == last.etag or (stored.verified and found.revision > last.revision):
        return found._replace(revision=max(found.revision, last.revision)), stored.verified
    revision = max(found.revision, last.revision) + 1
    etag = found.etag if not stored.verified else secrets.token_hex(8)
    return found._replace(revision=revision, etag=etag), False
