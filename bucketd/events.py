"""Who watches which bucket, and what they are told: changes as Server-Sent Events.

    store ── tell ──→ Hub: one pump, in the order of all changes ──→ Watcher ── send ──→ connection

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. An event's ``id`` is the
store's mark of that change. A comment now and then shows that the stream lives; its id moves on
what a watcher resumes from, past changes that do not concern it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Set
from typing import Any, NamedTuple

import orjson

from .errors import Overloaded
from .model import BucketKey, Snapshot
from .store.base import Changed, Store
from .strictjson import equal

log = logging.getLogger(__name__)
AT_ONCE = 64  # events written before others get a turn
LARGE_BYTES = 64 * 1024  # to compare more than this takes too long for the event loop
MOST_PENDING = 2000  # changes that nobody was told of yet
MOST_PENDING_BYTES = 64 * 1024 * 1024
MOST_HELD = 1000
_RETRY = b"retry: 1000\n"  # milliseconds after which a browser's EventSource connects again


class Only(NamedTuple):
    """What a watcher wants to hear of: one bucket or, with ``key`` None, those that match.

    ``members``: changes of these keys of the bucket alone.
    """

    key: BucketKey | None = None
    device: str | None = None
    job: str | None = None
    automation: str | None = None
    members: frozenset[str] | None = None

    def matches(self, changed: Changed) -> bool:
        key, automation = changed.key, changed.after.automation
        if automation is None and changed.before is not None:
            automation = changed.before.automation
        return (
            self.device in (None, key.device)
            and self.job in (None, key.job)
            and self.automation in (None, automation)
        )


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
        return Difference(
            {k: v for k, v in self.set.items() if k in members},
            [k for k in self.removed if k in members],
        )


class Told:
    """One change on its way to its watchers: the same bytes for all who want the same of it."""

    def __init__(self, changed: Changed) -> None:
        self.changed = changed
        self._difference: Difference | None = None
        self._frames: dict[frozenset[str] | None, bytes | None] = {}

    @property
    def large(self) -> bool:
        before = self.changed.before
        return len(self.changed.after.bucket) + len(before.bucket if before else b"") > LARGE_BYTES

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
        key, _, after, mark = self.changed
        if self._difference is None:
            return _gap(mark, key)
        found = self._difference
        if members is not None:
            found = found.among(members)
            if not found.set and not found.removed:
                return None
        return _event(mark, key, after.revision, found)


class Watcher:
    """One stream. Until ``begin`` it holds what it is told; from then on it sends it.

    ``ended`` is done when there is nothing more to come.
    """

    def __init__(self, hub: Hub, only: Only) -> None:
        self.only = only
        self.context: str | None = None  # whose end is the stream's, too
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first: list[bytes] = []
        self._hub = hub
        self._held: list[Told] | None = []
        self._missed = False
        self._send: Callable[[bytes], None] = self.first.append
        # Whether this is told already, by what the stream began with; None: not any more.
        self._known: Callable[[Changed], bool | None] | None = None

    async def sync(self, since: str | None, snapshot: bool) -> None:
        """Prepare how the stream begins. Raises BucketdError where it cannot."""
        store, key = self._hub.store, self.only.key
        self.first.append(_RETRY + _id(self._hub.mark))
        if since is not None:
            if await self._resume(since):
                return
            self.first.append(_gap(self._hub.mark, key))
        if snapshot and key is not None:
            now = await store.read(key)
            self._known = lambda changed: _covers(now, changed)
            found = Difference(orjson.loads(now.bucket), [])
            if self.only.members is not None:
                found = found.among(self.only.members)
            self.first.append(_event(self._hub.mark, key, now.revision, found))

    async def _resume(self, since: str) -> bool:
        """What happened after ``since``; False where that is not known."""
        changes = await self._hub.store.since(since, self.only.key)
        if changes is None:
            return False
        seen = {changed.mark for changed in changes}
        self._known = lambda changed: True if changed.mark in seen else None
        wanted = [Told(changed) for changed in changes if self.only.matches(changed)]
        await asyncio.to_thread(_prepare_all, wanted)
        frames = (told.frame(self.only.members) for told in wanted)
        self.first += [frame for frame in frames if frame is not None]
        if changes:
            self.first.append(_id(changes[-1].mark))
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
            send(_gap(self._hub.mark, self.only.key))

    def offer(self, told: Told) -> None:
        """Send it, unless it does not concern this watcher."""
        if self.ended.done():
            return
        if self._held is not None:
            self._hold(told)
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

    def send(self, frame: bytes) -> None:
        """Something that is no change; nothing while the stream has not begun."""
        if self._held is None and not self.ended.done():
            self._send(frame)

    def miss(self) -> None:
        """Changes were made that it cannot be told of."""
        self._missed = True
        self.send(_gap(self._hub.mark, self.only.key))

    def close(self) -> None:
        """Nothing more is to come. Again is no harm."""
        self._hub.remove(self)
        if not self.ended.done():
            self.ended.set_result(None)

    def _hold(self, told: Told) -> None:
        assert self._held is not None  # noqa: S101  (as it was asked before)
        if len(self._held) < MOST_HELD:
            self._held.append(told)
        else:
            self._missed = True


def _prepare_all(changes: list[Told]) -> None:
    for told in changes:
        told.prepare()


def _covers(now: Snapshot, changed: Changed) -> bool | None:
    """Whether a snapshot has this change: True, or False for the last one; None: it comes after.

    Changes may be told of a moment after they can be read.
    """
    before, after = changed.before, changed.after
    if after.etag == now.etag:
        return False
    if before is None or before.etag == now.etag or after.revision > now.revision:
        return None
    return True


class Hub:
    """All watchers of one daemon, of whom there may be ``most``. Use on its event loop."""

    def __init__(self, store: Store, most: int, heartbeat_seconds: float) -> None:
        self.store, self.most, self.heartbeat_seconds = store, most, heartbeat_seconds
        self._watchers: dict[BucketKey | None, dict[Watcher, None]] = {}
        self._count = 0
        self._pending: deque[Changed] = deque()
        self._pending_bytes = 0
        self._pump: asyncio.Task[None] | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._told = ""  # while the pump runs: the mark of what all have been told
        store.listen(self)

    def __len__(self) -> int:
        return self._count

    @property
    def mark(self) -> str:
        """Of the newest change that all watchers have been told of."""
        return self.store.mark if self._pump is None else self._told

    @property
    def wanted(self) -> Set[BucketKey] | None:
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
        watcher = Watcher(self, only)
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

    def tell(self, changed: Changed) -> None:
        if not self._watchers or (changed.key not in self._watchers and None not in self._watchers):
            return
        if changed.before is not None and changed.before.etag == changed.after.etag:
            return  # what could not be read was healed: nobody has seen anything else
        if self._pump is None:
            self._told = self.store.mark
            self._pump = asyncio.get_running_loop().create_task(self._deliver())
        self._pending.append(changed)
        self._pending_bytes += len(changed.after.bucket)
        if len(self._pending) > MOST_PENDING or self._pending_bytes > MOST_PENDING_BYTES:
            log.warning("changes come faster than watchers can be told of them: they are told so")
            self.lost()

    def lost(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0
        for watcher in self._all():
            watcher.miss()

    def end(self, context: str) -> None:
        """Close the streams that were opened with this context."""
        for watcher in self._all():
            if watcher.context == context:
                watcher.close()

    def announce(self, what: str, members: dict[str, Any]) -> None:
        """Tell those who watch everything of something else than a bucket."""
        frame = b"event: %b\ndata: %b\n\n" % (what.encode(), orjson.dumps(members))
        for watcher in list(self._watchers.get(None, ())):
            watcher.send(frame)

    @property
    def watched_by_operators(self) -> bool:
        """Whether anybody watches everything."""
        return None in self._watchers

    async def close(self) -> None:
        """Tell what is still to be told, then end all streams."""
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
            told = Told(changed)
            if told.large:
                await asyncio.to_thread(told.prepare)
            else:
                told.prepare()
            for watcher in self._concerned(changed):
                watcher.offer(told)
                offered += 1
                if offered % AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._told = changed.mark
            if self._pending and self._pending[0] is changed:
                self._pending.popleft()
                self._pending_bytes -= len(changed.after.bucket)

    def _concerned(self, changed: Changed) -> list[Watcher]:
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
        frame = b": \n" + _id(self.mark)
        for count, watcher in enumerate(watchers, 1):
            watcher.send(frame)
            if count == AT_ONCE:
                asyncio.get_running_loop().call_soon(self._beat_some, watchers)
                return


def _id(mark: str) -> bytes:
    """Where to resume from, without an event."""
    return b"id: %b\n\n" % mark.encode()


def _gap(mark: str, key: BucketKey | None) -> bytes:
    """What happened meanwhile, to this bucket or to any, is not known."""
    where = {} if key is None else {"device": key.device, "job": key.job}
    return b"event: gap\nid: %b\ndata: %b\n\n" % (mark.encode(), orjson.dumps(where))


def _event(mark: str, key: BucketKey, revision: int, found: Difference) -> bytes:
    data = {
        "device": key.device,
        "job": key.job,
        "revision": revision,
        "set": found.set,
        "removed": found.removed,
    }
    return b"event: bucket\nid: %b\ndata: %b\n\n" % (mark.encode(), orjson.dumps(data))
