"""The state of the server: buckets and contexts in memory, under one lock."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from .._errors import BucketError, error
from . import _strict_json
from ._changes import Change, Object
from ._holds import Holds
from ._model import (
    ABSENT,
    NO_PRECONDITIONS,
    Context,
    Key,
    Notification,
    Preconditions,
    Stored,
    Write,
    check_name,
    timestamp,
)

DEFAULT_TTL, MAX_TTL = 86400.0, 31622400.0


@dataclass
class State:
    """All buckets and contexts. ``max_bytes`` bounds the compact JSON of each bucket."""

    max_bytes: int = 1024 * 1024
    buckets: dict[Key, Stored] = field(default_factory=dict)
    writes: dict[Key, list[Write]] = field(default_factory=dict)
    # By bucket, what a schema would have as defaults.
    defaults: dict[Key, Object] = field(default_factory=dict)
    contexts: dict[str, Context] = field(default_factory=dict)
    notifications: list[Notification] = field(default_factory=list)
    streams: int = 0
    # The number of stops so far.
    epoch: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    _mark: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)
        self.holds = Holds(self.changed, lambda context: context in self.live())

    def id(self, position: int) -> str:
        """Return the event id after which a stream continues with ``notifications[position:]``."""
        return f"{self._mark}.{position}"

    def position(self, id: str) -> int | None:
        """Return the position of an event id, None for an id of another server, or none at all."""
        mark, _, number = id.partition(".")
        if mark != self._mark or not (number.isascii() and number.isdecimal()):
            return None
        position = int(number[:9])
        return position if position <= len(self.notifications) else None

    def defaults_of(self, key: Key) -> Object:
        with self.lock:
            return self.defaults.get(key, {})

    def read(self, key: Key) -> Stored:
        with self.lock:
            return self.buckets.get(key, ABSENT)

    def commit(
        self,
        key: Key,
        method: str,
        change: Change | None,
        preconditions: Preconditions = NO_PRECONDITIONS,
        automation: str | None = None,
        named: Object | None = None,
    ) -> Stored:
        """Apply a change, or delete the bucket where it is None. Return the bucket afterwards.

        ``named`` are the keys that the request itself sets.
        """
        with self.lock:
            now = self.read(key)
            preconditions.check(now)
            after = None if change is None else change(now.bucket)
            if after is None:
                new = ABSENT
            elif _strict_json.equal(after, now.bucket) and (
                automation in (None, now.automation) if now.revision else method != "PUT"
            ):
                new = now
            else:
                new = self._next(now, after, automation)
            self._keep(key, new)
            if new.etag != now.etag:
                self._publish(key, now, new)
            self._record_write(key, method, now.bucket, new, named or {})
            return new

    def mint(
        self, device: Any, job: Any, automation: Any = None, ttl: Any = None, label: Any = None
    ) -> Context:
        """Mint a context. Raise InvalidRequest for invalid names or seconds."""
        check_name(device, "device")
        for name, what in ((job, "job"), (automation, "automation"), (label, "label")):
            if name is not None:
                check_name(name, what)
        ttl = DEFAULT_TTL if ttl is None else ttl
        if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or not 0 < ttl <= MAX_TTL:
            raise error(
                "invalid_request",
                "cannot mint a context: ttl_seconds must be a number over 0 "
                f"and at most {MAX_TTL:.0f}",
            )
        token, now = secrets.token_urlsafe(32), time.time()
        context = Context(
            secrets.token_hex(8), token, device, job, automation, now, now + ttl, label
        )
        with self.lock:
            self.contexts[context.id] = context
        return context

    def live(self) -> list[Context]:
        """Return the contexts that have not expired, the oldest first."""
        with self.lock:
            return [each for each in self.contexts.values() if each.expires > time.time()]

    def revoke(self, context_id: str) -> None:
        with self.lock:
            if context_id not in {each.id for each in self.live()}:
                raise error("not_found", "cannot revoke the context: no live one has this id")
            del self.contexts[context_id]
            self.changed.notify_all()

    def _next(self, now: Stored, after: Object, automation: str | None) -> Stored:
        text = _strict_json.kept(after)
        if len(text) > max(self.max_bytes, len(now.text)):
            raise _too_large(after, len(text), self.max_bytes)
        etag = f"{self._mark}{next(self._numbers):06x}"
        return Stored(
            text, now.revision + 1, etag, automation or now.automation, timestamp(time.time())
        )

    def _keep(self, key: Key, new: Stored) -> None:
        if new.revision:
            self.buckets[key] = new
        else:
            self.buckets.pop(key, None)

    def _publish(self, key: Key, before: Stored, after: Stored) -> None:
        old, new = before.bucket, after.bucket
        changed = {
            k: v for k, v in new.items() if k not in old or not _strict_json.equal(old[k], v)
        }
        removed = tuple(k for k in old if k not in new)
        automation = after.automation or before.automation
        self.notifications.append(Notification(key, automation, after.revision, changed, removed))
        self.changed.notify_all()

    def _record_write(
        self, key: Key, method: str, before: Object, new: Stored, named: Object
    ) -> None:
        after = new.bucket
        changed = {
            name: value
            for name, value in after.items()
            if name in named or name not in before or not _strict_json.equal(before[name], value)
        }
        removed = tuple(name for name in before if name not in after)
        self.writes.setdefault(key, []).append(Write(method, changed, removed, new.revision))


def _too_large(after: Object, size: int, limit: int) -> BucketError:
    sizes = {key: len(_strict_json.dumps(value)) for key, value in after.items()}
    largest = sorted(sizes, key=lambda key: -sizes[key])[:3]
    shown = ", ".join(f"{key[:40]!r} ({sizes[key]} bytes)" for key in largest)
    return error(
        "too_large",
        f"cannot set the bucket: it would have {size} bytes, allowed are {limit}; "
        f"its largest keys: {shown}",
        details=[{"key": key, "bytes": sizes[key]} for key in largest],
    )
