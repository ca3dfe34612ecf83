"""The difference that a change makes to the keys of a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...model.bucket import Snapshot
from ...model.document import Members

if TYPE_CHECKING:
    from ..schemas.masking import Masking


class Difference(NamedTuple):
    """The members that were set, as JSON, and the keys that were removed."""

    set: Members
    removed: list[str]

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Difference:
        """Compare two states of a bucket, key by key."""
        return cls(*after.bucket.difference_from(before.bucket))

    @classmethod
    def from_nothing(cls, now: Snapshot, keys: frozenset[str] | None) -> Difference:
        """Return the bucket, all or these keys of it, as if each key had just been set."""
        bucket = now.bucket if keys is None else now.bucket.only(sorted(keys))
        return cls(bucket.members, [])

    def restricted_to(self, keys: frozenset[str]) -> Difference:
        """Return the part that concerns these keys."""
        candidates = sorted(keys) if len(keys) < len(self.set) else self.set
        return Difference(
            {k: self.set[k] for k in candidates if k in keys and k in self.set},
            [k for k in self.removed if k in keys],
        )

    def masked(self, masking: Masking) -> Difference:
        """Return the difference with masks in place of secret values."""
        return self._replace(set=masking.members(self.set))

    @property
    def is_empty(self) -> bool:
        """Report whether nothing was set and nothing removed."""
        return not self.set and not self.removed
