"""One bucket of the server, for a test: seed it, inspect it, assert what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._api import encode, whole

if TYPE_CHECKING:
    from ._holds import Key
    from ._server import Server


@dataclass(frozen=True)
class Write:
    """One write that was accepted.

    ``set`` has the keys that the write named or changed, with their values afterwards; ``removed``
    has the keys that it removed. ``revision`` is the bucket's afterwards.
    """

    method: str
    set: dict[str, Any]
    removed: tuple[str, ...]
    revision: int


class StoredBucket:
    """A bucket in the server; reading it counts as no call of the code under test.

    ``token`` opens it, and for a job also its device's bucket.
    """

    def __init__(self, server: Server, key: Key, label: str | None, automation: str | None) -> None:
        self._server, self._key, self._label = server, key, label
        wanted = {"device": key[0], "job": key[1], "label": label, "automation": automation}
        body = encode({name: value for name, value in wanted.items() if value is not None})
        made, _ = server.ask("POST", "/v1/contexts", body)
        self._id: str = made["id"]
        self.token: str = made["token"]
        self._seeded = server.read(key)

    @property
    def environ(self) -> dict[str, str]:
        """Return what ``bucketctl run`` would add to the environment of an automation."""
        device, job = self._key
        names = {"DEVICE": device, "JOB": job, "RUN": self._label}
        given = {f"BUCKETD_{name}": text for name, text in names.items() if text is not None}
        return {"BUCKETD_SOCKET": self._server.socket, "BUCKETD_TOKEN": self.token, **given}

    @property
    def data(self) -> dict[str, Any]:
        """Return a copy of the bucket, ``{}`` where none is stored."""
        return self._server.read(self._key)[0]

    @property
    def revision(self) -> int:
        """0 where no bucket is stored."""
        return self._server.read(self._key)[1]

    @property
    def writes(self) -> list[Write]:
        """Return all writes that were accepted since ``seed``, the oldest first."""
        return self._server.writes(self._key)

    def seed(self, data: Mapping[str, Any]) -> None:
        """Replace the bucket, and forget the writes before."""
        from ._server import target_of

        self._server.ask("PUT", target_of(self._key), encode(whole(data)))
        self._seeded = self._server.read(self._key)
        self._server.forget_writes(self._key)

    def set_defaults(self, data: Mapping[str, Any]) -> None:
        """Complete later reads with ``defaults`` by these keys, as a schema with defaults does."""
        self._server.set_defaults(self._key, whole(data))

    def revoke(self) -> None:
        """Revoke the token, as an operator may at any time."""
        self._server.ask("DELETE", f"/v1/contexts/{self._id}")

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
        now, _, etag = self._server.read(self._key)
        if etag != self._seeded[2]:
            was = f"it was {self._seeded[0]!r}, it is {now!r}"
            raise AssertionError(f"the bucket was changed: {was}")


def _names(keys: Any) -> str:
    return ", ".join(map(repr, keys)) or "none"
