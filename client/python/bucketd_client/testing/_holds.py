"""Holds in memory: who holds what, who waits, and which fences are good, as in the daemon."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import socket
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Callable

from .._errors import BucketError, error
from ._model import Context, Key, check_name, timestamp

MAX_WAIT_SECONDS, MAX_LABEL, MAX_FENCE, MAX_FENCES = 3600, 256, 200, 8
# A holder may come back to its hold for so long after ``start``.
GRACE_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0
WAITING, TAKEN, RELEASED = "waiting", "taken", "released"
_MEMBERS = {"name": "", "wait_seconds": 0.0, "exclusive": False, "label": None, "fence": None}


class Peer:
    """The other end of a connection: its process, and whether it has closed."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.pid = 0
        if hasattr(socket, "SO_PEERCRED"):
            # The process is the first of three integers of 32 bits.
            process = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4]
            self.pid = int.from_bytes(process, sys.byteorder)

    def wait_until_closed(self) -> None:
        """Wait for the end of what the peer sends, and leave what it sends before unread."""
        try:
            while self._sock.recv(1, socket.MSG_PEEK):
                time.sleep(0.01)
        except (OSError, ValueError):
            return


@dataclass(eq=False)
class Hold:
    """One entry of the queue: of the (device, job) pair ``key``, or of a whole device."""

    key: Key
    name: str
    exclusive: bool
    label: str | None
    pid: int
    context: Context | None
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    fence: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    since: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    held: bool = False
    connected: bool = True
    # Why the hold was lost; None while it lives, and after its release.
    lost: str | None = None

    def excludes(self, other: Hold) -> bool:
        (device, job), (other_device, other_job) = self.key, other.key
        is_same = self.name == other.name and device == other_device
        return is_same and (None in (job, other_job) or job == other_job)

    def covers(self, key: Key) -> bool:
        return self.key in (key, (key[0], None))

    def guards(self, key: Key) -> bool:
        """Report whether the fence is good for a bucket; all jobs share that of their device."""
        return self.covers(key) or key == (self.key[0], None)

    @property
    def public(self) -> dict[str, Any]:
        """Return the members of the event with which the hold begins, but for the fence."""
        device, job = self.key
        names = {"name": self.name, "device": device, "job": job, "since": timestamp(self.since)}
        return {"id": self.id, **names, "exclusive": self.exclusive, "label": self.label}

    @property
    def row(self) -> dict[str, Any]:
        context = self.context
        by = {
            "user": _user(),
            "uid": os.getuid(),
            "pid": self.pid,
            "context": None if context is None else context.id,
            "automation": None if context is None else context.automation,
        }
        state = {
            "state": "held" if self.held else WAITING,
            "seconds": round(time.monotonic() - self.began, 3),
            "connected": self.connected,
        }
        return {**self.public, **state, "by": by, "host": socket.gethostname()}

    def __str__(self) -> str:
        device, job = self.key
        what = f"device {device!r}" + ("" if job is None else f", job {job!r}")
        return what + (f" as {self.name!r}" if self.name else "")


class HoldRequest:
    """The body of a take, checked."""

    def __init__(self, body: dict[str, Any]) -> None:
        if unknown := [name for name in body if name not in _MEMBERS]:
            raise _bad(f"{unknown[0][:40]!r} is not one of {', '.join(_MEMBERS)}")
        said = {**_MEMBERS, **body}
        self.name, self.exclusive, self.label = said["name"], said["exclusive"], said["label"]
        self.seconds, self.fence = said["wait_seconds"], said["fence"]
        if self.name != "":
            check_name(self.name, "hold's")
        is_number = isinstance(self.seconds, (int, float)) and not isinstance(self.seconds, bool)
        if not is_number or not 0 <= self.seconds <= MAX_WAIT_SECONDS:
            raise _bad(f"wait_seconds must be a number from 0 to {MAX_WAIT_SECONDS}")
        if not isinstance(self.exclusive, bool):
            raise _bad("exclusive must be true or false")
        if self.exclusive and self.name:
            raise _bad("only a hold without a name can be exclusive")
        if self.label is not None and not _is_label(self.label):
            raise _bad(
                f"label must be a string of at most {MAX_LABEL} characters, "
                "none a control character"
            )
        if self.fence is not None and not is_fence(self.fence):
            raise _bad("fence must be one that a hold was given")


class Holds:
    """All entries in the order in which they came; an entry is held once no earlier excludes it.

    ``changed`` is the condition of the whole state; its lock guards the entries.
    """

    def __init__(self, changed: threading.Condition, is_live: Callable[[Context], bool]) -> None:
        self._changed, self._is_live = changed, is_live
        self._entries: list[Hold] = []
        # The change, for event streams.
        self.notices: list[tuple[str, dict[str, Any]]] = []

    @property
    def rows(self) -> list[dict[str, Any]]:
        with self._changed:
            return [each.row for each in self._entries]

    def take(
        self, key: Key, wanted: HoldRequest, peer: Peer, context: Context | None
    ) -> HoldStream:
        """Return the stream of a hold once it is had. Raise Held if that takes too long."""
        if wanted.fence is not None:
            return HoldStream(self, self._come_back(key, wanted.fence), peer)
        hold = Hold(key, wanted.name, wanted.exclusive, wanted.label, peer.pid, context)
        stream = HoldStream(self, hold, peer)
        with self._changed:
            self._entries.append(hold)
            self._note(hold, WAITING if self._ahead_of(hold) else None)
            self._give()
            until = time.monotonic() + wanted.seconds
            while not (hold.held or stream.is_over()):
                left = min(until - time.monotonic(), self._seconds_left(hold))
                if left <= 0:
                    break
                self._changed.wait(left)
            if hold.held:
                return stream
            refusal = self._refusal(hold)
            self._remove(hold)
            raise refusal

    def end(self, hold_id: str) -> dict[str, Any]:
        """End a hold, or let a waiter wait no longer, and return its last row. Raise NotFound."""
        with self._changed:
            hold = next((each for each in self._entries if each.id == hold_id), None)
            if hold is None:
                raise error(
                    "not_found",
                    "cannot end the hold: no live hold has this id; GET /v1/holds "
                    "(bucketctl hold list) lists the live ones",
                )
            row = hold.row
            self.lose(hold, "broken")
            return row

    def lose(self, hold: Hold, reason: str) -> None:
        with self._changed:
            hold.lost = reason
            self._remove(hold)

    def release(self, hold: Hold) -> None:
        with self._changed:
            self._remove(hold)

    def detach_all(self) -> None:
        """Forget all waiters, and keep the holds for those who come back after a restart."""
        with self._changed:
            for hold in list(self._entries):
                hold.connected = False
                if not hold.held:
                    self._remove(hold)

    def begin_grace(self) -> None:
        """End the holds to which nobody comes back in time."""
        if self._entries:
            timer = threading.Timer(GRACE_SECONDS, self._end_grace)
            timer.daemon = True
            timer.start()

    def check(self, key: Key, fences: list[str] | None) -> None:
        """Raise HoldLost or Held unless a write to a bucket may be made now."""
        own = []
        for fence in fences or []:
            hold = next((e for e in self._entries if e.fence == fence and e.held), None)
            if hold is None or not hold.guards(key):
                raise error(
                    "hold_lost",
                    f"cannot change the bucket of {_where(key)}: the hold of this Bucketd-Fence "
                    "has ended, or is one of something else; nothing was changed; take the hold "
                    "again, and look at the bucket anew",
                )
            own.append(hold)
        for hold in self._entries:
            if hold.exclusive and hold.held and hold.covers(key) and hold not in own:
                raise error(
                    "held",
                    f"cannot change the bucket of {_where(key)}: {hold.row['by']['user']} holds "
                    f"{hold} exclusively since {timestamp(hold.since)}; nothing was changed; try "
                    "again once that ends, or let an operator end it (bucketctl hold break "
                    f"{hold.id})",
                    details=[hold.row],
                )

    def reason_of_end(self, context: Context | None) -> str | None:
        """Return why the holds of a context end, None while it is live."""
        if context is None or self._is_live(context):
            return None
        return "expired" if context.expires <= time.time() else "revoked"

    def _seconds_left(self, hold: Hold) -> float:
        """Return the seconds until the context of a waiter expires, but a moment at least."""
        context = hold.context
        return MAX_WAIT_SECONDS if context is None else max(0.01, context.expires - time.time())

    def _come_back(self, key: Key, fence: str) -> Hold:
        with self._changed:
            hold = next((e for e in self._entries if e.fence == fence and e.held), None)
            if hold is None or hold.connected or hold.key != key:
                raise error(
                    "hold_lost",
                    "cannot come back to the hold: it has ended, or another connection has it; "
                    "take it again, and look at what has changed meanwhile",
                )
            hold.connected = True
            return hold

    def _end_grace(self) -> None:
        with self._changed:
            for hold in [each for each in self._entries if not each.connected]:
                self._remove(hold)

    def _ahead_of(self, hold: Hold) -> list[Hold]:
        before = self._entries[: self._entries.index(hold)]
        ahead = [each for each in before if each.excludes(hold)]
        return [each for each in ahead if each.held] or ahead[:1]

    def _give(self) -> None:
        for hold in self._entries:
            if not hold.held and not self._ahead_of(hold):
                hold.held, hold.since, hold.began = True, time.time(), time.monotonic()
                self._note(hold, TAKEN)

    def _remove(self, hold: Hold) -> None:
        if hold in self._entries:
            self._entries.remove(hold)
            self._note(hold, RELEASED)
            hold.held = False
            self._give()

    def _note(self, hold: Hold, change: str | None) -> None:
        if change is not None:
            self.notices.append((change, hold.row))
        self._changed.notify_all()

    def _refusal(self, hold: Hold) -> BucketError:
        """Return why a waiter waits no longer."""
        if (reason := self.reason_of_end(hold.context)) is not None:
            return error("no_job_context", f"cannot hold {hold}: its token is {reason}")
        if hold.lost is not None:
            return error("held", f"cannot hold {hold}: an operator has ended the wait")
        if not hold.connected:
            return error("shutting_down", f"cannot hold {hold}: the server is stopping; try again")
        rows = [each.row for each in self._ahead_of(hold)]
        by, is_held = rows[0]["by"], rows[0]["state"] == "held"
        return error(
            "held",
            f"cannot hold {hold}: {by['user']} (process {by['pid']} on {rows[0]['host']}) "
            f"{'holds it' if is_held else 'waits for it before you'} since {rows[0]['since']}; "
            "wait longer (wait_seconds), or let an operator end that hold (bucketctl hold break "
            f"{rows[0]['id']})",
            details=rows,
        )


class HoldStream:
    """The stream of one hold: it ends with the hold, and the hold with it."""

    def __init__(self, holds: Holds, hold: Hold, peer: Peer) -> None:
        self.hold, self._holds, self._is_gone = hold, holds, False
        self._changed = holds._changed
        threading.Thread(target=self._watch, args=(peer,), daemon=True).start()

    def is_over(self) -> bool:
        """Report whether the holder has gone, or may hold no longer; note the reason of a loss."""
        hold = self.hold
        if hold.held and (reason := self._holds.reason_of_end(hold.context)) is not None:
            self._holds.lose(hold, reason)
        is_refused = self._holds.reason_of_end(hold.context) is not None
        return self._is_gone or is_refused or hold.lost is not None or not hold.connected

    def frames(self) -> Generator[bytes, None, None]:
        hold = self.hold
        try:
            yield _event("hold", {**hold.public, "fence": hold.fence})
            while not self._wait():
                yield b":\n\n"
            if hold.lost is not None:
                yield _event("lost", {"id": hold.id, "reason": hold.lost})
        finally:
            # After a stop of the server the hold waits for its holder to come back.
            if hold.connected:
                self._holds.release(hold)

    def _wait(self) -> bool:
        """Wait for the end of the stream. Return False when a heartbeat is due."""
        context, left = self.hold.context, HEARTBEAT_SECONDS
        if context is not None:
            left = min(left, max(0.01, context.expires - time.time()))
        with self._changed:
            return self._changed.wait_for(self.is_over, left)

    def _watch(self, peer: Peer) -> None:
        peer.wait_until_closed()
        with self._changed:
            self._is_gone = True
            self._changed.notify_all()


def fences_of(values: list[str] | None) -> list[str] | None:
    """Return the fences in Bucketd-Fence. Raise InvalidRequest if they are malformed."""
    if values is None:
        return None
    found = list(dict.fromkeys(each.strip() for each in ",".join(values).split(",")))
    if len(found) > MAX_FENCES or not all(map(is_fence, found)):
        raise error(
            "invalid_request",
            f"cannot use Bucketd-Fence: it must have 1 to {MAX_FENCES} fences, as holds were given "
            "them, separated by commas",
        )
    return found


def is_fence(value: object) -> bool:
    """Report whether a value may be a fence: up to 200 visible ASCII characters."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_FENCE
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _is_label(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_LABEL:
        return False
    try:
        for start in range(0, len(value), 128):
            check_name(value[start : start + 128], "label")
    except BucketError:
        return False
    return True


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _where(key: Key) -> str:
    return f"device {key[0]!r}" + ("" if key[1] is None else f", job {key[1]!r}")


def _event(kind: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n".encode()


def _bad(cause: str) -> BucketError:
    return error("invalid_request", f"cannot hold: {cause}")
