"""Publish the changes that any host makes in etcd: one watch of all buckets, while it is needed.

etcd keeps the history, so an event id is etcd's revision, and a watch that broke is resumed after
the last revision that was published. If etcd has compacted that history, a gap is published. This
host puts a heartbeat key at intervals, which shows that the watch works and what revision it is at.
Source: https://etcd.io/docs/v3.5/learning/api/#watch-api.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

from ...errors import BucketdError
from ...model.bucket import ABSENT, BucketKey, Snapshot
from ..base import ChangeEvent, Subscriber
from . import keys
from .client import RETRY_PAUSE_SECONDS, EtcdClient, Unavailable, b64
from .session import Session

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 10.0
_CATCH_UP_POLL_SECONDS = 0.005
# The base64 to read at most for one resumed stream.
_MAX_SCANNED_BYTES = 16 * 1024 * 1024
Event = dict[str, Any]


class Compacted(Exception):
    """etcd no longer has the events up to ``revision``."""

    def __init__(self, revision: int) -> None:
        super().__init__("etcd has compacted its history")
        self.revision = revision


async def watch(
    client: EtcdClient, begin: bytes, end: bytes, revision: int
) -> AsyncGenerator[list[Event], None]:
    """Yield the events of a range from a revision on; an empty list once the watch is in place.

    Events of one revision come together. Raises Compacted, BucketdError, or Unavailable if the
    watch breaks off.
    """
    request = {
        "key": b64(begin),
        "range_end": b64(end),
        "start_revision": str(revision),
        "prev_kv": True,
        # Without fragments one answer may contain a thousand revisions of whole buckets.
        "fragment": True,
    }
    incomplete: list[Event] = []
    stream = client.stream("/v3/watch", {"create_request": request}, client.deadline())
    async with contextlib.aclosing(stream) as answers:
        async for answer in answers:
            if compacted := int(answer.get("compact_revision", 0)):
                raise Compacted(compacted)
            if answer.get("canceled"):
                client.forget_token()
                raise Unavailable("cannot follow changes in etcd: it cancelled the watch")
            events = incomplete + answer.get("events", [])
            last = _revision(events[-1]) if events else 0
            incomplete = []
            if answer.get("fragment"):
                incomplete = [event for event in events if _revision(event) == last]
            yield events[: len(events) - len(incomplete)]


class Watch:
    """Publish changes to one subscriber, from ``wait_until_watching`` on while it has interests.

    ``problem`` says why nothing is published although the subscriber has interests.
    """

    def __init__(self, client: EtcdClient, session: Session) -> None:
        self._client, self._session = client, session
        self._prefix, self._timeout = client.options.prefix, client.options.timeout
        self._heartbeat = f"{self._prefix}beat/{session.id}".encode()
        # All changes up to this revision are published.
        self._revision = 0
        self._subscriber: Subscriber | None = None
        self._task: asyncio.Task[None] | None = None
        self._in_place = asyncio.Event()
        self._silence_limit: asyncio.Timeout | None = None
        self.problem: str | None = None

    @property
    def event_id(self) -> str:
        return str(self._revision)

    @property
    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber

    async def wait_until_watching(self) -> None:
        """Return once every later change will be published.

        Raises BucketdError, Unavailable or TimeoutError.
        """
        if not self._running:
            revision = await self._put_heartbeat()
            # Another call may have started the task meanwhile.
            if not self._running:
                self._revision = revision
                self._in_place.clear()
                self._task = asyncio.create_task(self._publish_while_needed())
        async with asyncio.timeout(self._timeout):
            await self._in_place.wait()

    async def changes_after(self, event_id: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        """See ``Store.changes_after``. Raises BucketdError or Unavailable."""
        after, until = _parse(event_id), await self._put_heartbeat()
        if after is None or after > until:
            # The id is not valid, or belongs to another cluster.
            return None
        if after == self._revision:
            return []
        try:
            async with asyncio.timeout(self._timeout):
                return await self._changes_between(after, until, key)
        except (Compacted, TimeoutError):
            return None

    async def _changes_between(
        self, after: int, until: int, only: BucketKey | None
    ) -> list[ChangeEvent] | None:
        """Return the changes in ``after < revision <= until``; None if they are too large."""
        found: list[ChangeEvent] = []
        scanned = 0
        async with contextlib.aclosing(self._events(after + 1)) as batches:
            async for events in batches:
                for event in events:
                    if _revision(event) > until:
                        break
                    key = keys.bucket_of_event(self._prefix, event)
                    if key is not None and only in (None, key):
                        change = self._change(key, event)
                        if change is None:
                            return None
                        found.append(change)
                if events and _revision(events[-1]) >= until:
                    return found
                scanned += sum(map(_size, events))
                if scanned > _MAX_SCANNED_BYTES:
                    return None
        return None

    async def catch_up(self) -> None:
        """See ``Store.catch_up``. Raises BucketdError, Unavailable or TimeoutError."""
        if not self._running:
            return
        revision = await self._put_heartbeat()
        async with asyncio.timeout(self._timeout):
            while self._revision < revision and self._running:
                await asyncio.sleep(_CATCH_UP_POLL_SECONDS)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _publish_while_needed(self) -> None:
        """Publish all changes, with one watch after another, while the subscriber has interests."""
        subscriber = self._subscriber
        assert subscriber is not None  # noqa: S101  (it asked for this)
        while subscriber.interests != frozenset():
            try:
                await self._publish_from(self._revision + 1, subscriber)
            except Compacted as error:
                log.warning("watchers have missed changes: etcd has compacted its history")
                self._revision = error.revision
                subscriber.gap()
            except (BucketdError, Unavailable, TimeoutError) as error:
                cause = str(error) or "it sends no events"
                level = logging.DEBUG if self.problem else logging.WARNING
                log.log(level, "the watch of etcd broke, and is started again: %s", cause)
                self.problem = f"cannot watch etcd: {cause}; trying again"
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
            except Exception as error:
                level = logging.DEBUG if self.problem else logging.ERROR
                log.log(level, "unexpected error in the watch of etcd", exc_info=error)
                self.problem = (
                    f"cannot watch etcd: unexpected error ({type(error).__name__}); the log has it"
                )
                await asyncio.sleep(self._timeout)
        self.problem = None

    async def _publish_from(self, revision: int, subscriber: Subscriber) -> None:
        heartbeats = asyncio.create_task(self._put_heartbeats())
        try:
            async with contextlib.aclosing(self._events(revision)) as batches:
                while subscriber.interests != frozenset():
                    limit = HEARTBEAT_SECONDS + self._timeout
                    async with asyncio.timeout(limit) as self._silence_limit:
                        events = await anext(batches)
                    self._silence_limit = None
                    self._publish(events, subscriber)
                    self.problem = None
                    self._in_place.set()
        finally:
            self._silence_limit = None
            heartbeats.cancel()

    def _publish(self, events: list[Event], subscriber: Subscriber) -> None:
        for event in events:
            try:
                key = keys.bucket_of_event(self._prefix, event)
                change = None if key is None else self._change(key, event)
                if change is not None:
                    subscriber.publish(change)
                elif key is not None:
                    log.warning("watchers have missed a change: the value of %s is not valid", key)
                    subscriber.gap()
            except Exception:
                # An event that cannot be published must not prevent the later ones.
                log.exception("unexpected error while publishing a change; watchers have missed it")
                subscriber.gap()
            self._revision = max(self._revision, _revision(event))

    async def _put_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            # Without heartbeats the watch has no events, and so is started again.
            with contextlib.suppress(BucketdError, Unavailable):
                await self._put_heartbeat()

    async def _put_heartbeat(self) -> int:
        """Put the heartbeat and return its revision; the watch has to report it by the deadline."""
        answer = await self._session.put_with_lease(self._heartbeat)
        deadline, limit = self._client.deadline(), self._silence_limit
        if limit is not None and not limit.expired() and deadline < (limit.when() or 0):
            limit.reschedule(deadline)
        return int(answer["header"]["revision"])

    def _events(self, revision: int) -> AsyncGenerator[list[Event], None]:
        begin, end = keys.prefix_range(self._prefix)
        return watch(self._client, begin, end, revision)

    def _change(self, key: BucketKey, event: Event) -> ChangeEvent | None:
        """Return the change of a bucket; None if its new value is not a valid bucket."""
        kv = event["kv"]
        before: Snapshot | None = None
        with contextlib.suppress(keys.NotABucket):
            before = keys.decode(self._prefix, event.get("prev_kv") or {})[1]
        if event.get("type") == "DELETE":
            return ChangeEvent(key, before, ABSENT, kv["mod_revision"])
        if int(kv.get("version", 0)) == 1:
            before = ABSENT
        try:
            after = keys.decode(self._prefix, kv)[1]
        except keys.NotABucket:
            return None
        return ChangeEvent(key, before, after, kv["mod_revision"])


def includes(event_id: str, changed: ChangeEvent) -> bool:
    """See ``Store.includes``: the id may be ahead of the watch, which uses another endpoint."""
    number = _parse(event_id)
    return number is not None and int(changed.place) <= number


def _parse(event_id: str) -> int | None:
    valid = event_id.isascii() and event_id.isdecimal() and len(event_id) < 20
    return int(event_id) if valid else None


def _revision(event: Event) -> int:
    return int(event["kv"]["mod_revision"])


def _size(event: Event) -> int:
    """Return the size of both values in base64."""
    before = event.get("prev_kv") or {}
    return len(event["kv"].get("value", "")) + len(before.get("value", ""))
