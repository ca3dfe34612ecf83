"""One bucket of the server in the hands of a test: seed it, look at it, assert what was done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._api import encode, whole
from . import _changes, _strict_json
from ._model import Write
from ._state import State


class StoredBucket:
    """A bucket as the server holds it; looking at it makes no request.

    ``token`` opens it, and for a job also its device's bucket.
    """

    def __init__(self, state: State, socket: str, device: str, job: str | None) -> None:
        self._state, self._key, self._socket = state, (device, job), socket
        self._context = state.mint(device, job, None, None)
        self._seeded = state.read(self._key)

    @property
    def token(self) -> str:
        return self._context.token

    @property
    def environ(self) -> dict[str, str]:
        """What ``bucketctl run`` would add to the environment of an automation."""
        device, job = self._key
        names = {"BUCKETD_DEVICE": device, **({} if job is None else {"BUCKETD_JOB": job})}
        return {"BUCKETD_SOCKET": self._socket, "BUCKETD_TOKEN": self.token, **names}

    @property
    def data(self) -> dict[str, Any]:
        """A copy of what is stored, ``{}`` where nothing is."""
        return self._state.read(self._key).bucket

    @property
    def revision(self) -> int:
        """0 where nothing is stored."""
        return self._state.read(self._key).revision

    @property
    def writes(self) -> list[Write]:
        """All writes that were accepted since ``seed``, the oldest first."""
        with self._state.lock:
            return list(self._state.writes.get(self._key, []))

    def seed(self, data: Mapping[str, Any]) -> None:
        """Put this in the place of what is stored; the writes of before are forgotten."""
        text = _strict_json.loads_object(encode(whole(data)))
        with self._state.lock:
            self._seeded = self._state.commit(self._key, "PUT", _changes.replace(text))
            self._state.writes.pop(self._key, None)

    def revoke(self) -> None:
        """End the token, as an operator may at any time: from now on it opens nothing."""
        self._state.revoke(self._context.id)

    def assert_set(self, expected: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Each of these keys was written since ``seed``, the last time with this value."""
        found: dict[str, Any] = {}
        for write in self.writes:
            found.update(write.set)
        for key, value in {**(expected or {}), **more}.items():
            if key not in found:
                raise AssertionError(f"{key!r} was not set; set were: {_names(found)}")
            if found[key] != value:
                raise AssertionError(f"{key!r} was set to {found[key]!r}, not to {value!r}")

    def assert_removed(self, *keys: str) -> None:
        """Each of these keys was taken away since ``seed``, and has not come back."""
        removed = {key for write in self.writes for key in write.removed}
        for key in keys:
            if key not in removed:
                raise AssertionError(f"{key!r} was not removed; removed were: {_names(removed)}")
            if key in self.data:
                raise AssertionError(f"{key!r} was removed, and set again to {self.data[key]!r}")

    def assert_unchanged(self) -> None:
        """The bucket is as it was seeded, and was so all the time."""
        now = self._state.read(self._key)
        if now.etag != self._seeded.etag:
            was = f"it was {self._seeded.bucket!r}, it is {now.bucket!r}"
            raise AssertionError(f"the bucket was changed: {was}")


def _names(keys: Any) -> str:
    return ", ".join(map(repr, keys)) or "none"
