"""Render each change once for all subscriptions that have the same view of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from ...concurrency import INLINE_MAX_BYTES
from ...store.base import ChangeEvent
from . import sse
from .diff import Difference

if TYPE_CHECKING:
    from ..schemas.masking import Masking

Keys = frozenset[str] | None  # None: all keys


class View(NamedTuple):
    """Select what a subscription is shown of a bucket: some keys, with masks or without.

    ``masking_of`` finds the masks for the automations that a bucket may be of, anew for each
    change, since a schema may have changed; ``automation`` is one more, which the client names.
    """

    keys: Keys = None
    masking_of: Callable[..., Masking | None] | None = None
    automation: str | None = None

    def masking(self, *automations: str | None) -> Masking | None:
        """Return the masks of a bucket of these automations; None if nothing is masked."""
        return None if self.masking_of is None else self.masking_of(*automations, self.automation)


class Notification:
    """Render a change; call ``prepare`` first, then ``render``."""

    def __init__(self, change: ChangeEvent) -> None:
        self.change = change
        self._difference: Difference | None = None
        self._rendered: dict[tuple[Keys, Masking | None], bytes | None] = {}

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

    def is_slow(self, view: View) -> bool:
        """Report whether ``render`` takes so long that it belongs on a worker thread."""
        is_large = self.change.after.bucket.size > INLINE_MAX_BYTES
        return is_large and self._masking(view) is not None

    def render(self, view: View) -> bytes | None:
        """Return the event for a subscription with this view; None if it shows nothing of it."""
        known = view.keys, self._masking(view)
        if known not in self._rendered:
            self._rendered[known] = self._render(*known)
        return self._rendered[known]

    def _masking(self, view: View) -> Masking | None:
        if view.masking_of is None:
            return None
        before, after = self.change.before, self.change.after
        return view.masking(after.automation, None if before is None else before.automation)

    def _render(self, keys: Keys, masking: Masking | None) -> bytes | None:
        change, difference = self.change, self._difference
        if difference is None:
            return sse.gap(change.event_id, change.key)
        if keys is not None:
            difference = difference.restricted_to(keys)
            if difference.is_empty:
                return None
        if masking is not None:
            difference = difference.masked(masking)
        return sse.bucket(change.event_id, change.key, change.after.revision, difference)


def render_all(notifications: Iterable[Notification], view: View, limit: int) -> list[bytes] | None:
    """Return all notifications as rendered events, on any thread; None over ``limit`` bytes."""
    rendered, size = [], 0
    for notification in notifications:
        notification.prepare()
        if (event := notification.render(view)) is not None:
            rendered.append(event)
            size += len(event)
        if size > limit:
            return None
    return rendered
