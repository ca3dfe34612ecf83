"""What watchers are sent: Server-Sent Events as bytes.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. The ``id`` of an event is
the store's event id of that change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from ...concurrency import INLINE_MAX_BYTES
from ...model.bucket import BucketKey, Snapshot
from ...model.strict_json import equal
from ...store.base import ChangeEvent

RETRY = b"retry: 1000\n"  # milliseconds after which a browser's EventSource connects again


class Difference(NamedTuple):
    """What a change did to the members of a bucket."""

    set: dict[str, Any]
    removed: list[str]

    @classmethod
    def of(cls, before: Snapshot, after: Snapshot) -> Difference:
        old, new = orjson.loads(before.bucket), orjson.loads(after.bucket)
        changed = {k: v for k, v in new.items() if k not in old or not equal(old[k], v)}
        return cls(changed, [k for k in old if k not in new])

    def among(self, members: frozenset[str]) -> Difference:
        """The part of it that concerns these."""
        few = sorted(members) if len(members) < len(self.set) else self.set
        return Difference(
            {k: self.set[k] for k in few if k in members and k in self.set},
            [k for k in self.removed if k in members],
        )


class Notification:
    """One change on its way to its watchers: the same bytes for all who want the same of it."""

    def __init__(self, changed: ChangeEvent) -> None:
        self.changed = changed
        self._difference: Difference | None = None
        self._frames: dict[frozenset[str] | None, bytes | None] = {}

    @property
    def large(self) -> bool:
        before = self.changed.before
        return (
            len(self.changed.after.bucket) + len(before.bucket if before else b"")
            > INLINE_MAX_BYTES
        )

    def prepare(self) -> None:
        """Find out the difference; on any thread."""
        before, after = self.changed.before, self.changed.after
        if before is not None:
            self._difference = Difference.of(before, after)

    def frame(self, members: frozenset[str] | None) -> bytes | None:
        """What a watcher of these members is sent; None where it does not concern them."""
        if members not in self._frames:
            self._frames[members] = self._frame(members)
        return self._frames[members]

    def _frame(self, members: frozenset[str] | None) -> bytes | None:
        key, _, after, event_id = self.changed[:4]
        if self._difference is None:
            return gap(event_id, key)
        found = self._difference
        if members is not None:
            found = found.among(members)
            if not found.set and not found.removed:
                return None
        return event(event_id, key, after.revision, found)


def prepare_all(
    changes: Iterable[Notification], members: frozenset[str] | None, most: int
) -> list[bytes] | None:
    """What a watcher of these members is sent of all of them; None: over ``most`` bytes.

    On any thread.
    """
    frames, size = [], 0
    for told in changes:
        told.prepare()
        if (frame := told.frame(members)) is not None:
            frames.append(frame)
            size += len(frame)
        if size > most:
            return None
    return frames


def here(event_id: str) -> bytes:
    """Where to resume from, without an event."""
    return b"id: %b\n\n" % event_id.encode()


def gap(event_id: str, key: BucketKey | None) -> bytes:
    """What happened meanwhile, to this bucket or to any, is not known."""
    where = {} if key is None else {"device": key.device, "job": key.job}
    return b"event: gap\nid: %b\ndata: %b\n\n" % (event_id.encode(), orjson.dumps(where))


def event(event_id: str, key: BucketKey, revision: int, found: Difference) -> bytes:
    data = {
        "device": key.device,
        "job": key.job,
        "revision": revision,
        "set": found.set,
        "removed": found.removed,
    }
    return b"event: bucket\nid: %b\ndata: %b\n\n" % (event_id.encode(), orjson.dumps(data))
