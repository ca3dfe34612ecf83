"""Event streams: all changes are kept, and each stream reads on from its position in them."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from typing import Any, NamedTuple

from ._changes import Object
from ._model import Context, Key, Notification
from ._state import State

HEARTBEAT_SECONDS = 15.0
_CHANGES = {"held": "taken", "waiting": "waiting"}


class Filter(NamedTuple):
    """What a stream is about: one bucket or, with ``key`` None, all that match the names."""

    key: Key | None
    names: dict[str, str | None]
    members: frozenset[str] | None

    def frame(self, notification: Notification, id: str) -> bytes | None:
        """Return the event of a change, None where the stream is not about it."""
        device, job = notification.key
        is_called = {"device": device, "job": job, "automation": notification.automation}
        if self.key not in (None, notification.key) or any(
            value not in (None, is_called[name]) for name, value in self.names.items()
        ):
            return None
        changed = {
            k: v for k, v in notification.set.items() if self.members is None or k in self.members
        }
        removed = [k for k in notification.removed if self.members is None or k in self.members]
        if self.members is not None and not changed and not removed:
            return None
        return _bucket(notification.key, notification.revision, changed, removed, id)

    def hold(self, change: str, row: dict[str, Any]) -> bytes:
        """Return the event of a hold, nothing where the stream is not about it."""
        if self.key is None:
            called = {**row, "automation": row["by"]["automation"]}
            is_about = all(v in (None, called[name]) for name, v in self.names.items())
        else:
            device, job = self.key
            is_about = row["device"] == device and (job is None or row["job"] in (None, job))
        if not is_about:
            return b""
        text = json.dumps({"change": change, **row}, ensure_ascii=False, separators=(",", ":"))
        return f"event: hold\ndata: {text}\n\n".encode()


class Stream:
    """One stream: its first bytes are fixed when it is made, and each later change follows."""

    def __init__(
        self,
        state: State,
        filter: Filter,
        context: Context | None,
        since: str | None,
        snapshot: bool,
        holds: bool = False,
    ) -> None:
        self._state, self._filter, self._context = state, filter, context
        # The position in the notices of holds; None for a stream without them.
        self._holds_at: int | None = None
        with state.lock:
            self._epoch = state.epoch
            self._at = len(state.notifications)
            known = None if since is None else state.position(since)
            # The id stands after the events that are still to come, so none of them is lost.
            self._first = b"retry: 1000\n\n"
            if since is not None and known is None:
                self._first += self._gap()
            self._at = self._at if known is None else known
            if since is None:
                self._first = b"retry: 1000\n" + self._id()
            if known is None and snapshot and filter.key is not None:
                self._first += self._snapshot(filter.key)
            if holds:
                self._holds_at = len(state.holds.notices)
                rows = [(_CHANGES[row["state"]], row) for row in state.holds.rows]
                self._first += b"".join(filter.hold(*each) for each in rows)

    def frames(self) -> Generator[bytes, None, None]:
        """Yield bytes until the server stops, or the token is no longer valid."""
        state = self._state
        with state.lock:
            state.streams += 1
        try:
            yield self._first
            beats = False
            while True:
                alive, news = self._alive(), self._new_events()
                if news or beats:
                    yield news or b": \n" + self._id()
                if not alive:
                    return
                beats = not self._wait()
        finally:
            with state.changed:
                state.streams -= 1
                state.changed.notify_all()

    def _new_events(self) -> bytes:
        """Return the events since the last call, and advance the position."""
        with self._state.lock:
            notifications = self._state.notifications[self._at :]
        events = b""
        for each in notifications:
            self._at += 1
            events += self._filter.frame(each, self._state.id(self._at)) or b""
        return events + self._new_holds()

    def _new_holds(self) -> bytes:
        if self._holds_at is None:
            return b""
        with self._state.lock:
            notices = self._state.holds.notices[self._holds_at :]
        self._holds_at += len(notices)
        return b"".join(self._filter.hold(*each) for each in notices)

    def _has_news(self) -> bool:
        state, holds_at = self._state, self._holds_at
        return len(state.notifications) > self._at or (
            holds_at is not None and len(state.holds.notices) > holds_at
        )

    def _wait(self) -> bool:
        """Wait for a change or the end. Return False when a heartbeat is due."""
        left = HEARTBEAT_SECONDS
        if self._context is not None:
            left = max(0.0, min(left, self._context.expires - time.time()))
        state = self._state
        with state.changed:
            return state.changed.wait_for(lambda: self._has_news() or not self._alive(), left)

    def _alive(self) -> bool:
        state, context = self._state, self._context
        return state.epoch == self._epoch and (context is None or context in state.live())

    def _id(self) -> bytes:
        return f"id: {self._state.id(self._at)}\n\n".encode()

    def _gap(self) -> bytes:
        key = self._filter.key
        where = {} if key is None else {"device": key[0], "job": key[1]}
        return _event("gap", self._state.id(self._at), where)

    def _snapshot(self, key: Key) -> bytes:
        now, members = self._state.read(key), self._filter.members
        chosen = {k: v for k, v in now.bucket.items() if members is None or k in members}
        return _bucket(key, now.revision, chosen, [], self._state.id(self._at))


def _bucket(key: Key, revision: int, set_: Object, removed: list[str], id: str) -> bytes:
    device, job = key
    names = {"device": device, "job": job, "revision": revision}
    return _event("bucket", id, {**names, "set": set_, "removed": removed})


def _event(kind: str, id: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\nid: {id}\ndata: {text}\n\n".encode()
