"""Holds in memory: one queue, in which an entry is held once no earlier one excludes it."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Callable, Optional

from .._errors import BucketError, error
from ._http import POLL_SECONDS, dumps

Key = tuple[str, Optional[str]]
# Why a hold ends: the reason of a loss, "" for its release, None while it lasts.
Over = Callable[[], Optional[str]]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


@dataclass(eq=False)
class Hold:
    """One entry of the queue: of the (device, job) pair ``key``, or of a whole device."""

    key: Key
    name: str
    exclusive: bool
    label: str | None
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    fence: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    since: str = field(default_factory=_now)
    held: bool = False

    def excludes(self, other: Hold) -> bool:
        return self.name == other.name and (self.covers(other.key) or other.covers(self.key))

    def covers(self, key: Key) -> bool:
        return self.key in (key, (key[0], None))

    @property
    def members(self) -> dict[str, Any]:
        names = {"name": self.name, "device": self.key[0], "job": self.key[1], "since": self.since}
        return {"id": self.id, **names, "exclusive": self.exclusive, "label": self.label}

    @property
    def row(self) -> dict[str, Any]:
        state = "held" if self.held else "waiting"
        return {**self.members, "state": state, "by": {"uid": os.getuid(), "pid": os.getpid()}}


class Holds:
    """All entries, in the order in which they came, under the lock of ``changed``."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._entries: list[Hold] = []

    def take(self, key: Key, wanted: dict[str, Any], over: Over) -> Iterator[bytes]:
        """Wait for a hold, and return its stream, whose end releases it. Raise Held."""
        if wanted.get("fence") is not None:
            raise error("hold_lost", "cannot come back to the hold: it has ended; take it again")
        hold = Hold(
            key, wanted.get("name", ""), wanted.get("exclusive", False), wanted.get("label")
        )
        until = time.monotonic() + float(wanted.get("wait_seconds", 0))
        with self._changed:
            self._entries.append(hold)
            while self._ahead(hold):
                left = min(until - time.monotonic(), POLL_SECONDS)
                reason = over()
                if left <= 0 or reason is not None:
                    problem = _refusal(hold, self._ahead(hold), reason)
                    self._remove(hold)
                    raise problem
                self._changed.wait(left)
            hold.held, hold.since = True, _now()
        return self._frames(hold, over)

    def check(self, key: Key, given: str | None) -> None:
        """Raise HoldLost or Held unless a write to a bucket with these fences may be made now."""
        fences = [] if given is None else [each.strip() for each in given.split(",")]
        good = {e.fence: e for e in self._entries if e.held}
        # All jobs share the bucket of their device.
        if not all(f in good and (good[f].covers(key) or key == (good[f].key[0], None))
                   for f in fences):  # fmt: skip
            raise error(
                "hold_lost",
                "cannot change the bucket: its hold has ended; nothing was changed; take it again",
            )
        for hold in good.values():
            if hold.exclusive and hold.covers(key) and hold.fence not in fences:
                raise error(
                    "held",
                    f"cannot change the bucket: it is held exclusively since {hold.since}; "
                    "nothing was changed; try again once that ends",
                    details=[hold.row],
                )

    def _frames(self, hold: Hold, over: Over) -> Iterator[bytes]:
        try:
            yield b"event: hold\ndata: " + dumps({**hold.members, "fence": hold.fence}) + b"\n\n"
            while (reason := over()) is None:
                with self._changed:
                    self._changed.wait(POLL_SECONDS)
                yield b""
            if reason:
                yield b"event: lost\ndata: " + dumps({"id": hold.id, "reason": reason}) + b"\n\n"
        finally:
            with self._changed:
                self._remove(hold)

    def _ahead(self, hold: Hold) -> list[Hold]:
        before = self._entries[: self._entries.index(hold)]
        return [each for each in before if each.excludes(hold)]

    def _remove(self, hold: Hold) -> None:
        self._entries.remove(hold)
        self._changed.notify_all()


def _refusal(hold: Hold, ahead: list[Hold], reason: str | None) -> BucketError:
    """Return why a waiter waits no longer: the end of its token, or those before it."""
    device, job = hold.key
    what = f"device {device!r}" + ("" if job is None else f", job {job!r}")
    if reason:
        return error("no_job_context", f"cannot hold {what}: its token is {reason}")
    return error(
        "held",
        f"cannot hold {what}: somebody holds it, or waits for it before you, since "
        f"{ahead[0].since}; wait longer (wait_seconds)",
        details=[each.row for each in ahead],
    )
