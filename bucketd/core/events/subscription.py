"""One stream of events: how it begins, goes on where another broke off, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import orjson

from ...concurrency import offload
from ...model.bucket import BucketKey, Snapshot
from ...store.base import ChangeEvent, Filter, Store, settled
from . import sse
from .sse import Difference, Notification

MOST_HELD = 1000
MOST_MISSED = 2 * 1024 * 1024  # bytes of events; whoever missed more is told of a gap


class Only(NamedTuple):
    """What a watcher wants to hear of: one bucket or, with ``key`` None, those that match.

    ``members``: changes of these keys of the bucket alone.
    """

    key: BucketKey | None = None
    device: str | None = None
    job: str | None = None
    automation: str | None = None
    members: frozenset[str] | None = None

    def matches(self, changed: ChangeEvent) -> bool:
        automation = changed.after.automation
        if automation is None and changed.before is not None:
            automation = changed.before.automation
        return self.names(*changed.key, automation)

    def names(self, device: str, job: str | None, automation: str | None) -> bool:
        """Whether it wants to hear of these."""
        return Filter(self.device, self.job, self.automation).matches(device, job, automation)


class Watcher:
    """One stream. Until ``begin`` it holds what it is told; from then on it sends it.

    ``event_id`` gives that of the newest change that all were told of; ``leave`` is called once
    there is nothing more to come, and then ``ended`` is done.
    """

    def __init__(
        self,
        only: Only,
        store: Store,
        event_id: Callable[[], str],
        leave: Callable[[Watcher], None],
    ) -> None:
        self.only, self._store, self._event_id, self._leave = only, store, event_id, leave
        self.context: str | None = None  # whose end is the stream's, too
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first: list[bytes] = []
        self._held: list[Notification] | None = []
        self._missed = False
        self._send: Callable[[bytes], None] = self.first.append
        # Whether this is told already, by what the stream began with; None: not any more.
        self._known: Callable[[ChangeEvent], bool | None] | None = None
        self._since: str | None = None  # where it has resumed
        self._seen: dict[int, set[str]] = {}  # by shard: what was told of it on resuming
        self._new: set[int] = set()  # the shards of which something was told that came after that

    async def sync(self, since: str | None, snapshot: bool) -> None:
        """Prepare how the stream begins. Raises BucketdError where it cannot."""
        key = self.only.key
        await self._store.wait_until_watching(key)
        self.first.append(sse.RETRY)
        if since is None:
            self.first.append(sse.here(self._event_id()))
        elif await self._resume(since):
            return
        else:
            self.first.append(sse.gap(self._event_id(), key))
        if snapshot and key is not None:
            now = await settled(self._store.read(key))
            self._known = lambda changed: _covers(now, changed)
            event_id = self._event_id()
            self.first.append(await offload(self._snapshot, event_id, key, now))

    def _snapshot(self, event_id: str, key: BucketKey, now: Snapshot) -> bytes:
        """The whole bucket as an event; beside the loop, for it may be large."""
        found = Difference(orjson.loads(now.bucket), [])
        if self.only.members is not None:
            found = found.among(self.only.members)
        return sse.event(event_id, key, now.revision, found)

    async def _resume(self, since: str) -> bool:
        """What happened after ``since``; False where that is not known, or too much."""
        changes = await self._store.changes_after(since, self.only.key)
        if changes is None:
            return False
        wanted = (Notification(changed) for changed in changes if self.only.matches(changed))
        missed = await offload(sse.prepare_all, wanted, self.only.members, MOST_MISSED)
        if missed is None:
            return False
        self.first += missed
        self._since = since
        for changed in changes:
            self._seen.setdefault(changed.shard, set()).add(changed.place)
        if changes:
            self.first.append(sse.here(changes[-1].event_id))
        return True

    def begin(self, send: Callable[[bytes], None]) -> None:
        """Send what was prepared and held, and all that follows."""
        held, self._held = self._held or [], None
        send(b"".join(self.first))
        self.first.clear()
        self._send = send
        for told in held:
            self.offer(told)
        if self._missed:
            send(sse.gap(self._event_id(), self.only.key))

    def offer(self, told: Notification) -> None:
        """Send it, unless it does not concern this watcher."""
        if self.ended.done():
            return
        if self._held is not None:
            self._hold(told)
            return
        if self._since is not None and self._told_before(self._since, told.changed):
            return
        if self._known is not None:
            known = self._known(told.changed)
            if known is not True:
                self._known = None
            if known is not None:
                return
        frame = told.frame(self.only.members)
        if frame is not None:
            self._send(frame)

    def _told_before(self, since: str, changed: ChangeEvent) -> bool:
        """On resuming, or until then. In the order of its shard, what follows is new."""
        shard = changed.shard
        if shard in self._new:
            return False
        if changed.place in self._seen.get(shard, ()) or self._store.includes(since, changed):
            return True
        self._new.add(shard)
        self._seen.pop(shard, None)
        return False

    def send(self, frame: bytes) -> None:
        """Something that is no change; nothing while the stream has not begun."""
        if self._held is None and not self.ended.done():
            self._send(frame)

    def miss(self) -> None:
        """Changes were made that it cannot be told of."""
        self._missed = True
        self.send(sse.gap(self._event_id(), self.only.key))

    def close(self) -> None:
        """Nothing more is to come. Again is no harm."""
        self._leave(self)
        self._send = self.first.append  # so that this is no cycle with its connection
        if not self.ended.done():
            self.ended.set_result(None)

    def _hold(self, told: Notification) -> None:
        assert self._held is not None  # noqa: S101  (as it was asked before)
        if len(self._held) < MOST_HELD:
            self._held.append(told)
        else:
            self._missed = True


def _covers(now: Snapshot, changed: ChangeEvent) -> bool | None:
    """Whether a snapshot has this change: True, or False for the last one; None: it comes after.

    Changes may be told of a moment after they can be read.
    """
    before, after = changed.before, changed.after
    if after.etag == now.etag:
        return False
    if before is None or before.etag == now.etag or after.revision > now.revision:
        return None
    return True
