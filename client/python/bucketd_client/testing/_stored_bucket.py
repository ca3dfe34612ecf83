"""One bucket of the server, for a test: seed it, inspect it, assert what was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._api import encode, whole
from . import _changes, _strict_json
from ._model import Write
from ._state import State


class StoredBucket:
    """A bucket in the server; reading it makes no request.

    ``token`` opens it, and for a job also its device's bucket.
    """

    def __init__(
        self, state: State, socket: str, device: str, job: str | None, label: str | None
    ) -> None:
        self._state, self._key, self._socket = state, (device, job), socket
        self._context = state.mint(device, job, label=label)
        self._seeded = state.read(self._key)

    @property
    def token(self) -> str:
        return self._context.token

    @property
    def environ(self) -> dict[str, str]:
        """Return what ``bucketctl run`` would add to the environment of an automation."""
        device, job = self._key
        names = {"DEVICE": device, "JOB": job, "RUN": self._context.label}
        given = {f"BUCKETD_{name}": text for name, text in names.items() if text is not None}
        return {"BUCKETD_SOCKET": self._socket, "BUCKETD_TOKEN": self.token, **given}

    @property
    def data(self) -> dict[str, Any]:
        """Return a copy of the bucket, ``{}`` where none is stored."""
        return self._state.read(self._key).bucket

    @property
    def revision(self) -> int:
        """0 where no bucket is stored."""
        return self._state.read(self._key).revision

    @property
    def writes(self) -> list[Write]:
        """Return all writes that were accepted since ``seed``, the oldest first."""
        with self._state.lock:
            return list(self._state.writes.get(self._key, []))

    def seed(self, data: Mapping[str, Any]) -> None:
        """Replace the bucket, and forget the writes before."""
        text = _strict_json.loads_object(encode(whole(data)))
        with self._state.lock:
            self._seeded = self._state.commit(self._key, "PUT", _changes.replace(text))
            self._state.writes.pop(self._key, None)

    def set_defaults(self, data: Mapping[str, Any]) -> None:
        """Complete later reads with ``defaults`` by these keys, as a schema with defaults does."""
        defaults = _strict_json.loads_object(encode(whole(data)))
        with self._state.lock:
            self._state.defaults[self._key] = defaults

    def revoke(self) -> None:
        """Revoke the token, as an operator may at any time."""
        self._state.revoke(self._context.id)

    def assert_set(self, expected: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Assert that each key was written since ``seed``, the last time with this value."""
        found: dict[str, Any] = {}
        for write in self.writes:
            found.update(write.set)
        for key, value in {**(expected or {}), **more}.items():
            if key not in found:
                raise AssertionError(f"{key!r} was not set; set were: {_names(found)}")
            if found[key] != value:
                raise AssertionError(f"{key!r} was set to {found[key]!r}, not to {value!r}")

    def assert_removed(self, *keys: str) -> None:
        """Assert that each key was removed since ``seed``, and not set again."""
        removed = {key for write in self.writes for key in write.removed}
        for key in keys:
            if key not in removed:
                raise AssertionError(f"{key!r} was not removed; removed were: {_names(removed)}")
            if key in self.data:
                raise AssertionError(f"{key!r} was removed, and set again to {self.data[key]!r}")

    def assert_unchanged(self) -> None:
        """Assert that the bucket has not changed since ``seed``, not even to and fro."""
        now = self._state.read(self._key)
        if now.etag != self._seeded.etag:
            was = f"it was {self._seeded.bucket!r}, it is {now.bucket!r}"
            raise AssertionError(f"the bucket was changed: {was}")


def _names(keys: Any) -> str:
    return ", ".join(map(repr, keys)) or "none"
