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
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from ..errors import (
    BucketdError,
    Held,
    HoldLost,
    InvalidRequest,
    NoJobContext,
    NotFound,
    Overloaded,
    ShuttingDown,
    TooManyRequests,
)
from ..fs import clock, errors, files
from ..model.bucket import BucketKey, check_name
from ..stats import Histogram
from ..store.base import HoldStore
from ..store.holds import LOST, RELEASED, TAKEN, Hold, HoldQueue, Owner
from .events import sse

log = logging.getLogger(__name__)
DIRECTORY = "holds"
# How long after its start a daemon keeps the holds of an earlier one for their holders.
GRACE_SECONDS = 5.0
# How long a start waits for a store that has to be asked for these holds.
ADOPTION_SECONDS = 1.0
MAX_WAIT_SECONDS = 3600
MAX_LABEL = 256
MAX_FENCE = 200
# A user who is no operator may have a quarter of all holds.
MAX_USER_FRACTION = 4
# Heartbeats are sent to so many streams at a time.
BATCH_SIZE = 64
PAUSE_SECONDS = 0.001
HEARTBEAT = b":\n\n"
WAIT_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)
# Why a hold is lost.
BROKEN, EXPIRED, REVOKED, FORBIDDEN = "broken", "expired", "revoked", "forbidden"
UNREACHABLE = "unreachable"


class HoldRequest(NamedTuple):
    """What a client asks for; with ``fence``, to come back to a hold after a restart."""

    name: str = ""
    wait_seconds: float = 0.0
    exclusive: bool = False
    label: str | None = None
    fence: str | None = None

    @classmethod
    def checked(cls, body: dict[str, Any]) -> HoldRequest:
        """Return a valid request; raise InvalidRequest for any other."""
        for member in body:
            if member not in cls._fields:
                raise _invalid(f"{member[:40]!r} is not one of {', '.join(cls._fields)}")
        wanted = cls(**body)
        if wanted.name != "":
            check_name(wanted.name, "hold's")
        seconds = wanted.wait_seconds
        if not _is_number(seconds) or not 0 <= seconds <= MAX_WAIT_SECONDS:
            raise _invalid(f"wait_seconds must be a number from 0 to {MAX_WAIT_SECONDS}")
        if not isinstance(wanted.exclusive, bool):
            raise _invalid("exclusive must be true or false")
        if wanted.exclusive and wanted.name:
            raise _invalid("only a hold without a name can be exclusive")
        if wanted.label is not None and not _is_label(wanted.label):
            raise _invalid(
                f"label must be a string of at most {MAX_LABEL} characters, no control characters"
            )
        if wanted.fence is not None and not is_fence(wanted.fence):
            raise _invalid("fence must be one that a hold was given")
        return wanted


def is_fence(value: object) -> bool:
    """Report whether a value may be a fence: up to 200 visible ASCII characters, no comma."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_FENCE
        and value.isascii()
        and value.isprintable()
        and not {" ", ","} & set(value)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_label(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_LABEL:
        return False
    try:
        for start in range(0, len(value), 128):
            check_name(value[start : start + 128], "label")
    except InvalidRequest:
        return False
    return True


def _invalid(cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot hold: {cause}")


class HoldStream:
    """What a holder receives: the hold, heartbeats, and at last why it was lost, if it was.

    ``release`` ends the hold; it is called when the stream ends, with or without its connection,
    and returns a future of the end.
    """

    def __init__(self, hold: Hold, release: Callable[[], asyncio.Future[Any]]) -> None:
        self.hold, self._release = hold, release
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send: Callable[[bytes], None] | None = None
        self._lost: bytes | None = None

    def start(self, send: Callable[[bytes], None]) -> None:
        hold = self.hold
        about = {
            "id": hold.id,
            "fence": hold.fence,
            "name": hold.name,
            "device": hold.key.device,
            "job": hold.key.job,
            "since": hold.row()["since"],
            "exclusive": hold.exclusive,
            "label": hold.label,
        }
        send(sse.announcement("hold", about))
        if not self.ended.done():
            self._send = send
        if self._lost is not None:
            send(self._lost)

    def beat(self) -> None:
        """Send a heartbeat."""
        if self._send is not None:
            self._send(HEARTBEAT)

    def lose(self, reason: str) -> None:
        """Tell the holder that it has lost the hold, and end the stream."""
        self._lost = sse.announcement("lost", {"id": self.hold.id, "reason": reason})
        if self._send is not None:
            self._send(self._lost)
        self.close()

    def on_end_of_input(self) -> None:
        """End the hold, then the stream: so a holder can wait until it is released."""
        self._release().add_done_callback(lambda _ended: self.close())

    def close(self) -> None:
        """End the stream. A second call does nothing."""
        # A reference to the connection would be a cycle.
        self._send = None
        if not self.ended.done():
            self.ended.set_result(None)
            self._release()


@dataclass(slots=True, eq=False)
class _Entry:
    """An entry of this daemon. ``turn`` is done once it is held, or fails if it cannot be.

    ``allowed`` reports whether its owner may still hold it. ``lost`` says why it has ended before
    there was a stream. ``adopted`` is the task that continues it in the store after a restart.
    """

    hold: Hold
    allowed: Callable[[], bool]
    turn: asyncio.Future[None]
    stream: HoldStream | None = None
    lost: str | None = None
    adopted: asyncio.Task[None] | None = None

    def refuse(self, refusal: BucketdError) -> None:
        """Let the owner wait no longer, if it waits."""
        if not self.turn.done():
            self.turn.set_exception(refusal)
            # Marks it as seen, since nobody may be waiting for it yet.
            self.turn.exception()


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
        self._store, self._root, self._publish = store, root, publish
        self.max_holds, self.heartbeat_seconds = max_holds, heartbeat_seconds
        self.waited = Histogram(WAIT_BOUNDS)
        self._host = socket.gethostname()
        self._entries: dict[str, _Entry] = {}
        self._by_user: dict[int, int] = {}
        self._closing = False
        self._heartbeat: asyncio.TimerHandle | None = None
        # One thread, so that a file is never removed before it is written.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="bucketd-holds")
        self._unusable: list[str] = []
        self._restored = self._load()
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

    def problems(self) -> list[str]:
        """Return a sentence for each file that could not be loaded at the start."""
        return self._unusable.copy()

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
        entry = _Entry(hold, allowed, loop.create_future())
        began = loop.time()
        self._enter(entry)
        try:
            await self._store.add(hold)
            await self._wait(entry, began + wanted.wait_seconds)
            await self._store.confirm(hold)
            await loop.run_in_executor(self._writer, self._save, hold)
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

    async def _wait(self, entry: _Entry, deadline: float) -> None:
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

    def _stream(self, entry: _Entry) -> HoldStream:
        stream = entry.stream = HoldStream(entry.hold, lambda: self._release(entry))
        if self._heartbeat is None:
            self._schedule_heartbeat()
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
            await asyncio.get_running_loop().run_in_executor(self._writer, self._save, hold)
        except BaseException:
            self._leave(entry)
            raise
        return self._stream(entry)

    async def restore(self) -> None:
        """Continue the holds of an earlier daemon; call this before the first ``take``."""
        loop = asyncio.get_running_loop()
        for hold in self._restored:
            entry = _Entry(hold, _always, loop.create_future())
            self._enter(entry)
            entry.adopted = loop.create_task(self._adopt(entry))
        tasks = [e.adopted for e in self._entries.values() if e.adopted is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=ADOPTION_SECONDS)
            loop.call_later(GRACE_SECONDS, self._end_grace)
        self._restored = []

    async def _adopt(self, entry: _Entry) -> None:
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
        # Those that wait come first: else they would be had, and lost at once.
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
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def _lose(self, entry: _Entry, reason: str, refusal: BucketdError) -> asyncio.Future[Any]:
        """End an entry against its owner's will; the future tells when it has ended."""
        entry.lost = entry.lost or reason
        entry.refuse(refusal)
        ended = self._leave(entry)
        if entry.stream is not None:
            entry.stream.lose(reason)
        return ended

    def _release(self, entry: _Entry) -> asyncio.Future[Any]:
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
            # Whoever ends an entry of this daemon takes it out first, so the store has ended this.
            refusal: BucketdError = _wait_ended(hold)
            if hold.lost == UNREACHABLE:
                refusal = Overloaded(
                    f"cannot hold {hold}: this host has lost its lease in etcd; try again"
                )
            self._lose(entry, hold.lost or BROKEN, refusal)

    # --- entries

    def _enter(self, entry: _Entry) -> None:
        self._entries[entry.hold.id] = entry
        self._count(entry.hold.owner.uid, 1)

    def _leave(self, entry: _Entry) -> asyncio.Future[Any]:
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
        removed = asyncio.wrap_future(self._writer.submit(self._remove, hold.id))
        return asyncio.gather(released, removed)

    def _count(self, uid: int, by: int) -> None:
        count = self._by_user.get(uid, 0) + by
        if count:
            self._by_user[uid] = count
        else:
            self._by_user.pop(uid, None)

    def _schedule_heartbeat(self) -> None:
        loop = asyncio.get_running_loop()
        self._heartbeat = loop.call_later(self.heartbeat_seconds, self._start_heartbeat)

    def _start_heartbeat(self) -> None:
        self._heartbeat = None
        streams = [e.stream for e in self._entries.values() if e.stream is not None]
        if streams:
            self._schedule_heartbeat()
            self._send_heartbeats(iter(streams))

    def _send_heartbeats(self, streams: Iterator[HoldStream]) -> None:
        for count, stream in enumerate(streams, 1):
            stream.beat()
            if count == BATCH_SIZE:
                later = asyncio.get_running_loop().call_later
                later(PAUSE_SECONDS, self._send_heartbeats, streams)
                return

    # --- files, on the writer's thread but for the first and the last

    def _load(self) -> list[Hold]:
        """Return the holds of an earlier daemon of this boot, by their order."""
        found: list[Hold] = []
        try:
            names = files.names(self._root, (DIRECTORY,))
        except OSError as error:
            self._report(f"cannot read the holds in {DIRECTORY}/: {error.strerror}")
            return []
        for name in names:
            if name.startswith("."):
                continue
            try:
                hold = _parse(files.read(self._root, (DIRECTORY,), name).text)
                if hold is None or name != f"{hold.id}.json":
                    self._remove(name.removesuffix(".json"))
                    continue
                found.append(hold)
            except OSError as error:
                self._report(f"cannot load the hold {_shown(name)}: {error.strerror}")
            except (ValueError, TypeError, KeyError, InvalidRequest):
                self._report(
                    f"cannot load the hold {_shown(name)}: it is not the file of a hold; remove it"
                )
        kept: list[Hold] = []
        for hold in sorted(found, key=lambda one: one.order, reverse=True):
            if any(later.excludes(hold) for later in kept):
                self._remove(hold.id)
            else:
                kept.append(hold)
        return kept[::-1]

    def _report(self, problem: str) -> None:
        log.warning("%s", problem)
        self._unusable.append(problem)

    def _save(self, hold: Hold) -> None:
        self._write(self._root, hold)

    def _write(self, root: int, hold: Hold) -> None:
        text = orjson.dumps(
            {
                "id": hold.id,
                "fence": hold.fence,
                "device": hold.key.device,
                "job": hold.key.job,
                "name": hold.name,
                "exclusive": hold.exclusive,
                "label": hold.label,
                "order": hold.order,
                "since": hold.since,
                "began": hold.began,
                "boot": clock.boot_id(),
                "host": hold.host,
                "by": hold.owner._asdict(),
            }
        )
        try:
            files.write(root, (DIRECTORY,), f"{hold.id}.json", lambda _birth: text, durably=False)
        except OSError as error:
            raise errors.refusal("store the hold", error) from error

    def _remove(self, hold_id: str) -> None:
        try:
            files.remove(self._root, (DIRECTORY,), f"{hold_id}.json", durably=False)
        except OSError as error:
            log.warning("cannot remove the file of a hold that has ended: %s", error)

    def are_stored(self) -> bool:
        """Report whether the directory of the files exists; without holds, report True."""
        if not self._entries:
            return True
        with contextlib.suppress(OSError):
            os.stat(DIRECTORY, dir_fd=self._root)
            return True
        return False

    def move(self, root: int) -> None:
        """Store all holds again below another runtime directory. Raises BucketdError."""
        for entry in list(self._entries.values()):
            if entry.hold.held:
                self._write(root, entry.hold)
        self._root = root


def _parse(text: bytes) -> Hold | None:
    """Return the hold in a file; None if it is of another boot, which no holder has survived.

    Raises ValueError, TypeError, KeyError or InvalidRequest.
    """
    members: dict[str, Any] = orjson.loads(text)
    strings = [members["id"], members["fence"], members["host"], members["boot"], members["name"]]
    began, since, order = members["began"], members["since"], members["order"]
    if not all(isinstance(one, str) for one in strings):
        raise TypeError("it is not the file of a hold")
    if not _is_number(began) or not _is_number(since) or type(order) is not int:
        raise TypeError("it is not the file of a hold")
    if not clock.is_this_boot(members["boot"], began):
        return None
    return Hold(
        id=members["id"],
        fence=members["fence"],
        key=BucketKey.checked(members["device"], members["job"]),
        owner=Owner(**members["by"]),
        host=members["host"],
        name=members["name"],
        exclusive=bool(members["exclusive"]),
        label=members["label"],
        order=order,
        since=float(since),
        began=float(began),
        connected=False,
    )


def _shown(name: str) -> str:
    """Return the path of a file for display; bytes that are not UTF-8 become escapes."""
    return f"{DIRECTORY}/{os.fsencode(name).decode(errors='backslashreplace')}"
