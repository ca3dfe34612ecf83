"""The preconditions of RFC 9110 §13, that a stored bucket must meet before it is changed."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import PreconditionFailed
from .bucket import Snapshot


class EntityTags(NamedTuple):
    """The value of If-Match or If-None-Match: ``*`` (``any``), or the opaque tags listed."""

    any: bool = False
    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()


class Preconditions(NamedTuple):
    """Conditions of RFC 9110 §13 that a snapshot must meet before it is changed."""

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def matched(self, now: Snapshot) -> bool:
        """If-Match holds (strong comparison: a weak tag matches nothing)."""
        tags = self.if_match
        return tags is None or (now.revision > 0 and (tags.any or now.etag in tags.strong))

    def unmatched(self, now: Snapshot) -> bool:
        """If-None-Match holds (weak comparison)."""
        tags = self.if_none_match
        if tags is None or now.revision == 0:
            return True
        return not (tags.any or now.etag in tags.strong or now.etag in tags.weak)

    def check(self, now: Snapshot, what: object, doing: str = "change") -> None:
        """Raise PreconditionFailed, with the revision that is stored, unless both hold."""
        if not self:
            return
        if self.matched(now) and self.unmatched(now):
            return
        cause = "it has changed since" if now.revision else "none is stored"
        cure = "read it again and repeat"
        if self.matched(now):
            cause, cure = "it exists already", "read it, and write with its ETag"
        raise PreconditionFailed(
            f"cannot {doing} {what}: {cause} (revision {now.revision}); {cure}",
            revision=now.revision,
        )
