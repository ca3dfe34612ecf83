"""Event streams: all that happened is kept, and each stream reads on from its place in it."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from typing import Any, NamedTuple

from ._changes import Object
from ._model import Context, Key, Told
from ._state import State

HEARTBEAT_SECONDS = 15.0


class Only(NamedTuple):
    """What a stream is about: one bucket or, with ``key`` None, all that fit the names."""

    key: Key | None
    names: dict[str, str | None]
    members: frozenset[str] | None

    def frame(self, told: Told, id: str) -> bytes | None:
        """What is said of it; None where it does not concern the stream."""
        device, job = told.key
        is_called = {"device": device, "job": job, "automation": told.automation}
        if self.key not in (None, told.key) or any(
            value not in (None, is_called[name]) for name, value in self.names.items()
        ):
            return None
        changed = {k: v for k, v in told.set.items() if self.members is None or k in self.members}
        removed = [k for k in told.removed if self.members is None or k in self.members]
        if self.members is not None and not changed and not removed:
            return None
        return _bucket(told.key, told.revision, changed, removed, id)


class Stream:
    """One stream, begun: what comes first is settled, and whatever happens from now on follows."""

    def __init__(
        self, state: State, only: Only, context: Context | None, since: str | None, snapshot: bool
    ) -> None:
        self._state, self._only, self._context = state, only, context
        with state.lock:
            self._epoch = state.epoch
            self._at = len(state.told)
            known = None if since is None else state.place(since)
            # The id is behind what is still to be said, lest that be lost with the connection.
            self._first = b"retry: 1000\n\n"
            if since is not None and known is None:
                self._first += self._gap()
            self._at = self._at if known is None else known
            if since is None:
                self._first = b"retry: 1000\n" + self._id()
            if known is None and snapshot and only.key is not None:
                self._first += self._snapshot(only.key)

    def frames(self) -> Generator[bytes, None, None]:
        """Until the server stops, or its token opens nothing more."""
        state = self._state
        with state.lock:
            state.streams += 1
        try:
            yield self._first
            beats = False
            while True:
                alive, news = self._alive(), self._news()
                if news or beats:
                    yield news or b": \n" + self._id()
                if not alive:
                    return
                beats = not self._wait()
        finally:
            with state.changed:
                state.streams -= 1
                state.changed.notify_all()

    def _news(self) -> bytes:
        """What happened since; of what is not for this stream only where to go on from."""
        with self._state.lock:
            told = self._state.told[self._at :]
        said = b""
        for each in told:
            self._at += 1
            said += self._only.frame(each, self._state.id(self._at)) or b""
        return said

    def _wait(self) -> bool:
        """Whether there is something; False after so long without."""
        left = HEARTBEAT_SECONDS
        if self._context is not None:
            left = max(0.0, min(left, self._context.expires - time.time()))
        state = self._state
        with state.changed:
            return state.changed.wait_for(
                lambda: len(state.told) > self._at or not self._alive(), left
            )

    def _alive(self) -> bool:
        state, context = self._state, self._context
        return state.epoch == self._epoch and (context is None or context in state.live())

    def _id(self) -> bytes:
        return f"id: {self._state.id(self._at)}\n\n".encode()

    def _gap(self) -> bytes:
        key = self._only.key
        where = {} if key is None else {"device": key[0], "job": key[1]}
        return _event("gap", self._state.id(self._at), where)

    def _snapshot(self, key: Key) -> bytes:
        now, members = self._state.read(key), self._only.members
        chosen = {k: v for k, v in now.bucket.items() if members is None or k in members}
        return _bucket(key, now.revision, chosen, [], self._state.id(self._at))


def _bucket(key: Key, revision: int, set_: Object, removed: list[str], id: str) -> bytes:
    device, job = key
    names = {"device": device, "job": job, "revision": revision}
    return _event("bucket", id, {**names, "set": set_, "removed": removed})


def _event(kind: str, id: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\nid: {id}\ndata: {text}\n\n".encode()
