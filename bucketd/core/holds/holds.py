"""Holds: take one, wait for it, keep it across a restart of the daemon, end it.

    take ── first in the queue ──→ confirmed, stored below <runtime>/holds/ ──→ HoldStream
      └─ waits ─ its turn ─┘                                                       │
                                connection, token, operator, lost lease ── ends ───┘

A hold lives for as long as its stream. The queue itself (``store.holds``) belongs to the store,
since all hosts of a fleet share it; this module knows the entries of this daemon.

A daemon that stops or dies leaves the files of its holds. The next one continues them in their
places; a holder that comes back with its fence within GRACE_SECONDS keeps its hold, and the others
end then. The daemon removes a file after the hold has ended, so a crash in between may leave the
files of two holds that exclude each other. The later one is right: it was had only because the
earlier one had ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...errors import (
    BucketdError,
    Held,
    HoldLost,
    NoJobContext,
    NotFound,
    Overloaded,
    ShuttingDown,
    TooManyRequests,
)
from ...model.bucket import BucketKey
from ...stats import Histogram
from ...store.base import HoldStore
from ...store.holds import LOST, RELEASED, TAKEN, Hold, HoldQueue, Owner
from .entry import Entry
from .hold_files import HoldFiles
from .request import HoldRequest
from .stream import Heartbeats, HoldStream

log = logging.getLogger(__name__)
# A daemon keeps the holds of an earlier one for so long after its start.
GRACE_SECONDS = 5.0
# A start waits so long for a store that has to be asked for these holds.
ADOPTION_SECONDS = 1.0
# A user who is no operator may have a quarter of all holds.
MAX_USER_FRACTION = 4
WAIT_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)
# Why a hold is lost.
BROKEN, EXPIRED, REVOKED, FORBIDDEN = "broken", "expired", "revoked", "forbidden"
UNREACHABLE = "unreachable"


def _wait_ended(hold: Hold) -> Held:
    return Held(f"cannot hold {hold}: an operator has ended the wait for it")


def _always() -> bool:
    return True


class Holds:
    """The holds and waiters of this daemon. ``root`` is a descriptor of the runtime directory.

    ``publish`` is called with each entry of any host, and with what has happened to it.
    """

    def __init__(
        self,
        store: HoldStore,
        root: int,
        max_holds: int,
        heartbeat_seconds: float,
        publish: Callable[[Hold, str], None],
    ) -> None:
        self._store, self._publish, self._files = store, publish, HoldFiles(root)
        self.max_holds = max_holds
        self.waited = Histogram(WAIT_BOUNDS)
        self._host = socket.gethostname()
        self._entries: dict[str, Entry] = {}
        self._by_user: dict[int, int] = {}
        self._closing = False
        self._heartbeats = Heartbeats(self._streams, heartbeat_seconds)
        # One thread, so that a file is never removed before it is written.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="bucketd-holds")
        self._restored = self._files.load()
        store.queue.changed = self._on_change

    @property
    def queue(self) -> HoldQueue:
        return self._store.queue

    @property
    def counts(self) -> dict[str, int]:
        """Return how many entries of this daemon are held, and how many wait; refused fences."""
        held = sum(entry.hold.held for entry in self._entries.values())
        return {
            "holds": held,
            "hold_waiters": len(self._entries) - held,
            "fences_refused": self.queue.refused,
        }

    @property
    def heartbeat_seconds(self) -> float:
        """The interval of heartbeats, which may be set."""
        return self._heartbeats.seconds

    @heartbeat_seconds.setter
    def heartbeat_seconds(self, seconds: float) -> None:
        self._heartbeats.seconds = seconds

    def problems(self) -> list[str]:
        """Return a sentence for each file that could not be loaded at the start."""
        return self._files.problems.copy()

    # --- take

    async def take(
        self,
        key: BucketKey,
        wanted: HoldRequest,
        owner: Owner,
        is_operator: bool,
        allowed: Callable[[], bool] = _always,
    ) -> HoldStream:
        """Return the stream of a hold, once it is had. Raises BucketdError.

        Cancel this to leave the queue.
        """
        if wanted.fence is not None:
            return await self._come_back(key, wanted.fence, owner, allowed)
        self._check_count(owner, is_operator)
        loop = asyncio.get_running_loop()
        hold = Hold(
            id=secrets.token_hex(8),
            fence=secrets.token_urlsafe(16),
            key=key,
            owner=owner,
            host=self._host,
            name=wanted.name,
            exclusive=wanted.exclusive,
            label=wanted.label,
            since=time.time(),
        )
        entry = Entry(hold, allowed, loop.create_future())
        began = loop.time()
        self._enter(entry)
        try:
            await self._store.add(hold)
            await self._wait(entry, began + wanted.wait_seconds)
            await self._store.confirm(hold)
            await loop.run_in_executor(self._writer, self._files.save, hold)
            if entry.lost is not None:
                raise HoldLost(f"cannot hold {hold}: it was had, and lost at once ({entry.lost})")
        except BaseException:
            self._leave(entry)
            raise
        self.waited.add(loop.time() - began)
        return self._stream(entry)

    def _check_count(self, owner: Owner, is_operator: bool) -> None:
        most = self.max_holds
        share = max(1, most // MAX_USER_FRACTION)
        if len(self._entries) >= most:
            cause = f"there are {len(self._entries)} holds and waiters"
        elif not is_operator and self._by_user.get(owner.uid, 0) >= share:
            cause = f"user {owner.user} has {share} holds and waiters, a quarter of all"
        else:
            return
        raise TooManyRequests(
            f"cannot hold: {cause}, and [limits] max_holds ({most}) allows no more; end some, "
            "or try again"
        )

    async def _wait(self, entry: Entry, deadline: float) -> None:
        """Wait for the turn of an entry; raise Held if it does not come by the deadline."""
        if entry.turn.done():
            entry.turn.result()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.wait((entry.turn,))
        except TimeoutError:
            if not entry.turn.done():
                raise self._held(entry.hold) from None
        entry.turn.result()

    def _held(self, hold: Hold) -> Held:
        ahead = self.queue.ahead_of(hold)
        rows = [one.row() for one in ahead]
        by = f"{rows[0]['by']['user']} (process {rows[0]['by']['pid']} on {rows[0]['host']})"
        who = "waits for it before you" if rows[0]["state"] != "held" else "holds it"
        return Held(
            f"cannot hold {hold}: {by} {who} since {rows[0]['since']}; wait longer "
            "(wait_seconds), or let an operator end that hold (bucketctl hold break "
            f"{ahead[0].id})",
            details=rows,
        )

    def _stream(self, entry: Entry) -> HoldStream:
        stream = entry.stream = HoldStream(entry.hold, lambda: self._release(entry))
        self._heartbeats.start()
        return stream

    # --- come back after a restart

    async def _come_back(
        self, key: BucketKey, fence: str, owner: Owner, allowed: Callable[[], bool]
    ) -> HoldStream:
        entry = next((e for e in self._entries.values() if e.hold.fence == fence), None)
        if entry is None or entry.hold.key != key or entry.hold.connected:
            raise HoldLost(
                "cannot come back to the hold: it has ended, or another connection has it; take it "
                "again, and look at what has changed meanwhile"
            )
        hold = entry.hold
        hold.connected, entry.allowed = True, allowed
        try:
            if entry.adopted is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GRACE_SECONDS):
                        await asyncio.shield(entry.adopted)
            if entry.lost is not None or not hold.held:
                raise HoldLost(f"cannot come back to the hold of {hold}: it has ended")
            self._count(hold.owner.uid, -1)
            hold.owner = owner
            self._count(owner.uid, 1)
            await asyncio.get_running_loop().run_in_executor(self._writer, self._files.save, hold)
        except BaseException:
            self._leave(entry)
            raise
        return self._stream(entry)

    async def restore(self) -> None:
        """Continue the holds of an earlier daemon; call this before the first ``take``."""
        loop = asyncio.get_running_loop()
        for hold in self._restored:
            entry = Entry(hold, _always, loop.create_future())
            self._enter(entry)
            entry.adopted = loop.create_task(self._adopt(entry))
        tasks = [e.adopted for e in self._entries.values() if e.adopted is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=ADOPTION_SECONDS)
            loop.call_later(GRACE_SECONDS, self._end_grace)
        self._restored = []

    async def _adopt(self, entry: Entry) -> None:
        try:
            await self._store.adopt(entry.hold)
        except HoldLost:
            entry.lost = UNREACHABLE
            self._leave(entry)
        except BucketdError as error:
            log.warning("cannot continue the hold of %s: %s", entry.hold, error.message)
            entry.lost = UNREACHABLE
            self._leave(entry)

    def _end_grace(self) -> None:
        """End the holds whose holders have not come back."""
        for entry in list(self._entries.values()):
            if not entry.hold.connected and not self._closing:
                log.info("ended the hold of %s: its holder has not come back", entry.hold)
                self._leave(entry)

    # --- end

    async def end(self, hold_id: str) -> dict[str, Any]:
        """End a hold of any host, or let a waiter wait no longer; return what it was.

        Raises NotFound for an unknown id, and BucketdError.
        """
        await self._store.refresh()
        hold = self.queue.find(hold_id)
        if hold is None:
            raise NotFound(
                "cannot end the hold: no live hold has this id; GET /v1/holds (bucketctl hold "
                "list) lists the live ones"
            )
        row = hold.row()
        log.info("an operator ends the hold of %s (%s)", hold, row["state"])
        entry = self._entries.get(hold_id)
        if entry is None:
            await self._store.release(hold)
        else:
            await self._lose(entry, BROKEN, _wait_ended(hold))
        return {name: row[name] for name in ("id", "state", "device", "job", "name")}

    async def refresh(self) -> None:
        """Return once the queue has the entries of all hosts. Raises BucketdError."""
        await self._store.refresh()

    async def rows(self, device: str | None, job: str | None) -> tuple[list[Any], list[Any]]:
        """Return who holds, and who waits, on all hosts; of one device or job, if given."""
        await self._store.refresh()
        held: list[Any] = []
        waiting: list[Any] = []
        for hold in self.queue:
            if device in (None, hold.key.device) and job in (None, hold.key.job):
                (held if hold.held else waiting).append(hold.row())
        return held, waiting

    def end_context(self, context: str, reason: str) -> None:
        """End what was taken with a context, which has ended."""
        # Waiters end first: else they would get the hold, and lose it at once.
        for entry in reversed(list(self._entries.values())):
            if entry.hold.owner.context == context:
                refusal = NoJobContext(
                    f"cannot hold {entry.hold}: the token is no longer valid ({reason})"
                )
                self._lose(entry, reason, refusal)

    def end_disallowed(self) -> None:
        """End what was taken by users who are no operators any more."""
        for entry in reversed(list(self._entries.values())):
            if not entry.allowed():
                refusal = Held(f"cannot hold {entry.hold}: its user is no operator any more")
                self._lose(entry, FORBIDDEN, refusal)

    def refuse_waiters(self) -> None:
        """Refuse all who wait: the daemon stops."""
        for entry in self._entries.values():
            entry.refuse(ShuttingDown("cannot hold: the daemon is stopping; try again in a moment"))

    def close(self) -> None:
        """End all streams; the holds themselves stay, for the next daemon."""
        self._closing = True
        for entry in list(self._entries.values()):
            if entry.stream is not None:
                entry.stream.close()
        self._heartbeats.stop()

    def _lose(self, entry: Entry, reason: str, refusal: BucketdError) -> asyncio.Future[Any]:
        """End an entry against its owner's will; the future tells when it has ended."""
        entry.lost = entry.lost or reason
        entry.refuse(refusal)
        ended = self._leave(entry)
        if entry.stream is not None:
            entry.stream.lose(reason)
        return ended

    def _release(self, entry: Entry) -> asyncio.Future[Any]:
        """End a hold with its stream, unless the stream ends because the daemon stops."""
        if not self._closing:
            return self._leave(entry)
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kept.set_result(None)
        return kept

    def _on_change(self, hold: Hold, change: str) -> None:
        entry = self._entries.get(hold.id)
        if entry is not None and change == TAKEN and not entry.turn.done():
            entry.turn.set_result(None)
        if change != LOST:
            self._publish(hold, change)
        if entry is not None and change in (LOST, RELEASED):
            # This daemon takes an entry out before it ends it, so the store has ended this one.
            refusal: BucketdError = _wait_ended(hold)
            if hold.lost == UNREACHABLE:
                refusal = Overloaded(
                    f"cannot hold {hold}: this host has lost its lease in etcd; try again"
                )
            self._lose(entry, hold.lost or BROKEN, refusal)

    # --- entries

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.hold.id] = entry
        self._count(entry.hold.owner.uid, 1)

    def _leave(self, entry: Entry) -> asyncio.Future[Any]:
        """Take an entry out, and let the store end it. A second call does nothing more.

        The future is done once it has ended for the next daemon, too. The next in the queue does
        not wait for that.
        """
        hold = entry.hold
        is_first = self._entries.pop(hold.id, None) is not None
        released = self._store.release(hold)
        if not is_first:
            return released
        self._count(hold.owner.uid, -1)
        removed = asyncio.wrap_future(self._writer.submit(self._files.remove, hold.id))
        return asyncio.gather(released, removed)

    def _count(self, uid: int, by: int) -> None:
        count = self._by_user.get(uid, 0) + by
        if count:
            self._by_user[uid] = count
        else:
            self._by_user.pop(uid, None)

    def _streams(self) -> list[HoldStream]:
        return [entry.stream for entry in self._entries.values() if entry.stream is not None]

    # --- of endpoint.RuntimeFiles

    def are_stored(self) -> bool:
        return not self._entries or self._files.exist()

    def move(self, root: int) -> None:
        entries = list(self._entries.values())
        self._files.move(root, [entry.hold for entry in entries if entry.hold.held])
