"""``Change`` and ``Notice``: what a watch yields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ._results import Result


class Change(Result):
    """One change of a bucket: an object that is also a mapping of its members.

    ``set`` has the keys that changed with their new values, ``removed`` the keys that were removed.
    ``revision`` is 0 once the bucket is deleted. ``job`` is None for a device bucket.
    ``watch(since=change.id)`` continues after this change, also in another process.

    With ``gap`` the changes before are unknown, and ``set`` is the whole current bucket: keys that
    are not in it have been removed.
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
    """An event other than a change, for operators: ``event`` is its kind, ``data`` its members."""

    __slots__ = ()

    @property
    def event(self) -> str:
        return str(self._members["event"])

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = self._members["data"]
        return found
