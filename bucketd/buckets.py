"""The domain: a change, made to fit the limits, handed to the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from .errors import TooLarge
from .model import BucketKey, Change, Guard, Snapshot
from .store.base import Filter, Page, Store

LARGEST_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Buckets:
    """Buckets as their users know them. ``max_bytes`` bounds the compact JSON of each."""

    store: Store
    max_bytes: int

    async def get(self, key: BucketKey) -> Snapshot:
        return await self.store.read(key)

    def known(self, key: BucketKey) -> Snapshot | None:
        """What ``get`` would give, where it takes no waiting to know."""
        return self.store.known(key)

    async def change(
        self, key: BucketKey, change: Change, guard: Guard, automation: str | None = None
    ) -> Snapshot:
        """Apply the change; TooLarge when the bucket would grow over the limit."""
        return await self.store.commit(key, self._bounded(key, change), guard, automation)

    async def list(self, only: Filter, cursor: str | None, limit: int) -> Page:
        return await self.store.list(only, cursor, limit)

    def _bounded(self, key: BucketKey, change: Change) -> Change:
        def apply(stored: bytes | None) -> bytes | None:
            after = change.apply(stored)
            # One that is over a limit lowered since may still shrink or stay.
            if after is not None and len(after) > max(self.max_bytes, len(stored or b"")):
                raise self._too_large(key, after)
            return after

        return replace(change, apply=apply)

    def _too_large(self, key: BucketKey, after: bytes) -> TooLarge:
        sizes = {k: len(orjson.dumps(v)) for k, v in orjson.loads(after).items()}
        largest = sorted(sizes, key=lambda k: -sizes[k])[:LARGEST_SHOWN]
        shown = ", ".join(f"{_short(k)} ({sizes[k]} bytes)" for k in largest)
        details: list[Any] = [{"key": k, "bytes": sizes[k]} for k in largest]
        return TooLarge(
            f"cannot set {key}: it would have {len(after)} bytes, allowed are {self.max_bytes}; "
            f"its largest keys: {shown}",
            details=details,
        )


def _short(key: str) -> str:
    return repr(key if len(key) <= 40 else key[:39] + "…")
