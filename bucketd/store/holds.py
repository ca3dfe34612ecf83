"""Holds as data: one ordered queue says who holds a bucket or a device, and who waits.

An entry of the queue is *held* once no earlier entry excludes it; all others wait. So whoever comes
later never changes who holds, and an order that several hosts agree on is all that they need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import Held, HoldLost
from ..fs import clock
from ..model.bucket import BucketKey, timestamp

WAITING, TAKEN, RELEASED, LOST = "waiting", "taken", "released", "lost"


class Owner(NamedTuple):
    """Name who takes a hold: the process at the other end of the socket, and its context."""

    user: str
    uid: int
    pid: int
    context: str | None = None
    automation: str | None = None


@dataclass(slots=True, eq=False)
class Hold:
    """One entry of the queue: of the (device, job) pair ``key``, or of a whole device.

    ``order`` is its place in the queue. ``since`` (Unix time, for display) and ``began`` (seconds
    since boot) say when it began to wait, or to be held. ``connected`` is False while its owner
    may come back after a restart of the daemon; ``ending`` is True once it ends, and only its own
    writes in progress keep its place. ``lost`` says why the store has ended it, if it has.
    """

    id: str
    fence: str
    key: BucketKey
    owner: Owner
    host: str
    name: str = ""
    exclusive: bool = False
    label: str | None = None
    order: int = 0
    since: float = 0.0
    began: float = field(default_factory=clock.boottime)
    held: bool = False
    connected: bool = True
    ending: bool = False
    lost: str | None = None

    def excludes(self, other: Hold) -> bool:
        """Report whether only one of two entries can be held: a device excludes its jobs."""
        same = self.name == other.name and self.key.device == other.key.device
        return same and (None in (self.key.job, other.key.job) or self.key.job == other.key.job)

    def covers(self, key: BucketKey) -> bool:
        """Report whether a bucket is what this is a hold of, or is part of it."""
        return key == self.key or (key.device == self.key.device and self.key.job is None)

    def guards(self, key: BucketKey) -> bool:
        """Report whether the fence is good for a bucket.

        A job's fence is good for the bucket of its device, too, since all jobs share that one.
        """
        return self.covers(key) or key == (self.key.device, None)

    def permits(self, key: BucketKey) -> bool:
        """Report whether a write to a bucket with the fence may be applied now."""
        return self.held and not self.ending and self.guards(key)

    def row(self) -> dict[str, Any]:
        """Return what others may know of it: not the fence, with which they could write."""
        return {
            "id": self.id,
            "state": "held" if self.held else WAITING,
            "name": self.name,
            "device": self.key.device,
            "job": self.key.job,
            "exclusive": self.exclusive,
            "label": self.label,
            "since": timestamp(self.since),
            "seconds": round(max(0.0, clock.boottime() - self.began), 3),
            "connected": self.connected,
            "by": self.owner._asdict(),
            "host": self.host,
        }

    def __str__(self) -> str:
        job = "" if self.key.job is None else f", job {self.key.job!r}"
        name = f" as {self.name!r}" if self.name else ""
        return f"device {self.key.device!r}{job}{name}"


# The entries of one device with one name can exclude each other; by their order.
_Group = dict[int, Hold]


class HoldQueue:
    """All entries, in order. Change it on the event loop; ``check`` may run on any thread.

    ``changed`` is called with an entry and what happened to it: WAITING (added behind others),
    TAKEN (held from now on), RELEASED (removed), or LOST: the store is about to end it.
    """

    def __init__(self) -> None:
        self.changed: Callable[[Hold, str], None] = lambda _hold, _change: None
        self.refused = 0
        # The exclusive holds, by what they are holds of. An unfenced write looks only at this.
        self.exclusive: dict[BucketKey, Hold] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._by_id: dict[str, Hold] = {}
        self._by_fence: dict[str, Hold] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Hold]:
        """Yield all entries, by their order."""
        return iter(sorted(self._by_id.values(), key=lambda hold: hold.order))

    def find(self, hold_id: str) -> Hold | None:
        return self._by_id.get(hold_id)

    def with_fence(self, fence: str) -> Hold | None:
        return self._by_fence.get(fence)

    def add(self, hold: Hold) -> None:
        """Add an entry behind all others, by its ``order``, which no other entry has had."""
        group = self._groups.setdefault(_group_of(hold), {})
        blocked = any(earlier.excludes(hold) for earlier in group.values())
        group[hold.order] = hold
        self._by_id[hold.id] = self._by_fence[hold.fence] = hold
        if blocked:
            self.changed(hold, WAITING)
        else:
            self._take(hold)

    def remove(self, hold: Hold) -> None:
        """Remove an entry; those that only it has excluded are held from now on."""
        if self._by_id.get(hold.id) is not hold:
            return
        group = self._groups[_group_of(hold)]
        del group[hold.order], self._by_id[hold.id], self._by_fence[hold.fence]
        if self.exclusive.get(hold.key) is hold:
            del self.exclusive[hold.key]
        self.changed(hold, RELEASED)
        hold.held = False
        if group:
            for first in _unblocked(group):
                if not first.held:
                    first.since, first.began = time.time(), clock.boottime()
                    self._take(first)
        else:
            del self._groups[_group_of(hold)]

    def ahead_of(self, hold: Hold) -> list[Hold]:
        """Return who excludes an entry: those who hold, else the first one that waits before it."""
        group = self._groups.get(_group_of(hold), {})
        ahead = [one for one in group.values() if one.order < hold.order and one.excludes(hold)]
        return [one for one in ahead if one.held] or ahead[:1]

    def check(self, key: BucketKey, fences: tuple[str, ...]) -> None:
        """Raise HoldLost or Held unless a write to a bucket, with fences, may be applied now.

        Call this at the moment that orders the write among all others.
        """
        own = [self._by_fence.get(fence) for fence in fences]
        if not all(hold is not None and hold.permits(key) for hold in own):
            self.refused += 1
            raise hold_lost(key)
        exclusive = self.exclusive
        if exclusive:
            holder = exclusive.get(key) or exclusive.get(BucketKey(key.device))
            if holder is not None and holder not in own:
                raise held_exclusively(key, holder)

    def _take(self, hold: Hold) -> None:
        if hold.exclusive:
            self.exclusive[hold.key] = hold
        hold.held = True
        self.changed(hold, TAKEN)


def _group_of(hold: Hold) -> tuple[str, str]:
    return hold.key.device, hold.name


def _unblocked(group: _Group) -> list[Hold]:
    """Return the entries of a group that no earlier one excludes."""
    found: list[Hold] = []
    jobs: set[str | None] = set()
    for hold in group.values():
        if hold.key.job is None:
            return found or [hold]
        if hold.key.job not in jobs:
            jobs.add(hold.key.job)
            found.append(hold)
    return found


def hold_lost(key: BucketKey) -> HoldLost:
    return HoldLost(
        f"cannot change {key}: the hold of this Bucketd-Fence has ended, or is one of something "
        "else; nothing was changed; take the hold again, and look at the bucket anew"
    )


def held_exclusively(key: BucketKey, holder: Hold) -> Held:
    return Held(
        f"cannot change {key}: {holder.owner.user} holds {holder} exclusively since "
        f"{timestamp(holder.since)}; nothing was changed; try again once that ends, or let an "
        f"operator end it (bucketctl hold break {holder.id})",
        details=[holder.row()],
    )
