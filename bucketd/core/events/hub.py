"""Who watches which bucket, and how changes get to them.

    store ── tell ──→ Hub: one pump, in the order of all changes ──→ Watcher ── send ──→ connection

A comment now and then shows that a stream lives; its id moves on what a watcher resumes from,
past changes that do not concern it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Set
from typing import Any

import orjson

from ...concurrency import offload
from ...errors import Overloaded
from ...model.bucket import BucketKey
from ...store.base import ChangeEvent, Store
from . import sse
from .sse import Notification
from .subscription import Only, Watcher

log = logging.getLogger(__name__)
AT_ONCE = 64  # events written before others get a turn
# And then none are for a moment, unless more changes wait: those who were told have to run as
# well, and whoever asks for another bucket meanwhile would get no core of a few.
PAUSE_SECONDS = 0.001
TURN_SECONDS = 0.005  # after which others get one as well
MOST_PENDING = 2000  # changes that nobody was told of yet
MOST_PENDING_BYTES = 64 * 1024 * 1024


class Hub:
    """All watchers of one daemon, of whom there may be ``most``. Use on its event loop."""

    def __init__(self, store: Store, most: int, heartbeat_seconds: float) -> None:
        self.store, self.most, self.heartbeat_seconds = store, most, heartbeat_seconds
        self._watchers: dict[BucketKey | None, dict[Watcher, None]] = {}
        self._count = 0
        self._pending: deque[ChangeEvent] = deque()
        self._pending_bytes = 0
        self._pump: asyncio.Task[None] | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._told = ""  # while the pump runs: the event id of what all have been told
        store.subscribe(self)

    def __len__(self) -> int:
        return self._count

    @property
    def event_id(self) -> str:
        """Of the newest change that all watchers have been told of."""
        return self.store.event_id if self._pump is None else self._told

    @property
    def interests(self) -> Set[BucketKey] | None:
        if None in self._watchers:
            return None
        return frozenset(self._watchers)  # type: ignore[arg-type]  # as None is not among them

    def open(self, only: Only) -> Watcher:
        """One more, from this moment on; Overloaded where there are too many."""
        if self._count >= self.most:
            raise Overloaded(
                f"cannot watch: there are {self._count} event streams, which is all that "
                "[limits] max_watchers allows; end one, or try again"
            )
        watcher = Watcher(only, self.store, lambda: self.event_id, self.remove)
        self._watchers.setdefault(only.key, {})[watcher] = None
        self._count += 1
        if self._beat is None:
            self._beat_later()
        return watcher

    def remove(self, watcher: Watcher) -> None:
        among = self._watchers.get(watcher.only.key, {})
        if watcher in among:
            del among[watcher]
            self._count -= 1
            if not among:
                del self._watchers[watcher.only.key]

    def tell(self, changed: ChangeEvent) -> None:
        if not self._watchers or (changed.key not in self._watchers and None not in self._watchers):
            return
        if changed.before is not None and changed.before.etag == changed.after.etag:
            return  # what could not be read was healed: nobody has seen anything else
        if self._pump is None:
            self._told = self.store.event_id
            self._pump = asyncio.get_running_loop().create_task(self._deliver())
        self._pending.append(changed)
        self._pending_bytes += len(changed.after.bucket)
        if len(self._pending) > MOST_PENDING or self._pending_bytes > MOST_PENDING_BYTES:
            log.warning(
                "changes come faster than watchers can be told of them: they get a gap instead"
            )
            self.lost()

    def lost(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0
        for watcher in self._all():
            watcher.miss()

    def end(self, context: str | None) -> None:
        """Close the streams that were opened with this context, or (None) by operators."""
        for watcher in self._all():
            if watcher.context == context:
                watcher.close()

    def announce(self, what: str, members: dict[str, Any]) -> None:
        """Tell those who watch everything of something else than a bucket, with its names."""
        frame = b"event: %b\ndata: %b\n\n" % (what.encode(), orjson.dumps(members))
        names = (members["device"], members["job"], members["automation"])
        for watcher in list(self._watchers.get(None, ())):
            if watcher.only.names(*names):
                watcher.send(frame)

    @property
    def watched_by_operators(self) -> bool:
        """Whether anybody watches everything."""
        return None in self._watchers

    async def close(self) -> None:
        """Tell what is still to be told, then end all streams."""
        if self._count:
            await self.store.catch_up()
        if self._pump is not None:
            await self._pump
        for watcher in self._all():
            watcher.close()
        if self._beat is not None:
            self._beat.cancel()

    async def _deliver(self) -> None:
        try:
            await self._deliver_pending()
        except Exception:
            log.exception("telling of changes failed in a way that was not foreseen")
            self.lost()
        finally:
            self._pump = None

    async def _deliver_pending(self) -> None:
        offered = 0
        while self._pending:
            changed = self._pending[0]
            told = Notification(changed)
            if told.large:
                await offload(told.prepare)
            else:
                told.prepare()
            watchers = self._concerned(changed)
            rest = PAUSE_SECONDS if len(watchers) > AT_ONCE and not told.large else 0
            began = time.monotonic()
            for watcher in watchers:
                watcher.offer(told)
                offered += 1
                long = time.monotonic() - began > TURN_SECONDS  # each may want other members of it
                if told.large or long or offered % AT_ONCE == 0:
                    await asyncio.sleep(rest if len(self._pending) == 1 else 0)
                    began = time.monotonic()
            self._told = changed.event_id
            if self._pending and self._pending[0] is changed:
                self._pending.popleft()
                self._pending_bytes -= len(changed.after.bucket)

    def _concerned(self, changed: ChangeEvent) -> list[Watcher]:
        own = self._watchers.get(changed.key, ())
        return [*own, *(w for w in self._watchers.get(None, ()) if w.only.matches(changed))]

    def _all(self) -> list[Watcher]:
        return [watcher for among in self._watchers.values() for watcher in among]

    def _beat_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._beat = loop.call_later(self.heartbeat_seconds, self._beat_now)

    def _beat_now(self) -> None:
        self._beat = None
        if self._count:
            self._beat_later()
            self._beat_some(iter(self._all()))

    def _beat_some(self, watchers: Iterator[Watcher]) -> None:
        frame = b": \n" + sse.here(self.event_id)
        for count, watcher in enumerate(watchers, 1):
            watcher.send(frame)
            if count == AT_ONCE:
                later = asyncio.get_running_loop().call_later
                later(PAUSE_SECONDS, self._beat_some, watchers)
                return
