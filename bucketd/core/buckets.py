"""The domain: a change, made to fit the limits, handed to the store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, MutableSequence, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ..concurrency import INLINE_MAX_BYTES, KeyedLocks, offload
from ..errors import BucketdError, Overloaded, SchemaViolation, TooLarge
from ..model import changes, strict_json
from ..model.author import UNKNOWN, Author
from ..model.bucket import ABSENT, BucketKey, Snapshot
from ..model.changes import Change
from ..model.document import Document
from ..model.preconditions import Preconditions
from ..model.revisions import History
from ..store.base import Filter, Page, Store, settled
from .history import EarlierState, earlier_state, undo_of
from .quota import Quota
from .schemas.registry import Registry

if TYPE_CHECKING:
    from .schemas.validator import Validator

LARGEST_SHOWN = 3
PAGE = 1000
# The number of times that a slow change is prepared while others change the bucket.
TRIES = 5
# The number of times that a change is taken back while others change its keys.
UNDO_TRIES = 50
# The first of these tries see a value that was set and set back meanwhile, in any bucket.
EXACT_UNDO_TRIES = 5
# Bytes of buckets in one page of an export.
EXPORT_BYTES = 4 * 1024 * 1024
Stored = list[tuple[BucketKey, Snapshot]]


@dataclass(slots=True)
class Violations:
    """Hold what a schema would refuse: ``details`` of the first buckets, the ``count`` of all.

    ``unreadable`` names what could not be validated, since nobody can read it.
    """

    details: list[dict[str, Any]]
    count: int
    unreadable: list[str]


class _Write(NamedTuple):
    """The arguments of ``Store.commit``, in its order."""

    key: BucketKey
    change: Change
    preconditions: Preconditions
    automation: str | None
    author: Author


@dataclass(frozen=True, slots=True)
class Buckets:
    """Buckets as their users know them.

    ``max_bytes`` bounds the compact JSON of each, and ``quota``, if any, that of each device.
    """

    store: Store
    schemas: Registry
    max_bytes: int
    quota: Quota | None = None
    _slow_changes: KeyedLocks = field(default_factory=KeyedLocks)

    def read(self, key: BucketKey, stale_ok: bool = False) -> Snapshot | Awaitable[Snapshot]:
        """Return the snapshot, or an awaitable of it if the store has to wait for it."""
        return self.store.read(key, stale_ok)

    def completed(self, now: Snapshot, automation: str | None) -> Snapshot:
        """Return a snapshot with the defaults of its schema for the keys that it does not have.

        It may be large, so call this on a worker thread.
        """
        schema = self.schemas.find(automation or now.automation)
        if schema is None or not schema.defaults:
            return now
        stored = now.bucket.members
        missing = {key: value for key, value in schema.defaults.items() if key not in stored}
        return now._replace(bucket=now.bucket.changed(strict_json.split(missing)))

    def commit(
        self,
        key: BucketKey,
        change: Change,
        preconditions: Preconditions,
        automation: str | None = None,
        author: Author = UNKNOWN,
    ) -> Awaitable[Snapshot]:
        """Commit a change; raise TooLarge or SchemaViolation if its result is not allowed."""
        write = _Write(key, self._checked(key, change), preconditions, automation, author)
        if change.prepared_only:
            return self._commit_slow(write)
        if change.offloaded or self._takes_long(key, change, automation):
            return self._commit_offloaded(write)
        return self._commit_within_quota(write)

    async def history(self, key: BucketKey) -> History:
        """Return a bucket with the changes that led to it, as far as they are kept."""
        return await self.store.history(key)

    async def state_at(self, key: BucketKey, number: int) -> EarlierState:
        """Return the state that a revision left. Raises NotFound, and NotKept."""
        found = await self.store.history(key)
        return await offload(earlier_state, key, found, number)

    async def undo(
        self,
        key: BucketKey,
        number: int | None,
        preconditions: Preconditions,
        automation: str | None,
        author: Author,
    ) -> Snapshot:
        """Take one change back, by default the last one, and return the outcome.

        Raises NotFound, NotKept, UndoConflict, and what a commit raises.
        """
        async with self._slow_changes.lock(key):
            for tries_left in reversed(range(UNDO_TRIES)):
                found = await self.store.history(key)
                # An undo gets through in the end, also where others write all the time: a value
                # that was set and set back within milliseconds then counts as untouched.
                by_values = tries_left < UNDO_TRIES - EXACT_UNDO_TRIES
                change, undone = await offload(undo_of, key, found, number, by_values)
                try:
                    now = await self.commit(key, change, preconditions, automation, author)
                except Overloaded as error:
                    if not (error.extra.pop("moved", False) and tries_left):
                        raise
                else:
                    return now._replace(undone=undone)
        raise AssertionError("the last try returns or raises")

    def _commit_within_quota(self, write: _Write) -> Awaitable[Snapshot]:
        if self.quota is None:
            return self.store.commit(*write)
        reservation = self.quota.reserve(write.key)
        if reservation is None:
            return self._commit_once_measured(write)
        try:
            counted = write._replace(change=reservation.counted(write.change))
            future = self.store.commit(*counted)
        except BaseException as error:
            reservation.release(error)
            raise
        future.add_done_callback(reservation.release_with)
        return future

    async def _commit_once_measured(self, write: _Write) -> Snapshot:
        """Measure how much the device stores, then commit."""
        assert self.quota is not None  # noqa: S101  (the caller has checked)
        await self.quota.measure(write.key.device)
        return await self._commit_within_quota(write)

    async def _commit_slow(self, write: _Write) -> Snapshot:
        """Prepare a slow change off the event loop and commit it; retry if the bucket changed."""
        # Two slow changes prepared from the same state cannot both be committed, so each bucket
        # has one at a time.
        async with self._slow_changes.lock(write.key):
            for tries_left in reversed(range(TRIES)):
                try:
                    return await self._commit_offloaded(write)
                except Overloaded as error:
                    if not (error.extra.pop("moved", False) and tries_left):
                        raise
        raise AssertionError("the last try returns or raises")

    async def _commit_offloaded(self, write: _Write) -> Snapshot:
        """Apply a change to the cached state in a worker thread, then commit the result."""
        prepared = await offload(self._prepared, write.key, write.change, write.automation)
        return await self._commit_within_quota(write._replace(change=prepared))

    def _prepared(self, key: BucketKey, change: Change, automation: str | None) -> Change:
        now = self.store.cached(key)
        if now is None:
            return change
        stored = now.bucket if now.revision else None
        return changes.prepared(change, stored, automation or now.automation)

    def _takes_long(self, key: BucketKey, change: Change, automation: str | None) -> bool:
        """Report whether the change has to parse or compare a large bucket."""
        now = self.store.cached(key)
        if now is None or now.bucket.size <= INLINE_MAX_BYTES:
            return False
        has_schema = self.schemas.find(automation or now.automation) is not None
        return has_schema or not (change.by_members and now.bucket.is_split)

    def _checked(self, key: BucketKey, change: Change) -> Change:
        def check(
            before: Document | None, after: Document, bound: str | None
        ) -> Sequence[dict[str, Any]]:
            # A restored bucket was accepted before, as one that is stored.
            if change.restores is not None:
                return ()
            # The limit may have been lowered: a bucket over it may keep its size or shrink.
            if after.size > max(self.max_bytes, 0 if before is None else before.size):
                raise self._too_large(key, after)
            # An import brings its own metadata. Its bucket was accepted before, and is copied
            # even if the schema has changed since.
            if change.metadata is not None:
                return ()
            return self._check_schema(key, before, after, bound)

        return change.checked(check)

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        return await self.store.list(only, cursor, limit)

    async def export(self, only: Filter, cursor: str | None, limit: int) -> tuple[Stored, Page]:
        """Return a page of rows with their buckets; large buckets make the page shorter."""
        page = await self.store.list(only, cursor, limit)
        fitting = bisect_right(list(accumulate(row.size for row in page.rows)), EXPORT_BYTES)
        if fitting < len(page.rows):
            page = await self.store.list(only, cursor, max(1, fitting))
        stored: Stored = []
        for row in page.rows:
            key = BucketKey(row.device, row.job)
            now = await self._read_listed(key, page.unreadable)
            if now.revision:
                stored.append((key, now))
        return stored, page

    async def violations_of(self, automation: str, schema: Validator, most: int) -> Violations:
        """Return which stored buckets of an automation a schema would refuse."""
        found = Violations([], 0, [])
        cursor = None
        while True:
            page = await self.store.list(Filter(automation=automation), cursor, PAGE)
            for row in page.rows:
                now = await self._read_listed(BucketKey(row.device, row.job), page.unreadable)
                wrong = await offload(schema.violations, now.bucket.text) if now.revision else []
                found.count += bool(wrong)
                if wrong and len(found.details) < most:
                    told = {"device": row.device, "job": row.job, "violations": wrong}
                    found.details.append(told)
            found.unreadable += page.unreadable
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def _read_listed(self, key: BucketKey, unreadable: MutableSequence[str]) -> Snapshot:
        """Read a listed bucket; name it in ``unreadable`` where it cannot be read any more.

        Raises Overloaded, after which all may be read by another try.
        """
        try:
            return await settled(self.store.read(key))
        except Overloaded:
            raise
        except BucketdError:
            unreadable.append(str(key))
            return ABSENT

    def _check_schema(
        self, key: BucketKey, before: Document | None, after: Document, automation: str | None
    ) -> Sequence[dict[str, Any]]:
        """Return the violations that are tolerated; raise SchemaViolation for all others."""
        schema = self.schemas.find(automation)
        if schema is None:
            return ()
        tolerated: Sequence[dict[str, Any]] = ()
        if self.schemas.tolerates(automation):
            wrong, tolerated = schema.compare(before, after)
        else:
            wrong = schema.violations(after.text)
        if not wrong:
            return tolerated
        first = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise SchemaViolation(
            f"cannot set {key}: by the schema of {automation!r}, "
            f"{first['path'] or 'the bucket'} {first['message']}{more}",
            details=wrong,
        )

    def _too_large(self, key: BucketKey, after: Document) -> TooLarge:
        sizes = {k: len(orjson.dumps(v)) for k, v in after.values().items()}
        largest = sorted(sizes, key=lambda k: -sizes[k])[:LARGEST_SHOWN]
        shown = ", ".join(f"{_short(k)} ({sizes[k]} bytes)" for k in largest)
        details: list[Any] = [{"key": k, "bytes": sizes[k]} for k in largest]
        return TooLarge(
            f"cannot set {key}: it would have {after.size} bytes, allowed are {self.max_bytes}; "
            f"its largest keys: {shown}; remove some, or raise [limits] max_bucket_bytes",
            details=details,
        )


def _short(key: str) -> str:
    return repr(key if len(key) <= 40 else key[:39] + "…")
