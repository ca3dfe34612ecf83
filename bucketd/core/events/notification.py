"""Render each change once for all subscriptions that select the same keys."""

from __future__ import annotations

from collections.abc import Iterable

from ...concurrency import INLINE_MAX_BYTES
from ...store.base import ChangeEvent
from . import sse
from .diff import Difference

Keys = frozenset[str] | None  # None: all keys


class Notification:
    """Render a change; call ``prepare`` first, then ``render``."""

    def __init__(self, change: ChangeEvent) -> None:
        self.change = change
        self._difference: Difference | None = None
        self._rendered: dict[Keys, bytes | None] = {}

    @property
    def offloaded(self) -> bool:
        """Report whether ``prepare`` takes so long that it belongs on a worker thread."""
        before, after = self.change.before, self.change.after
        size = after.bucket.size + (before.bucket.size if before else 0)
        is_split = after.bucket.is_split and (before is None or before.bucket.is_split)
        return size > INLINE_MAX_BYTES and not is_split

    def prepare(self) -> None:
        """Compute the difference, on any thread."""
        before, after = self.change.before, self.change.after
        if before is not None:
            self._difference = Difference.between(before, after)

    def render(self, keys: Keys) -> bytes | None:
        """Return the event for a subscription to these keys; None if the change touches none."""
        if keys not in self._rendered:
            self._rendered[keys] = self._render(keys)
        return self._rendered[keys]

    def _render(self, keys: Keys) -> bytes | None:
        change, difference = self.change, self._difference
        if difference is None:
            return sse.gap(change.event_id, change.key)
        if keys is not None:
            difference = difference.restricted_to(keys)
            if difference.is_empty:
                return None
        return sse.bucket(change.event_id, change.key, change.after.revision, difference)


def render_all(notifications: Iterable[Notification], keys: Keys, limit: int) -> list[bytes] | None:
    """Return all notifications as rendered events, on any thread; None over ``limit`` bytes."""
    rendered, size = [], 0
    for notification in notifications:
        notification.prepare()
        if (event := notification.render(keys)) is not None:
            rendered.append(event)
            size += len(event)
        if size > limit:
            return None
    return rendered
