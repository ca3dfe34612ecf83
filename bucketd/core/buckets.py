"""The domain: a change, made to fit the limits, handed to the store."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import orjson

from ..concurrency import INLINE_MAX_BYTES, KeyedLocks, offload
from ..errors import BucketCorrupt, BucketdError, Overloaded, SchemaViolation, TooLarge
from ..model import changes
from ..model.bucket import BucketKey, Snapshot
from ..model.changes import Change
from ..model.preconditions import Preconditions
from ..store.base import Filter, Page, Store
from .quota import Quota
from .schemas.registry import Registry

if TYPE_CHECKING:
    from .schemas.validator import Validator

LARGEST_SHOWN = 3
PAGE = 1000
TRIES = 5  # to work out a slow change while others change the bucket
EXPORT_BYTES = 4 * 1024 * 1024  # of buckets in one page
Stored = list[tuple[BucketKey, Snapshot]]
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Buckets:
    """Buckets as their users know them.

    ``max_bytes`` bounds the compact JSON of each, and ``quota``, if any, that of each device.
    """

    store: Store
    schemas: Registry
    max_bytes: int
    quota: Quota | None = None
    _rebases: KeyedLocks = field(default_factory=KeyedLocks)

    async def get(self, key: BucketKey, stale_ok: bool = False) -> Snapshot:
        return await self.store.read(key, stale_ok)

    def known(self, key: BucketKey) -> Snapshot | None:
        """What ``get`` would give, where it takes no waiting to know."""
        return self.store.known(key)

    async def change(
        self, key: BucketKey, change: Change, guard: Preconditions, automation: str | None = None
    ) -> Snapshot:
        """Apply the change; TooLarge or SchemaViolation for what the bucket may not become."""
        if not change.prepared_only:
            return await self._change(key, change, guard, automation)
        # One of each bucket at a time: of two that were worked out together one was so in vain.
        async with self._rebases.lock(key):
            for tries_left in reversed(range(TRIES)):
                try:
                    return await self._change(key, change, guard, automation)
                except Overloaded as error:
                    if not (error.extra.pop("moved", False) and tries_left):
                        raise
        raise AssertionError("the last try returns or raises")

    async def _change(
        self, key: BucketKey, change: Change, guard: Preconditions, automation: str | None
    ) -> Snapshot:
        checked = await self._prepared(key, self._checked(key, change), automation)
        if self.quota is None:
            return await self.store.commit(key, checked, guard, automation)
        with await self.quota.look(key) as claim:
            return await self.store.commit(key, claim.on(checked), guard, automation)

    def begin(
        self, key: BucketKey, change: Change, guard: Preconditions, automation: str | None = None
    ) -> asyncio.Future[Snapshot] | None:
        """The same, begun now; None where it is large, or the store has no quick way."""
        if self._large(key, change):
            return None
        checked = self._checked(key, change)
        if self.quota is None:
            return self.store.begin(key, checked, guard, automation)
        claim = self.quota.claim(key)
        if claim is None:
            return None
        with contextlib.ExitStack() as undo:
            undo.push(claim)
            future = self.store.begin(key, claim.on(checked), guard, automation)
            if future is not None:
                undo.pop_all()
                future.add_done_callback(claim.done)
        return future

    async def _prepared(self, key: BucketKey, change: Change, automation: str | None) -> Change:
        """A large one worked out beforehand, beside the loop."""
        if not self._large(key, change):
            return change
        return await offload(self._worked_out, key, change, automation)

    def _worked_out(self, key: BucketKey, change: Change, automation: str | None) -> Change:
        now = self._known(key)
        if now is None:
            return change
        stored = now.bucket if now.revision else None
        return changes.prepared(change, stored, automation or now.automation)

    def _large(self, key: BucketKey, change: Change) -> bool:
        now = None if change.offloaded else self._known(key)
        return change.offloaded or (now is not None and len(now.bucket) > INLINE_MAX_BYTES)

    def _known(self, key: BucketKey) -> Snapshot | None:
        try:
            return self.store.known(key)
        except BucketdError:
            return None  # which whoever judges it tells

    def _checked(self, key: BucketKey, change: Change) -> Change:
        def check(before: bytes | None, after: bytes, bound: str | None) -> None:
            # One that is over a limit lowered since may still shrink or stay.
            if len(after) > max(self.max_bytes, len(before or b"")):
                raise self._too_large(key, after)
            if (
                change.metadata is None
            ):  # what is carried here was stored before, and stays readable
                self._check_schema(key, after, bound)

        return change.checked(check)

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        return await self.store.list(only, cursor, limit)

    async def export(self, only: Filter, cursor: str | None, limit: int) -> tuple[Stored, Page]:
        """A page with its buckets as acknowledged; shorter where they are large, lest it grow."""
        page = await self.store.list(only, cursor, limit)
        fitting = bisect_right(list(accumulate(row.size for row in page.rows)), EXPORT_BYTES)
        if fitting < len(page.rows):
            page = await self.store.list(only, cursor, max(1, fitting))
        stored: Stored = []
        for row in page.rows:
            key = BucketKey(row.device, row.job)
            try:
                now = await self.store.read(key)
            except BucketCorrupt:  # since it was listed
                page.unreadable.append(str(key))
                continue
            if now.revision:
                stored.append((key, now))
        return stored, page

    async def violations_of(
        self, automation: str, schema: Validator, most: int
    ) -> tuple[Rows, int]:
        """Which stored buckets of an automation a schema would refuse: the first, and how many."""
        details: Rows = []
        count, cursor = 0, None
        while True:
            page = await self.store.list(Filter(automation=automation), cursor, PAGE)
            for row in page.rows:
                wrong = await self._violations(BucketKey(row.device, row.job), schema)
                count += bool(wrong)
                if wrong and len(details) < most:
                    details.append({"device": row.device, "job": row.job, "violations": wrong})
            cursor = page.next_cursor
            if cursor is None:
                return details, count

    async def _violations(self, key: BucketKey, schema: Validator) -> Rows:
        try:
            now = await self.store.read(key)
        except BucketdError:
            return []  # unreadable: that is reported elsewhere, and no schema mends it
        if not now.revision:
            return []
        return await offload(schema.violations, now.bucket)

    def _check_schema(self, key: BucketKey, after: bytes, automation: str | None) -> None:
        schema = self.schemas.find(automation)
        wrong = schema.violations(after) if schema is not None else []
        if not wrong:
            return
        first = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise SchemaViolation(
            f"cannot set {key}: by the schema of {automation!r}, "
            f"{first['path'] or 'the bucket'} {first['message']}{more}",
            details=wrong,
        )

    def _too_large(self, key: BucketKey, after: bytes) -> TooLarge:
        sizes = {k: len(orjson.dumps(v)) for k, v in orjson.loads(after).items()}
        largest = sorted(sizes, key=lambda k: -sizes[k])[:LARGEST_SHOWN]
        shown = ", ".join(f"{_short(k)} ({sizes[k]} bytes)" for k in largest)
        details: list[Any] = [{"key": k, "bytes": sizes[k]} for k in largest]
        return TooLarge(
            f"cannot set {key}: it would have {len(after)} bytes, allowed are {self.max_bytes}; "
            f"its largest keys: {shown}; remove some, or raise [limits] max_bucket_bytes",
            details=details,
        )


def _short(key: str) -> str:
    return repr(key if len(key) <= 40 else key[:39] + "…")
