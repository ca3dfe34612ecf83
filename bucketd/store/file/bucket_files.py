"""Bucket files as snapshots: read through the cache, written, quarantined. Synchronous."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Set
from typing import NamedTuple

from ...errors import BucketCorrupt, BucketdError, Overloaded
from ...fs import errors, files
from ...fs.filenames import printable
from ...fs.locks import WriteLock
from ...model.bucket import ABSENT, BucketKey, Snapshot
from . import envelope, paths, quarantine
from .cache import Cache, Entry

log = logging.getLogger(__name__)
MAX_WRITABLE = 8192
MAX_UNSETTLED = 1000
# How often and how long to wait for a program that has the file open for writing.
WRITER_TRIES, WRITER_SECONDS = 4, 0.005


class BeingEdited(Overloaded):
    """Another program is writing the bucket's file, so its content is not final yet.

    Try again after ``Retry-After``, once that program has finished.
    """


class Loaded(NamedTuple):
    """The content of a file; not ``verified`` if another program wrote it.

    ``before`` is the content before that edit, if known.
    """

    snapshot: Snapshot
    verified: bool
    before: Snapshot | None = None


class BucketFiles:
    """The files below one state directory. Safe for readers on any thread and one writer.

    Without a ``lock`` no other program is expected to edit files.
    """

    def __init__(
        self, root: int, path: str, cache_bytes: int, lock: WriteLock | None = None
    ) -> None:
        self.root, self.path = root, path
        self.writes = self.hits = self.misses = 0
        self._lock = lock
        self._cache = Cache(cache_bytes)
        self._guard = threading.Lock()
        self._writable: set[tuple[str, ...]] = set()
        # The number of file changes begun and ended by the daemon; odd while one is in progress.
        self._changes = 0
        # Buckets whose files were being edited when they were last read.
        self._unsettled: set[BucketKey] = set()

    def cached(self, key: BucketKey) -> Snapshot | None:
        """Return the cached snapshot if one ``stat`` confirms it; None if the file must be read."""
        try:
            stat_key = files.stat_key(self.root, paths.path(key))
            # Every read comes by here, so this does what ``entry`` does without the call.
            with self._guard:
                entry = self._cache.get(key)
            if stat_key is None and (entry is None or entry.stat_key is not None):
                return self._cached_without_file(key, entry)
        except OSError as error:
            raise self.unreadable(key, error) from error
        if entry is None or entry.stat_key != stat_key:
            return None
        self.hits += 1
        return entry.snapshot

    def _cached_without_file(self, key: BucketKey, entry: Entry | None) -> Snapshot | None:
        with self.excluding_editors() as alone:
            if alone:
                gone = files.stat_key(self.root, paths.path(key)) is None
                return ABSENT if gone and entry is None else None
        # Some editors move the file away while they save.
        self._note_unsettled(key)
        return None if entry is None else entry.snapshot

    @contextlib.contextmanager
    def excluding_editors(self) -> Iterator[bool]:
        """Hold ``write.lock`` for one short check; yield False while another program holds it."""
        if self._lock is None:
            yield True
        else:
            with self._lock.excluding_others() as alone:
                yield alone

    def load(self, key: BucketKey) -> Loaded:
        """Read the current content of the file.

        Raises BucketCorrupt if the file is not a valid envelope of ``key``, and BeingEdited while
        another program is editing it.
        """
        # The cache is asked before the file is read, so that the file is never older.
        changes, known = self._changes, self.entry(key)
        try:
            if known is not None and known.stat_key == files.stat_key(self.root, paths.path(key)):
                return Loaded(known.snapshot, known.verified, known.before)
            content, stored = self._read_settled(key, known)
        except FileNotFoundError:
            return self._load_without_file(key, known, changes)
        except envelope.Unreadable as error:
            raise self._corrupt(key, str(error)) from error
        except OSError as error:
            raise self.unreadable(key, error) from error
        snapshot, verified = _reconcile(stored, known)
        before = None if verified else _before(known)
        self._remember_read(key, Entry(snapshot, content.stat_key, verified, before), changes)
        return Loaded(snapshot, verified, before)

    def _read_settled(
        self, key: BucketKey, known: Entry | None
    ) -> tuple[files.Content, envelope.Stored]:
        """Read a file; if another program wrote it, wait until no program is writing it."""
        self.misses += 1
        with contextlib.suppress(envelope.Unreadable):
            content, stored = self._read(key)
            if stored.verified or (known and stored.snapshot.etag == known.snapshot.etag):
                return content, stored
        for tries_left in reversed(range(WRITER_TRIES)):
            try:
                return self._read(key, unless_written=True)
            except errors.BeingWritten:
                if tries_left:
                    time.sleep(WRITER_SECONDS)
        raise self._being_edited(key, "has it open for writing")

    def _read(
        self, key: BucketKey, unless_written: bool = False
    ) -> tuple[files.Content, envelope.Stored]:
        content = files.read(self.root, *paths.parts(key), unless_written)
        stored = envelope.read(content)
        if stored.key != key:
            raise envelope.Unreadable(f"it says that it is {stored.key}")
        return content, stored

    def _load_without_file(self, key: BucketKey, known: Entry | None, changes: int) -> Loaded:
        """Distinguish a removed file from one that an editor has moved away while it saves."""
        with self.excluding_editors() as alone:
            try:
                gone = alone and files.stat_key(self.root, paths.path(key)) is None
            except OSError as error:
                raise self.unreadable(key, error) from error
        if alone and not gone:
            # The editor has put the file back meanwhile.
            return self.load(key)
        if not alone and known is None:
            raise self._being_edited(key, "holds write.lock, and the file is not there")
        if not alone and known is not None:
            self._note_unsettled(key)
            return Loaded(known.snapshot, known.verified, known.before)
        if known is None:
            return Loaded(ABSENT, verified=True)
        before = _before(known)
        self._remember_read(key, Entry(ABSENT, None, verified=False, before=before), changes)
        return Loaded(ABSENT, verified=False, before=before)

    def may_be_away(self, key: BucketKey) -> bool:
        """Report whether an editor may have moved the file away. Raises BucketdError.

        While another program holds the lock, a missing file counts as moved away only if another
        entry of its directory contains its name, or the directory has changed since the daemon
        released the lock.
        """
        parts, name = paths.parts(key)
        try:
            with files.directory(self.root, parts) as parent:
                names, mtime_ns = os.listdir(parent), os.fstat(parent).st_mtime_ns
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self.unreadable(key, error) from error
        return any(name in other for other in names) or (
            self._lock is not None and mtime_ns > self._lock.released_ns
        )

    def _being_edited(self, key: BucketKey, how: str) -> BeingEdited:
        self._note_unsettled(key)
        return BeingEdited(
            f"cannot read {self.name(key)}: another program {how}; nothing was changed, "
            "end that program or try again"
        )

    def _note_unsettled(self, key: BucketKey) -> None:
        with self._guard:
            if len(self._unsettled) < MAX_UNSETTLED:
                self._unsettled.add(key)

    def take_unsettled(self) -> set[BucketKey]:
        """Return the buckets whose files were found being edited since the last call."""
        with self._guard:
            taken, self._unsettled = self._unsettled, set()
        return taken

    def shows(self, key: BucketKey, snapshot: Snapshot) -> bool:
        """Report whether the file is as ``put`` wrote it for this snapshot."""
        try:
            loaded = self.load(key)
        except BucketdError:
            return False
        return loaded.verified and loaded.snapshot.etag == snapshot.etag

    def check_writable(self, key: BucketKey) -> None:
        """Raise BucketdError if this user may not create the file; check each directory once.

        The check precedes the journal, so that a directory of another user makes only its own
        buckets fail.
        """
        parts = paths.parts(key)[0]
        if parts in self._writable:
            return
        try:
            if not files.can_create(self.root, parts):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise errors.refusal(f"write {self.name(key)}", error) from error
        if len(self._writable) >= MAX_WRITABLE:
            self._writable.clear()
        self._writable.add(parts)

    def put(self, key: BucketKey, snapshot: Snapshot) -> None:
        """Write the snapshot to the file, atomically; ABSENT removes it. Raises OSError."""
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
            lambda origin: envelope.write(key, snapshot, origin),
            durably=False,
        )

    def quarantine_name(self, key: BucketKey) -> str:
        """Return a new path below the state directory for ``quarantine``."""
        return f"{quarantine.QUARANTINE}/{quarantine.new_name(*paths.parts(key))}"

    def quarantine(self, key: BucketKey, new: str) -> None:
        """Keep the entry at the file's path in the quarantine as well. Raises OSError."""
        parts, name = paths.parts(key)
        quarantine.move_obstacle(self.root, parts)
        quarantine.keep_file(self.root, parts, name, new.rpartition("/")[2])

    def entry(self, key: BucketKey, is_use: bool = True) -> Entry | None:
        """Return the cache entry of a bucket; ``is_use`` says whether that counts as a use."""
        with self._guard:
            return self._cache.get(key, is_use)

    def known_keys(self) -> list[BucketKey]:
        """Return the buckets in the cache that exist."""
        with self._guard:
            entries = self._cache.entries()
        return [key for key, entry in entries if entry.snapshot.revision]

    def stale(self, among: Set[BucketKey] | None) -> list[BucketKey]:
        """Return the cached buckets, all or ``among`` these, whose files differ from the cache."""
        with self._guard:
            known = self._cache.entries()
        asked = (one for one in known if among is None or one[0] in among)
        return [key for key, entry in asked if not self._is_current(key, entry)]

    def _is_current(self, key: BucketKey, entry: Entry) -> bool:
        try:
            return files.stat_key(self.root, paths.path(key)) == entry.stat_key
        except OSError:
            # The path has an obstacle, or a directory that this user may not read.
            return False

    def cache_use(self) -> tuple[int, int]:
        """Return the number of cache entries and their bytes."""
        with self._guard:
            return len(self._cache), self._cache.bytes

    def name(self, key: BucketKey) -> str:
        return printable(f"{self.path}/{paths.path(key)}")

    def unreadable(self, key: BucketKey, error: OSError) -> BucketdError:
        if errors.is_obstacle(error):
            return self._corrupt(key, error.strerror)
        return errors.refusal(f"read {self.name(key)}", error)

    def _corrupt(self, key: BucketKey, cause: str | None) -> BucketCorrupt:
        damage = f"{self.name(key)} is damaged ({cause})"
        error = BucketCorrupt(
            f"cannot read {key}: {damage}; it was left untouched. "
            "Put a good file in its place, or replace or delete the bucket",
            key=key,
        )
        error.damage = damage
        return error

    def _remember(self, key: BucketKey, entry: Entry) -> None:
        with self._guard:
            self._cache.put(key, entry)

    def _remember_read(self, key: BucketKey, entry: Entry, changes: int) -> None:
        """Cache the content of a file, unless the daemon changed any file since it was read.

        Otherwise the cache would hold an older state, and the newer file would look like an edit.
        """
        with self._guard:
            if changes == self._changes and not changes % 2:
                self._cache.put(key, entry)

    def _forget(self, key: BucketKey) -> None:
        with self._guard:
            self._cache.drop(key)


def _before(known: Entry | None) -> Snapshot | None:
    """Return the newest state that was published before an edit by another program."""
    if known is None:
        return None
    return known.snapshot if known.verified else known.before


def _reconcile(stored: envelope.Stored, known: Entry | None) -> tuple[Snapshot, bool]:
    """Return the snapshot in a file, and whether it needs no new revision.

    A file that another program wrote, or an old file that somebody restored, becomes the revision
    after the newest that is known.
    """
    found = stored.snapshot
    last = known.snapshot if known is not None else ABSENT
    if found.etag == last.etag or (stored.verified and found.revision > last.revision):
        return found._replace(revision=max(found.revision, last.revision)), stored.verified
    revision = max(found.revision, last.revision) + 1
    etag = found.etag if not stored.verified else secrets.token_hex(8)
    return found._replace(revision=revision, etag=etag), False
