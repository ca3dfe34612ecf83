"""What one commit does to a bucket, decided in memory: the rules, without threads or locks."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import BucketCorrupt, BucketdError, Internal
from ...model.bucket import ABSENT, BucketKey, Change, Snapshot
from ...model.preconditions import Preconditions
from . import records
from .bucket_files import BucketFiles, Loaded
from .journal import Journal
from .records import Position, Record

log = logging.getLogger(__name__)
MAX_HOPELESS = 10_000
_OF_THIS_PROCESS = secrets.token_hex(6)  # an ETag never repeats, and need not be a secret
_numbers = itertools.count(1)
_ADOPTED = Change(lambda stored: stored)


@dataclass(slots=True)
class Commit:
    """One change that waits; ``change`` None takes the file as it is, adopted or healed."""

    key: BucketKey
    change: Change | None
    guard: Preconditions
    automation: str | None = None
    future: asyncio.Future[Snapshot] | None = None


@dataclass(slots=True)
class Batch:
    """What a round has come to before it is journaled.

    ``told``: for each payload the bucket, its state before where that is known, and after.
    ``place``: of the first payload in the journal.
    """

    size: int = 0
    place: Position | None = None
    after: dict[BucketKey, Snapshot] = field(default_factory=dict)
    payloads: list[bytes] = field(default_factory=list)
    told: list[tuple[BucketKey, Snapshot | None, Snapshot]] = field(default_factory=list)
    answers: list[tuple[Commit, Any]] = field(default_factory=list)


class Applier:
    """Applies commits to what is newest: of the batch, of ``dirty``, or of the file.

    ``corrupt`` collects the buckets whose unreadable file goes to the
    quarantine before the next write of it.
    """

    def __init__(
        self,
        files: BucketFiles,
        log_: Journal,
        dirty: Mapping[BucketKey, Snapshot],
        corrupt: set[BucketKey],
    ) -> None:
        self._files, self._journal, self._dirty = files, log_, dirty
        self._corrupt = corrupt
        self._hopeless: set[BucketKey] = set()  # of which the journal holds nothing

    def outcome(self, commit: Commit, batch: Batch) -> Snapshot | BucketdError:
        try:
            return self._apply(commit, batch)
        except BucketdError as error:
            return error.with_traceback(None)  # which would hold the batch, and that the error
        except Exception:
            log.exception("a change failed in a way that was not foreseen")
            return Internal("cannot write the bucket: an internal error, see the daemon's log")

    def _apply(self, commit: Commit, batch: Batch) -> Snapshot:
        key, change = commit.key, commit.change
        try:
            loaded = self._current(key, batch)
        except BucketCorrupt as error:
            good = self._last_good(key)
            if change is not None and change.blind and not commit.guard:
                last = good or ABSENT
                after = change.result(None, commit.automation or last.automation)
                entered = self._enter(batch, key, last, _next(last, after, commit), told=good)
                self._corrupt.add(key)
                return entered
            if good is None:
                raise
            return self._heal(commit, batch, good, error.damage)
        return self._change(commit, batch, loaded)

    def _change(self, commit: Commit, batch: Batch, loaded: Loaded) -> Snapshot:
        key, change, now = commit.key, commit.change, loaded.snapshot
        if not loaded.verified:
            # Answers tell of it, whatever comes of this commit; so it must last from here on.
            self._enter(batch, key, now, now, told=loaded.before)
        commit.guard.check(now, key)
        stored = now.bucket if now.revision else None
        bound = commit.automation or now.automation
        after = change.result(stored, bound) if change is not None else stored
        if after == stored and (after is None or bound == now.automation):
            return now
        entered = self._enter(batch, key, now, _next(now, after, commit), told=now)
        return entered._replace(recovered=now.recovered) if entered.revision else entered

    def _heal(self, commit: Commit, batch: Batch, good: Snapshot, damage: str) -> Snapshot:
        """Put the last good generation in the place of a file that cannot be read; then go on.

        Answers tell of it up to the next change: whoever reads first may not be who has to know.
        """
        what = f"{damage}; it is kept in the quarantine, and revision {good.revision} goes on"
        log.error("cannot read %s: %s", commit.key, what)
        good = good._replace(recovered=(good.revision, what))
        self._enter(batch, commit.key, good, good, told=good)
        self._corrupt.add(commit.key)
        return self._change(commit, batch, Loaded(good, verified=True))

    def _last_good(self, key: BucketKey) -> Snapshot | None:
        """The newest generation known besides the file: of the cache, or of the journal."""
        entry = self._files.entry(key)
        if entry is not None and entry.snapshot.revision:
            return entry.snapshot
        if key in self._hopeless:
            return None  # whoever asks again and again must not have it read again and again
        record = self._journal.find(key)
        if record is not None and record.after.revision:
            return record.after
        if len(self._hopeless) >= MAX_HOPELESS:
            self._hopeless.clear()
        self._hopeless.add(key)
        return None

    def _current(self, key: BucketKey, batch: Batch) -> Loaded:
        newest = batch.after.get(key) or self._dirty.get(key)
        return Loaded(newest, verified=True) if newest is not None else self._files.load(key)

    def _enter(
        self,
        batch: Batch,
        key: BucketKey,
        before: Snapshot,
        after: Snapshot,
        told: Snapshot | None,
    ) -> Snapshot:
        """``told`` is what was last known of it by those who hear of changes."""
        self._files.check_writable(key)
        self._hopeless.discard(key)
        payload = records.encode(Record(key, before.etag, after))
        batch.payloads.append(payload)
        batch.size += records.framed(payload)
        batch.after[key] = after
        batch.told.append((key, told, after))
        return after


def _next(before: Snapshot, bucket: bytes | None, commit: Commit) -> Snapshot:
    if bucket is None:
        return ABSENT
    stamp = (commit.change or _ADOPTED).metadata_after(before)
    return Snapshot(
        bucket=bucket,
        revision=stamp.revision,
        etag=f"{_OF_THIS_PROCESS}{next(_numbers):06x}",
        automation=commit.automation or before.automation,
        created_at=stamp.created_at,
        updated_at=stamp.updated_at,
    )
