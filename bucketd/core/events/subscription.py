"""Event streams: the filter, the start, the resumption after an event id, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from ...concurrency import offload
from ...model.bucket import BucketKey, Snapshot
from ...store.base import ChangeEvent, Filter, Store, settled
from ...store.holds import Hold
from . import sse
from .diff import Difference
from .notification import Notification, View, render_all

# Notifications to buffer until the stream starts.
MAX_BUFFERED = 1000
# A client that has missed more bytes of events gets a gap.
MAX_RESUMED_BYTES = 2 * 1024 * 1024


class EventFilter(NamedTuple):
    """Select changes: of one bucket or, with ``key`` None, of all buckets that ``names`` selects.

    ``view`` is what is shown of them; a change of other keys than it shows is not selected. With
    ``holds``, select also who takes, waits for and releases holds of these buckets, and of their
    devices.
    """

    key: BucketKey | None = None
    names: Filter = Filter()
    view: View = View()
    holds: bool = False

    def matches(self, change: ChangeEvent) -> bool:
        """Report whether the bucket of a change is selected."""
        # A deleted bucket no longer has an automation.
        automation = change.after.automation
        if automation is None and change.before is not None:
            automation = change.before.automation
        return self.names.matches(*change.key, automation)

    def matches_hold(self, hold: Hold) -> bool:
        """Report whether a hold is selected. A device bucket belongs to all jobs of its device."""
        if self.key is None:
            return self.names.matches(*hold.key, hold.owner.automation)
        same_job = None in (hold.key.job, self.key.job) or hold.key.job == self.key.job
        return same_job and hold.key.device == self.key.device


class Subscription:
    """An event stream. It buffers notifications until ``start``, and sends them from then on.

    ``event_id`` returns the event id of the newest published change. ``remove`` takes a closed
    subscription out of the hub; then ``ended`` is done.
    """

    def __init__(
        self,
        only: EventFilter,
        store: Store,
        event_id: Callable[[], str],
        remove: Callable[[Subscription], None],
    ) -> None:
        self.only, self._store, self._event_id, self._remove = only, store, event_id, remove
        # The stream ends with this job context.
        self.context: str | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head: list[bytes] = []
        self._buffer: list[Notification] | None = []
        self._has_gap = False
        self._send: Callable[[bytes], None] = self._head.append
        # The snapshot that the head begins with, until a change arrives that is not part of it.
        self._snapshot: Snapshot | None = None
        # The client's Last-Event-ID, if the stream has resumed after it.
        self._resumed_after: str | None = None
        # By shard, the changes in the head; and the shards that have published a later change.
        self._resumed: dict[int, set[str]] = {}
        self._caught_up: set[int] = set()

    async def prepare(self, last_event_id: str | None, snapshot: bool) -> None:
        """Prepare the head of the stream. Raises BucketdError."""
        key = self.only.key
        await self._store.wait_until_watching(key)
        self._head.append(sse.RETRY)
        if last_event_id is None:
            self._head.append(sse.event_id_only(self._event_id()))
        elif await self._resume(last_event_id):
            return
        else:
            self._head.append(sse.gap(self._event_id(), key))
        if snapshot and key is not None:
            now = self._snapshot = await settled(self._store.read(key))
            event_id = self._event_id()
            self._head.append(await offload(self._snapshot_event, event_id, key, now))

    def _snapshot_event(self, event_id: str, key: BucketKey, now: Snapshot) -> bytes:
        view = self.only.view
        difference = Difference.from_nothing(now, view.keys)
        if (masking := view.masking(now.automation)) is not None:
            difference = difference.masked(masking)
        return sse.bucket(event_id, key, now.revision, difference)

    async def _resume(self, last_event_id: str) -> bool:
        """Add the changes after an event id to the head; return False if unknown or too large."""
        changes = await self._store.changes_after(last_event_id, self.only.key)
        if changes is None:
            return False
        matching = (Notification(change) for change in changes if self.only.matches(change))
        missed = await offload(render_all, matching, self.only.view, MAX_RESUMED_BYTES)
        if missed is None:
            return False
        self._head += missed
        self._resumed_after = last_event_id
        for change in changes:
            self._resumed.setdefault(change.shard, set()).add(change.place)
        if changes:
            self._head.append(sse.event_id_only(changes[-1].event_id))
        return True

    def start(self, send: Callable[[bytes], None]) -> None:
        """Send the head and the buffered notifications, and each later one as it comes."""
        buffered, self._buffer = self._buffer or [], None
        send(b"".join(self._head))
        self._head.clear()
        self._send = send
        for notification in buffered:
            self.deliver(notification)
        if self._has_gap:
            send(sse.gap(self._event_id(), self.only.key))

    def deliver(self, notification: Notification) -> None:
        """Send a change, unless the head contains it or it touches none of the keys."""
        if self.ended.done():
            return
        if self._buffer is not None:
            if len(self._buffer) < MAX_BUFFERED:
                self._buffer.append(notification)
            else:
                self._has_gap = True
            return
        if self._is_resumed(notification.change) or self._is_in_snapshot(notification.change):
            return
        event = notification.render(self.only.view)
        if event is not None:
            self._send(event)

    def _is_resumed(self, change: ChangeEvent) -> bool:
        """Report whether the client has received the change, in this head or its last stream."""
        after, shard = self._resumed_after, change.shard
        # The changes of a shard arrive in order, so all changes after the first new one are new.
        if after is None or shard in self._caught_up:
            return False
        if change.place in self._resumed.get(shard, ()) or self._store.includes(after, change):
            return True
        self._caught_up.add(shard)
        self._resumed.pop(shard, None)
        return False

    def _is_in_snapshot(self, change: ChangeEvent) -> bool:
        """Report whether the snapshot contains the change, which may be published after a read."""
        now, before, after = self._snapshot, change.before, change.after
        if now is None:
            return False
        if after.etag == now.etag:
            self._snapshot = None
            return True
        if before is None or before.etag == now.etag or after.revision > now.revision:
            self._snapshot = None
            return False
        return True

    def send(self, event: bytes) -> None:
        """Send an event that is not a change; drop it if the stream has not started."""
        if self._buffer is None and not self.ended.done():
            self._send(event)

    def send_hold(self, hold: Hold, change: str) -> None:
        """Send what has happened to a hold, if it is selected."""
        if self.only.matches_hold(hold) and not self.ended.done():
            # Without an id: it is no change of a bucket, so nobody can resume from it.
            event = sse.announcement("hold", {"change": change, **hold.row()})
            if self._buffer is None:
                self._send(event)
            else:
                self._head.append(event)

    def send_gap(self) -> None:
        """Send a gap: the client misses changes that cannot be delivered."""
        self._has_gap = True
        self.send(sse.gap(self._event_id(), self.only.key))

    def on_end_of_input(self) -> None:
        """Go on: whoever sends nothing more may still read."""

    def close(self) -> None:
        """End the stream. A second call does nothing."""
        self._remove(self)
        # A reference to the connection would be a cycle.
        self._send = self._head.append
        if not self.ended.done():
            self.ended.set_result(None)
