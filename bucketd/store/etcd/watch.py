"""What changes in etcd, on any host: one watch of all buckets, while anybody here wants to know.

etcd keeps the history, so an event id is its revision, and a watch that broke goes on behind the
last one that it told. What was compacted away meanwhile is lost, and said to be.
A key of our own, put now and then, shows that the watch is alive, and where "now" is.
Source: https://etcd.io/docs/v3.5/learning/api/#watch-api.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

from ...errors import BucketdError
from ...model.bucket import ABSENT, BucketKey, Snapshot
from ..base import ChangeEvent, Subscriber
from . import keys
from .client import Gateway, Lost, b64
from .session import Session

log = logging.getLogger(__name__)
BEAT_SECONDS = 10.0
CATCHING_UP_SECONDS = 0.005  # between looks at whether the watch has
MOST_SCANNED = 16 * 1024 * 1024  # bytes of base64 that one resume looks through
Event = dict[str, Any]


class Compacted(Exception):
    """What was to be told is no longer there."""


async def watch(
    gateway: Gateway, begin: bytes, end: bytes, revision: int, deadline: float
) -> AsyncGenerator[list[Event], None]:
    """Events of a range from a revision on, as they come together; none at first, once it stands.

    Those of one revision come together. Raises Compacted, or Lost where it breaks off.
    """
    request = {
        "key": b64(begin),
        "range_end": b64(end),
        "start_revision": str(revision),
        "prev_kv": True,
        "fragment": True,  # else one answer may have a thousand revisions of whole buckets
    }
    rest: list[Event] = []
    stream = gateway.stream("/v3/watch", {"create_request": request}, deadline)
    async with contextlib.aclosing(stream) as answers:
        async for answer in answers:
            if compacted := int(answer.get("compact_revision", 0)):
                raise Compacted(str(compacted))
            if answer.get("canceled"):
                gateway.log_in_again()
                raise Lost(str(answer.get("cancel_reason", "it was cancelled")))
            events = rest + answer.get("events", [])
            rest = _of_the_last(events) if answer.get("fragment") else []
            yield events[: len(events) - len(rest)]


class EtcdWatch:
    """Tells a listener, from ``attend`` on and for as long as it wants anything."""

    def __init__(self, gateway: Gateway, presence: Session, prefix: str, timeout: float) -> None:
        self._gateway, self._prefix, self._timeout = gateway, prefix, timeout
        self._presence = presence
        self._beat = f"{prefix}beat/{presence.id}".encode()
        self._revision = 0  # up to which all is told
        self._listener: Subscriber | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._limit: asyncio.Timeout | None = None  # by when the watch has to tell of something
        self._warned = False  # since it last stood

    @property
    def event_id(self) -> str:
        return str(self._revision)

    @property
    def _follows(self) -> bool:
        return self._task is not None and not self._task.done()

    def subscribe(self, listener: Subscriber) -> None:
        self._listener = listener

    async def wait_until_watching(self) -> None:
        """Return once all that changes from then on is told. Raises BucketdError or Lost."""
        if not self._follows:
            revision = await self._put_beat()
            if not self._follows:  # still: others may have come meanwhile
                self._revision = revision
                self._ready.clear()
                self._task = asyncio.create_task(self._follow())
        async with asyncio.timeout(self._timeout):
            await self._ready.wait()

    async def changes_after(self, event_id: str, key: BucketKey | None) -> list[ChangeEvent] | None:
        """See ``Store.since``. Raises BucketdError or Lost."""
        after, until = _number(event_id), await self._put_beat()
        if after is None or after > until:
            return None  # none, or of another cluster
        if after == self._revision:
            return []
        try:
            async with asyncio.timeout(self._timeout):
                return await self._between(after, until, key)
        except (Compacted, TimeoutError):
            return None

    async def _between(
        self, after: int, until: int, key: BucketKey | None
    ) -> list[ChangeEvent] | None:
        """Changes with these event_ids, the last included; None where it would take too much."""
        found: list[ChangeEvent] = []
        scanned = 0
        async for events in self._events(after + 1):
            found += self._changes(events, key)
            if any(_revision(event) >= until for event in events):
                return [c for c in found if int(c.event_id) <= until]
            scanned += sum(map(_size, events))
            if scanned > MOST_SCANNED:
                return None
        return None

    async def catch_up(self) -> None:
        """See ``Store.catch_up``. Raises BucketdError, Lost or TimeoutError."""
        if self._follows:
            await self._told_up_to(await self._put_beat(), self._timeout)

    async def _told_up_to(self, revision: int, seconds: float) -> None:
        """Return once the listener has been told so far. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while self._revision < revision and self._follows:
                await asyncio.sleep(CATCHING_UP_SECONDS)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        """Tell of everything, on one watch after another, until nobody wants it."""
        assert self._listener is not None  # noqa: S101  (it asked for this)
        while self._listener.interests != frozenset():
            try:
                await self._tell_from(self._revision + 1)
            except Compacted as error:
                log.warning("watchers have missed changes: etcd has compacted its history")
                self._revision = int(str(error))
                self._listener.lost()
            except (BucketdError, Lost, TimeoutError) as error:
                level = logging.DEBUG if self._warned else logging.WARNING
                log.log(level, "the watch of etcd broke, and is made anew: %s", error)
                self._warned = True
                await self._gateway.pause()

    async def _tell_from(self, revision: int) -> None:
        assert self._listener is not None  # noqa: S101  (see above)
        beating = asyncio.create_task(self._beats())
        try:
            stream = self._events(revision)
            while True:
                async with asyncio.timeout(BEAT_SECONDS + self._timeout) as self._limit:
                    events = await anext(stream)
                self._limit = None
                self._warned = False
                self._ready.set()
                for changed in self._changes(events, None):
                    self._listener.tell(changed)
                    self._revision = int(changed.event_id)
                self._revision = max([self._revision, *map(_revision, events)])
                if self._listener.interests == frozenset():
                    return
        finally:
            self._limit = None
            beating.cancel()

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with contextlib.suppress(BucketdError, Lost):
                await self._put_beat()

    async def _put_beat(self) -> int:
        """Put the key that is ours; the revision of that. The watch tells of it, or it hangs."""
        answer = await self._presence.put(self._beat)
        soon = self._deadline()
        limit = self._limit
        if limit is not None and not limit.expired() and soon < (limit.when() or 0):
            limit.reschedule(soon)
        return int(answer["header"]["revision"])

    def _events(self, revision: int) -> AsyncGenerator[list[Event], None]:
        begin, end = keys.everything(self._prefix)
        return watch(self._gateway, begin, end, revision, self._deadline())

    def _changes(self, events: list[Event], only: BucketKey | None) -> list[ChangeEvent]:
        """Those that are of buckets; with ``only`` of that one."""
        found = []
        for event in events:
            key = keys.named(self._prefix, base64.b64decode(event["kv"]["key"]), event)
            if key is not None and only in (None, key):
                before, after = _states(event)
                found.append(ChangeEvent(key, before, after, event["kv"]["mod_revision"]))
        return found

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout


def includes(event_id: str, changed: ChangeEvent) -> bool:
    """See ``Store.covers``: an event id of one endpoint may be ahead of a watch on another."""
    number = _number(event_id)
    return number is not None and int(changed.place) <= number


def _number(event_id: str) -> int | None:
    return (
        int(event_id)
        if event_id.isascii() and event_id.isdecimal() and len(event_id) < 20
        else None
    )


def _revision(event: Event) -> int:
    return int(event["kv"]["mod_revision"])


def _of_the_last(events: list[Event]) -> list[Event]:
    """Those of the last revision."""
    return [event for event in events if _revision(event) == _revision(events[-1])]


def _size(event: Event) -> int:
    """Of both values, as they came."""
    before = event.get("prev_kv") or {}
    return len(event["kv"].get("value", "")) + len(before.get("value", ""))


def _states(event: Event) -> tuple[Snapshot | None, Snapshot]:
    """The bucket before, where that is known, and after."""
    before = keys.snapshot(event.get("prev_kv"))
    if event.get("type") == "DELETE":
        return before, ABSENT
    if int(event["kv"].get("version", 0)) == 1:
        before = ABSENT
    return before, keys.snapshot(event["kv"]) or ABSENT
