"""Check the preconditions of a change: those of RFC 9110 §13, and fences."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import PreconditionFailed
from .bucket import Snapshot


class EntityTags(NamedTuple):
    """The value of If-Match or If-None-Match: ``*`` (``any``), or a list of entity tags."""

    any: bool = False
    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()


class Preconditions(NamedTuple):
    """The conditions that a snapshot must meet; false if there are none.

    ``fences``: those of holds which must all live. They say nothing about the snapshot, so the
    store checks them, where it orders the change among all others.
    """

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    fences: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def if_match_holds(self, now: Snapshot) -> bool:
        """Report whether If-Match holds (strong comparison: a weak tag matches nothing)."""
        tags = self.if_match
        return tags is None or (now.revision > 0 and (tags.any or now.etag in tags.strong))

    def if_none_match_holds(self, now: Snapshot) -> bool:
        """Report whether If-None-Match holds (weak comparison)."""
        tags = self.if_none_match
        if tags is None or now.revision == 0:
            return True
        return not (tags.any or now.etag in tags.strong or now.etag in tags.weak)

    def check(self, now: Snapshot, what: object, doing: str = "change") -> None:
        """Raise PreconditionFailed, with the stored revision, unless both conditions hold."""
        if not self:
            return
        if not self.if_match_holds(now):
            cause = "it has changed since" if now.revision else "none is stored"
            fix = "read it again and repeat"
        elif not self.if_none_match_holds(now):
            cause, fix = "it exists already", "read it, and write with its ETag"
        else:
            return
        raise PreconditionFailed(
            f"cannot {doing} {what}: {cause} (revision {now.revision}); {fix}",
            revision=now.revision,
        )
