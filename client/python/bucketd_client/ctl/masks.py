"""Masks: what the daemon sends in place of secrets, which nobody shall read over a shoulder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .. import _api, _context
from .._errors import InvalidRequest, NotFound, PreconditionFailed
from . import json_diff
from .json_diff import ABSENT, Change, pointer
from .parser import Usage
from .session import MASK_SECRETS, Session

MASK = {"$masked": True}
# A bucket that changes between its two reads is read again so many times.
TRIES = 5


class Read(NamedTuple):
    """One state of a bucket, with its secrets and with masks in their place.

    ``guard`` has the headers with which a request is about this state alone.
    """

    bucket: dict[str, Any]
    masked: dict[str, Any]
    etag: str | None
    masked_etag: str | None
    revision: int | None
    guard: dict[str, str]

    @property
    def marks_secrets(self) -> bool:
        """Report whether the bucket's schema marks secrets, whether or not the bucket has some."""
        return self.etag != self.masked_etag


def read(session: Session, scope: _context.Scope, mask: bool) -> Read:
    """Return a state of the bucket; without ``mask`` both forms show the secrets."""
    headers = scope.headers()
    for tries_left in reversed(range(TRIES)):
        reply = session.call("GET", scope.target(), headers=headers)
        etag, bucket = reply.etag, reply.members[scope.label]
        guard = {"If-None-Match": "*"} if etag is None else {"If-Match": etag}
        masked = reply
        if mask:
            target = scope.target(more=[MASK_SECRETS])
            try:
                masked = session.call("GET", target, headers={**headers, **guard})
            except PreconditionFailed:
                if tries_left:
                    continue
                raise
        revision = reply.members.get("revision")
        return Read(bucket, masked.members[scope.label], etag, masked.etag, revision, guard)
    raise AssertionError("the last try returns or raises")


def of_file(session: Session, bucket: Any) -> Any:
    """Return a bucket that is not stored, with masks by the schema of the stored one."""
    device, job, automation = map(session.options.get, ("device", "job", "automation"))
    if device is None:
        raise Usage(
            "cannot compare with a file here: the bucket's schema marks secrets, and a token does "
            "not tell which values of a file those are; show them all with --reveal"
        )
    from .preflight import binding

    if automation is None and job is not None:
        automation = binding(session, device, job)
    if automation is None:
        return bucket
    target = f"/v1/schemas/{_context.escape(automation)}/check"
    headers, body = {"Content-Type": _api.JSON}, _api.encode({"bucket": bucket})
    try:
        places = session.call("POST", target, headers=headers, body=body).members["secrets"]
    except (InvalidRequest, NotFound, KeyError):
        raise Usage(
            "cannot compare with the file: the daemon does not say which of its values are "
            "secret; show them all with --reveal"
        ) from None
    return _with_masks(bucket, {tuple(_steps(place)) for place in places}, ())


def _with_masks(value: Any, places: set[tuple[str, ...]], here: tuple[str, ...]) -> Any:
    if here in places:
        return MASK
    if isinstance(value, dict):
        return {key: _with_masks(child, places, (*here, key)) for key, child in value.items()}
    if isinstance(value, list):
        return [_with_masks(child, places, (*here, str(n))) for n, child in enumerate(value)]
    return value


def _steps(place: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in place.split("/")[1:]]


def shown(found: Iterable[Change], before: Any, after: Any) -> Iterator[Change]:
    """Yield the changes as the masked forms of both sides show them, each masked place once."""
    seen = set()
    for change in found:
        steps = _steps(change.path)
        depth = min(_depth(side, steps) for side in (before, after))
        place = "".join(map(pointer, steps[:depth]))
        if place in seen:
            continue
        if depth < len(steps):
            seen.add(place)
        sides = (_at(before, steps[:depth]), _at(after, steps[:depth]))
        yield Change(place, *sides)


def _depth(value: Any, steps: list[str]) -> int:
    """Return how many steps lead to a mask, or all."""
    for depth, step in enumerate(steps):
        if value == MASK:
            return depth
        value = _at(value, [step])
    return len(steps)


def _at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value.get(step, ABSENT) if isinstance(value, dict) else ABSENT
    return value


def restored(text: Any, bucket: Any, masked: Any, place: str = "") -> Any:
    """Return an edited text with the secrets that its masks stand for; ``masked`` was shown.

    Raises Usage for a mask that stands for no secret, or of which nobody can tell for which.
    """
    if json_diff.same(text, masked):
        return bucket
    is_mask = isinstance(text, dict) and text.get("$masked") is True
    if not is_mask and all(isinstance(each, dict) for each in (text, bucket, masked)):
        return {
            key: restored(
                child, bucket.get(key, ABSENT), masked.get(key, ABSENT), place + pointer(key)
            )
            for key, child in text.items()
        }
    if found := find(text, place):
        hint = "remove it, or write the value"
        if isinstance(text, list):
            hint = "leave the array as it is, or edit it with --reveal"
        raise Usage(
            f"cannot use the text: nobody can tell which secret the mask at {found[0]} stands for; "
            f"{hint}"
        )
    return text


def find(value: Any, place: str = "") -> list[str]:
    """Return the JSON Pointers of all masks in a value."""
    if isinstance(value, dict):
        if value.get("$masked") is True:
            return [place or "/"]
        children = [(pointer(key), child) for key, child in value.items()]
    elif isinstance(value, list):
        children = [(f"/{number}", child) for number, child in enumerate(value)]
    else:
        return []
    return [found for step, child in children for found in find(child, place + step)]
