"""FileStore: one JSON file per bucket, written by one thread under ``write.lock``.

Reads run on the event loop: one ``stat`` shows whether the cached snapshot is
still what the file holds, so an edit by another program is seen at once.
Commits queue up for the writer thread, which takes the lock once for all that
wait, and answers each when its file and directory are on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import BucketCorrupt, BucketdError
from ..model import ABSENT, BucketKey, Change, Guard, Snapshot, timestamp
from . import disk, envelope, listing, naming
from .base import Filter, Page
from .cache import Cache, Entry
from .writer import Writer

log = logging.getLogger(__name__)
_IN_THE_WAY = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR)


@dataclass(frozen=True, slots=True)
class _Loaded:
    snapshot: Snapshot
    sealed: bool


class FileStore:
    """The embedded engine. Use from one event loop; ``close`` it when done."""

    def __init__(self, root: int, path: str, cache_bytes: int, lock_timeout: float) -> None:
        self._root, self._path = root, path
        self._cache = Cache(cache_bytes)
        self._cache_guard = threading.Lock()
        # Buckets whose file is being replaced right now: until the new one is
        # durable, readers get what was there before, be it an error.
        self._before: dict[BucketKey, Snapshot | BucketCorrupt] = {}
        self._counts = listing.Counts(root)
        self._writer = Writer(disk.WriteLock(root), lock_timeout)

    async def read(self, key: BucketKey) -> Snapshot:
        if key in self._before:
            return self._durable(key, ABSENT)
        where = naming.parts(key)
        try:
            signature = disk.signature(self._root, *where)
        except OSError as error:
            raise self._unreadable(key, error) from error
        if signature is None:
            # A commit may have unlinked it a moment ago and not yet made that durable.
            return self._durable(key, ABSENT)
        entry = self._cached(key)
        if entry is not None and entry.signature == signature:
            return entry.snapshot
        loaded = await asyncio.to_thread(self._load, key)
        if not loaded.sealed:
            self._writer.submit(partial(self._adopt, key))
        return self._durable(key, loaded.snapshot)

    def _durable(self, key: BucketKey, found: Snapshot) -> Snapshot:
        before = self._before.get(key, found)
        if isinstance(before, BucketCorrupt):
            raise before
        return before

    async def commit(
        self, key: BucketKey, change: Change, guard: Guard, automation: str | None = None
    ) -> Snapshot:
        return await self._writer.run(partial(self._commit, key, change, guard, automation))

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        return await asyncio.to_thread(listing.page, self._root, only, cursor, limit)

    async def check(self) -> dict[str, Any]:
        return {
            "engine": "file",
            "healthy": self._writer.healthy,
            "durability": "strict",
            "state_dir": self._path,
            "cached_buckets": len(self._cache),
            "cache_bytes": self._cache.bytes,
            **await asyncio.to_thread(self._counts.get),
        }

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)
        os.close(self._root)

    def _load(self, key: BucketKey) -> _Loaded:
        """What the file says now. Raises BucketCorrupt for one that is no envelope of ``key``."""
        where = naming.parts(key)
        try:
            text, signature = disk.read(self._root, *where)
            known = self._cached(key)
            if known is not None and known.signature == signature:
                return _Loaded(known.snapshot, known.sealed)
            stored = envelope.read(text, signature.inode, signature.mtime_ns)
            if stored.key != key:
                raise envelope.Unreadable(f"it says that it is {stored.key}")
        except FileNotFoundError:
            self._forget(key)
            return _Loaded(ABSENT, sealed=True)
        except disk.NotAFile as error:
            raise self._corrupt(key, error.strerror) from error
        except envelope.Unreadable as error:
            raise self._corrupt(key, str(error)) from error
        except OSError as error:
            raise self._unreadable(key, error) from error
        snapshot, sealed = _reconcile(stored, known)
        self._remember(key, Entry(snapshot, signature, sealed))
        return _Loaded(snapshot, sealed)

    def _commit(
        self, key: BucketKey, change: Change, guard: Guard, automation: str | None
    ) -> Snapshot:
        """On the writer thread, with the lock held."""
        try:
            loaded = self._load(key)
        except BucketCorrupt as error:
            if guard or not change.blind:
                raise
            return self._replace_corrupt(key, error, change, automation)
        now = loaded.snapshot
        guard.check(now, key)
        stored = now.bucket if now.revision else None
        after = change.apply(stored)
        if after == stored:
            return now if loaded.sealed else self._write(key, now, now)
        if after is None:
            return self._remove(key, now)
        return self._write(key, now, _next(now, after, automation))

    def _replace_corrupt(
        self, key: BucketKey, error: BucketCorrupt, change: Change, automation: str | None
    ) -> Snapshot:
        known = self._cached(key)
        last = known.snapshot if known is not None else ABSENT
        after = change.apply(None)
        try:
            undo = disk.quarantine(self._root, *naming.parts(key))
        except OSError as cause:
            raise disk.refusal(f"set the unreadable file of {key} aside", cause) from cause
        try:
            if after is not None:
                return self._write(key, error, _next(last, after, automation))
            return self._remove(key, error)
        except BucketdError:
            with contextlib.suppress(OSError):
                undo()
            raise

    def _adopt(self, key: BucketKey) -> None:
        """Make an edit from outside a revision of its own, so that the next edit is one more."""
        loaded = self._load(key)
        if not loaded.sealed:
            self._write(key, loaded.snapshot, loaded.snapshot)

    def _write(self, key: BucketKey, before: Snapshot | BucketCorrupt, after: Snapshot) -> Snapshot:
        self._before[key] = before
        try:
            signature = disk.write(
                self._root, *naming.parts(key), lambda inode: envelope.write(key, after, inode)
            )
        except OSError as error:
            raise self._unwritten(key, error) from error
        finally:
            self._before.pop(key)
        self._remember(key, Entry(after, signature, sealed=True))
        return after

    def _remove(self, key: BucketKey, before: Snapshot | BucketCorrupt) -> Snapshot:
        self._before[key] = before
        try:
            disk.remove(self._root, *naming.parts(key))
        except OSError as error:
            raise self._unwritten(key, error) from error
        finally:
            self._before.pop(key)
        self._forget(key)
        return ABSENT

    def _cached(self, key: BucketKey) -> Entry | None:
        with self._cache_guard:
            return self._cache.get(key)

    def _remember(self, key: BucketKey, entry: Entry) -> None:
        with self._cache_guard:
            self._cache.put(key, entry)

    def _forget(self, key: BucketKey) -> None:
        with self._cache_guard:
            self._cache.drop(key)

    def _corrupt(self, key: BucketKey, cause: str | None) -> BucketCorrupt:
        return BucketCorrupt(
            f"cannot read {key}: {self._file(key)} is damaged ({cause}); it was left untouched. "
            "Put a good file in its place, or replace or delete the bucket"
        )

    def _unreadable(self, key: BucketKey, error: OSError) -> BucketdError:
        if error.errno in _IN_THE_WAY:
            return self._corrupt(key, error.strerror)
        return disk.refusal(f"read {self._file(key)}", error)

    def _unwritten(self, key: BucketKey, error: OSError) -> BucketdError:
        log.error("cannot write %s: %s", self._file(key), error)
        return disk.refusal(f"write {key}", error)

    def _file(self, key: BucketKey) -> str:
        directories, name = naming.parts(key)
        return "/".join((self._path, *directories, name))


def _reconcile(stored: envelope.Stored, known: Entry | None) -> tuple[Snapshot, bool]:
    """The snapshot that a file stands for, given what was last known of that bucket.

    A file that the daemon did not write, or that it wrote and somebody brought
    back, is one more revision than the newest that is known.
    """
    found = stored.snapshot
    last = known.snapshot if known is not None else ABSENT
    if found.etag == last.etag or (stored.sealed and found.revision > last.revision):
        return found, stored.sealed
    revision = max(found.revision, last.revision) + 1
    etag = found.etag if not stored.sealed else secrets.token_hex(8)
    return replace(found, revision=revision, etag=etag), False


def _next(before: Snapshot, bucket: bytes, automation: str | None) -> Snapshot:
    now = timestamp()
    return Snapshot(
        bucket=bucket,
        revision=before.revision + 1,
        etag=secrets.token_hex(8),
        automation=automation or before.automation,
        created_at=before.created_at or now,
        updated_at=now,
    )
