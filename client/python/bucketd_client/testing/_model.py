"""The nouns as frozen data: stored bucket, notification, write, preconditions, context."""

from __future__ import annotations

import time
import unicodedata
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from .._errors import error
from . import _strict_json
from ._changes import Object

Key = tuple[str, Optional[str]]


class Stored(NamedTuple):
    """A stored bucket; ``text`` is its compact JSON."""

    text: bytes = b"{}"
    revision: int = 0
    etag: str | None = None
    automation: str | None = None
    updated_at: str | None = None

    @property
    def bucket(self) -> Object:
        """Return a copy."""
        found: Object = _strict_json.loads(self.text)
        return found


ABSENT = Stored()


class Notification(NamedTuple):
    """One change of a bucket, for event streams."""

    key: Key
    automation: str | None
    revision: int
    set: Object
    removed: tuple[str, ...]


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


class EntityTags(NamedTuple):
    """An If-Match or If-None-Match: ``any`` for ``*``, or a list of entity tags."""

    any: bool
    strong: frozenset[str]
    weak: frozenset[str]


class Preconditions(NamedTuple):
    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None

    def check(self, now: Stored) -> None:
        """Raise PreconditionFailed, with the stored revision, unless both conditions hold."""
        if self.if_match_holds(now) and self.if_none_match_holds(now):
            return
        cause = "it has changed since" if now.revision else "none is stored"
        if self.if_match_holds(now):
            cause = "it exists already"
        raise error(
            "precondition_failed",
            f"cannot change the bucket: {cause} (revision {now.revision}); "
            "read it again and repeat",
            revision=now.revision,
        )

    def if_match_holds(self, now: Stored) -> bool:
        tags = self.if_match
        return tags is None or (now.revision > 0 and (tags.any or now.etag in tags.strong))

    def if_none_match_holds(self, now: Stored) -> bool:
        tags = self.if_none_match
        if tags is None or now.revision == 0:
            return True
        return not (tags.any or now.etag in tags.strong | tags.weak)


NO_PRECONDITIONS = Preconditions()


@dataclass(frozen=True)
class Context:
    """What a token opens until ``expires`` (Unix time)."""

    id: str
    token: str
    device: str
    job: str | None
    automation: str | None
    created: float
    expires: float
    label: str | None = None

    @property
    def scope(self) -> dict[str, Any]:
        names = {"device": self.device, "job": self.job, "automation": self.automation}
        return {**names, "label": self.label, "expires_at": timestamp(self.expires)}

    @property
    def public(self) -> dict[str, Any]:
        """Return all but the token."""
        return {"id": self.id, "created_at": timestamp(self.created), **self.scope}


def check_name(name: Any, what: str) -> str:
    """Return the name. Raise InvalidRequest unless it is a valid name of 1 to 128 characters."""
    if not isinstance(name, str):
        cause = "it must be a string"
    elif not 1 <= len(name) <= 128:
        cause = f"it has {len(name)} characters, allowed are 1 to 128"
    elif any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        cause = "it has a control character or a lone surrogate"
    else:
        return name
    raise error("invalid_request", f"cannot use the {what} name: {cause}")


def timestamp(at: float) -> str:
    second = int(at)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{date}.{int((at - second) * 1000):03d}Z"
