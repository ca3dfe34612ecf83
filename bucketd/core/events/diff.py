"""The difference that a change makes to the keys of a bucket."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from ...model.bucket import Snapshot
from ...model.strict_json import equal


class Difference(NamedTuple):
    """The keys that were set, with their new values, and the keys that were removed."""

    set: dict[str, Any]
    removed: list[str]

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Difference:
        """Compare two states of a bucket, key by key."""
        old, new = orjson.loads(before.bucket), orjson.loads(after.bucket)
        changed = {k: v for k, v in new.items() if k not in old or not equal(old[k], v)}
        return cls(changed, [k for k in old if k not in new])

    @classmethod
    def from_nothing(cls, now: Snapshot) -> Difference:
        """Return the whole bucket, as if each of its keys had just been set."""
        return cls(orjson.loads(now.bucket), [])

    def restricted_to(self, keys: frozenset[str]) -> Difference:
        """Return the part that concerns these keys."""
        candidates = sorted(keys) if len(keys) < len(self.set) else self.set
        return Difference(
            {k: self.set[k] for k in candidates if k in keys and k in self.set},
            [k for k in self.removed if k in keys],
        )

    @property
    def is_empty(self) -> bool:
        """Report whether nothing was set and nothing removed."""
        return not self.set and not self.removed
