"""The nouns: a bucket as it is, what was done to it, guards, contexts. Plain frozen data."""

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
    """One bucket as it is; ``text`` is its compact JSON."""

    text: bytes = b"{}"
    revision: int = 0
    etag: str | None = None
    automation: str | None = None
    updated_at: str | None = None

    @property
    def bucket(self) -> Object:
        """A copy."""
        found: Object = _strict_json.loads(self.text)
        return found


ABSENT = Stored()


class Told(NamedTuple):
    """One change of a bucket, for those who watch it."""

    key: Key
    automation: str | None
    revision: int
    set: Object
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Write:
    """One write that was accepted.

    ``set`` has the keys that it named, and those that it changed, with their values since then;
    ``removed`` those that it took away. ``revision`` is that of the bucket afterwards.
    """

    method: str
    set: dict[str, Any]
    removed: tuple[str, ...]
    revision: int


class Tags(NamedTuple):
    """An If-Match or If-None-Match: ``any`` for ``*``, or the tags listed."""

    any: bool
    strong: frozenset[str]
    weak: frozenset[str]


class Guard(NamedTuple):
    if_match: Tags | None = None
    if_none_match: Tags | None = None

    def check(self, now: Stored) -> None:
        """PreconditionFailed, with the revision that is stored, unless both hold."""
        if self.matched(now) and self.unmatched(now):
            return
        cause = "it has changed since" if now.revision else "none is stored"
        raise error(
            "precondition_failed",
            f"cannot change the bucket: {cause if not self.matched(now) else 'it exists already'} "
            f"(revision {now.revision}); read it again and repeat",
            revision=now.revision,
        )

    def matched(self, now: Stored) -> bool:
        tags = self.if_match
        return tags is None or (now.revision > 0 and (tags.any or now.etag in tags.strong))

    def unmatched(self, now: Stored) -> bool:
        tags = self.if_none_match
        if tags is None or now.revision == 0:
            return True
        return not (tags.any or now.etag in tags.strong | tags.weak)


UNGUARDED = Guard()


@dataclass(frozen=True)
class Context:
    """What a token opens, until ``expires`` (Unix time)."""

    id: str
    token: str
    device: str
    job: str | None
    automation: str | None
    created: float
    expires: float

    @property
    def scope(self) -> dict[str, Any]:
        names = {"device": self.device, "job": self.job, "automation": self.automation}
        return {**names, "expires_at": timestamp(self.expires)}

    @property
    def public(self) -> dict[str, Any]:
        """All but the token."""
        return {"id": self.id, "created_at": timestamp(self.created), **self.scope}


def check_name(name: Any, what: str) -> str:
    """The name itself: 1 to 128 characters, without control characters and lone surrogates."""
    if isinstance(name, str) and 1 <= len(name) <= 128:
        if not any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
            return name
        cause = "it has a control character or a lone surrogate"
    else:
        cause = "it must be a text of 1 to 128 characters"
    raise error("invalid_request", f"cannot use the {what} name: {cause}")


def timestamp(at: float) -> str:
    second = int(at)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{date}.{int((at - second) * 1000):03d}Z"
