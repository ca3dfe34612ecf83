"""``Change``: what a watcher is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ._results import Result


class Change(Result):
    """One change of a bucket: an object, and a mapping of the same members.

    ``set`` has the keys that changed with their new values, ``removed`` those that went.
    ``revision`` is 0 once the bucket is deleted. ``job`` is None for a device bucket.
    ``watch(since=change.id)`` goes on behind it, in another process too.

    With ``gap`` what happened before it is not known any more, and ``set`` is the whole
    bucket as it is now: what is not in it is gone.
    """

    __slots__ = ()

    success: Literal[True] = True

    @classmethod
    def of(cls, data: Mapping[str, Any], id: str, gap: bool = False) -> Change:
        names: dict[str, Any] = {
            "device": None,
            "job": None,
            "revision": 0,
            "set": {},
            "removed": [],
        }
        return cls({**names, **data, "id": id, "gap": gap})

    @property
    def device(self) -> str:
        return str(self._members["device"])

    @property
    def job(self) -> str | None:
        found: str | None = self._members["job"]
        return found

    @property
    def revision(self) -> int:
        return int(self._members["revision"])

    @property
    def set(self) -> dict[str, Any]:
        found: dict[str, Any] = self._members["set"]
        return found

    @property
    def removed(self) -> list[str]:
        found: list[str] = self._members["removed"]
        return found

    @property
    def id(self) -> str:
        return str(self._members["id"])

    @property
    def gap(self) -> bool:
        return bool(self._members["gap"])


class Notice(Result):
    """Something else that happened, as an operator is told: ``event`` says what, ``data`` whom."""

    __slots__ = ()

    @property
    def event(self) -> str:
        return str(self._members["event"])

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = self._members["data"]
        return found
