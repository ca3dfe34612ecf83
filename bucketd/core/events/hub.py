"""All subscriptions of one daemon, and the delivery of changes to them.

    store ── publish ──→ Hub: one task, in the order of all changes ──→ Subscription ──→ connection

A heartbeat shows that a stream works. It carries the newest event id, so that a client also resumes
after changes that its filter left out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Set
from typing import Any

from ...concurrency import offload
from ...errors import Overloaded
from ...model.bucket import BucketKey
from ...store.base import ChangeEvent, Store
from ...store.holds import TAKEN, WAITING, Hold
from . import sse
from .notification import Notification
from .subscription import EventFilter, Subscription

log = logging.getLogger(__name__)
# The delivery lets other tasks of the loop run after so many events, or after so long.
BATCH_SIZE = 64
TURN_SECONDS = 0.005
# The pause between the batches of one change, unless other changes wait. The clients that received
# the event run meanwhile; on a machine with few cores requests for other buckets need a core, too.
PAUSE_SECONDS = 0.001
# Limits for the changes that are not delivered yet.
MAX_PENDING = 2000
MAX_PENDING_BYTES = 64 * 1024 * 1024


class Hub:
    """All subscriptions of one daemon, at most ``max_subscriptions``. Use on its event loop."""

    def __init__(self, store: Store, max_subscriptions: int, heartbeat_seconds: float) -> None:
        self.store, self.max_subscriptions = store, max_subscriptions
        self.heartbeat_seconds = heartbeat_seconds
        # Subscriptions by the bucket that they select (None: all buckets), the oldest first.
        self._subscriptions: dict[BucketKey | None, dict[Subscription, None]] = {}
        # The subscriptions that select holds, too.
        self._of_holds: dict[Subscription, None] = {}
        self._count = 0
        self._pending: deque[ChangeEvent] = deque()
        self._pending_bytes = 0
        self._delivery: asyncio.Task[None] | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        # The event id of the newest delivered change; valid while the delivery runs.
        self._delivered = ""
        store.subscribe(self)

    def __len__(self) -> int:
        return self._count

    @property
    def event_id(self) -> str:
        """Return the event id of the newest change that was delivered to all subscriptions."""
        return self.store.event_id if self._delivery is None else self._delivered

    @property
    def interests(self) -> Set[BucketKey] | None:
        """Return the buckets that subscriptions select; None: all."""
        if None in self._subscriptions:
            return None
        return frozenset(self._subscriptions)  # type: ignore[arg-type]  # None is not among them

    @property
    def watched_by_operators(self) -> bool:
        """Report whether a subscription selects all buckets."""
        return None in self._subscriptions

    def open(self, only: EventFilter) -> Subscription:
        """Return a subscription to all later changes; raise Overloaded at the limit."""
        if self._count >= self.max_subscriptions:
            raise Overloaded(
                f"cannot watch: there are {self._count} event streams, and "
                "[limits] max_watchers allows no more; end one, or try again"
            )
        subscription = Subscription(only, self.store, lambda: self.event_id, self.remove)
        self._subscriptions.setdefault(only.key, {})[subscription] = None
        self._count += 1
        if self._heartbeat is None:
            self._schedule_heartbeat()
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription; a second call does nothing."""
        key = subscription.only.key
        same_key = self._subscriptions.get(key, {})
        if subscription in same_key:
            del same_key[subscription]
            self._of_holds.pop(subscription, None)
            self._count -= 1
            if not same_key:
                del self._subscriptions[key]

    def publish(self, change: ChangeEvent) -> None:
        """Schedule the delivery of a change to the subscriptions that select it."""
        if change.key not in self._subscriptions and None not in self._subscriptions:
            return
        # An equal ETag means that an unreadable file was restored to its published state.
        if change.before is not None and change.before.etag == change.after.etag:
            return
        if self._delivery is None:
            self._delivered = self.store.event_id
            self._delivery = asyncio.get_running_loop().create_task(self._deliver())
        self._pending.append(change)
        self._pending_bytes += change.after.bucket.size
        if len(self._pending) > MAX_PENDING or self._pending_bytes > MAX_PENDING_BYTES:
            log.warning("changes come faster than they can be delivered: watchers get a gap")
            self.gap()

    def gap(self) -> None:
        """Drop the changes that wait, and send all subscriptions a gap."""
        self._pending.clear()
        self._pending_bytes = 0
        for subscription in self._all():
            subscription.send_gap()

    def end(self, context: str | None) -> None:
        """Close the streams that were opened with this context or, with None, by operators."""
        for subscription in self._all():
            if subscription.context == context:
                subscription.close()

    def announce(self, event: str, data: dict[str, Any]) -> None:
        """Send an event that is not a change to those who watch all buckets, by its names."""
        encoded = sse.announcement(event, data)
        names = (data["device"], data["job"], data["automation"])
        for subscription in list(self._subscriptions.get(None, ())):
            if subscription.only.names.matches(*names):
                subscription.send(encoded)

    def send_holds_to(self, subscription: Subscription, holds: Iterable[Hold]) -> None:
        """Send all holds and waiters that there are, and from now on what happens to any."""
        for hold in holds:
            subscription.send_hold(hold, TAKEN if hold.held else WAITING)
        if not subscription.ended.done():
            self._of_holds[subscription] = None

    def publish_hold(self, hold: Hold, change: str) -> None:
        """Send what has happened to a hold to those who select it."""
        for subscription in list(self._of_holds):
            subscription.send_hold(hold, change)

    async def close(self) -> None:
        """Deliver the changes that wait, then end all streams."""
        if self._count:
            await self.store.catch_up()
        if self._delivery is not None:
            await self._delivery
        for subscription in self._all():
            subscription.close()
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    async def _deliver(self) -> None:
        try:
            await self._deliver_pending()
        except Exception:
            log.exception("unexpected error while delivering changes; watchers get a gap")
            self.gap()
        finally:
            self._delivery = None

    async def _deliver_pending(self) -> None:
        delivered = 0
        while self._pending:
            change = self._pending[0]
            notification = Notification(change)
            offloaded = notification.offloaded
            if offloaded:
                await offload(notification.prepare)
            else:
                notification.prepare()
            subscriptions = self._selecting(change)
            for view in {each.only.view for each in subscriptions if each.only.view.masking_of}:
                if notification.is_slow(view):
                    await offload(notification.render, view)
            pause = PAUSE_SECONDS if len(subscriptions) > BATCH_SIZE and not offloaded else 0
            began = time.monotonic()
            for subscription in subscriptions:
                subscription.deliver(notification)
                delivered += 1
                # Rendering takes time where each subscription selects other keys.
                is_over = time.monotonic() - began > TURN_SECONDS
                if offloaded or is_over or delivered % BATCH_SIZE == 0:
                    await asyncio.sleep(pause if len(self._pending) == 1 else 0)
                    began = time.monotonic()
            self._delivered = change.event_id
            # A gap may have emptied the queue meanwhile.
            if self._pending and self._pending[0] is change:
                self._pending.popleft()
                self._pending_bytes -= change.after.bucket.size

    def _selecting(self, change: ChangeEvent) -> list[Subscription]:
        """Return the subscriptions to the bucket of a change, then those to many buckets."""
        to_many = self._subscriptions.get(None, ())
        return [
            *self._subscriptions.get(change.key, ()),
            *(subscription for subscription in to_many if subscription.only.matches(change)),
        ]

    def _all(self) -> list[Subscription]:
        return [one for same_key in self._subscriptions.values() for one in same_key]

    def _schedule_heartbeat(self) -> None:
        loop = asyncio.get_running_loop()
        self._heartbeat = loop.call_later(self.heartbeat_seconds, self._start_heartbeat)

    def _start_heartbeat(self) -> None:
        self._heartbeat = None
        if self._count:
            self._schedule_heartbeat()
            self._send_heartbeats(iter(self._all()))

    def _send_heartbeats(self, subscriptions: Iterator[Subscription]) -> None:
        heartbeat = sse.HEARTBEAT + sse.event_id_only(self.event_id)
        for count, subscription in enumerate(subscriptions, 1):
            subscription.send(heartbeat)
            if count == BATCH_SIZE:
                later = asyncio.get_running_loop().call_later
                later(PAUSE_SECONDS, self._send_heartbeats, subscriptions)
                return
