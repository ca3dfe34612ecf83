"""Handlers of a bucket's history: its changes, an earlier state, and taking a change back."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from ...concurrency import offload
from ...errors import InvalidRequest
from ...model.bucket import Snapshot
from ...model.revisions import History, Revision
from ...model.strict_json import as_object
from ...store.base import settled
from .. import responses
from ..access import user_name
from ..request import Request
from ..responses import Response

if TYPE_CHECKING:
    from ...core.schemas.masking import Masking

DEFAULT_PAGE, MAX_PAGE = 50, 1000
_NUMBER = re.compile(r"[1-9][0-9]{0,14}")
MAX_REVISION = 10**15


async def list_all(request: Request) -> Response:
    """Return a page of changes, the newest first."""
    limit = _number(request, "limit", MAX_PAGE) or DEFAULT_PAGE
    before = _number(request, "cursor", MAX_REVISION)
    with_values = request.flag("values")
    history = await request.services.buckets.history(request.bucket.key)
    return await offload(_page, request, history, limit, before, with_values)


def _page(
    request: Request, history: History, limit: int, before: int | None, with_values: bool
) -> Response:
    every = history.revisions
    masking = None
    if request.head.masked and with_values:
        # A schema that applied on another page may have made a value of this one secret.
        kept = list(every)
        masking = _masking(request, history.now, *(one.automation for one in kept))
        every = iter(kept)
    rows = (one for one in every if before is None or one.revision < before)
    found = list(islice(rows, limit + 1))
    shown = [_entry(one, with_values, masking) for one in found[:limit]]
    cursor = str(found[limit - 1].revision) if len(found) > limit else None
    return responses.success({"history": shown, "next_cursor": cursor})


def _entry(one: Revision, with_values: bool, masking: Masking | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "revision": one.revision,
        "at": one.at,
        "etag": one.etag,
        "by": one.author.members(one.automation),
        "set": [] if one.inverse is None else one.inverse.set_keys,
        "removed": [] if one.inverse is None else [*one.inverse.removed],
    }
    if one.undoes is not None:
        entry["undoes"] = one.undoes
    if one.inverse is None or one.inverse.is_lost:
        return {**entry, "before_known": False}
    if with_values:
        members = one.inverse.changed | one.inverse.removed
        if masking is not None:
            members = masking.members(members)
        entry["before"] = orjson.Fragment(b"{%b}" % b",".join(members.values()))
    return entry


async def read_revision(request: Request) -> Response:
    """Return an earlier state of a bucket."""
    number, target = _number(request, "revision", MAX_REVISION), request.bucket
    if "defaults" in request.head.query:
        raise InvalidRequest(
            "cannot use the parameter defaults with revision: an earlier state is shown as it was"
        )
    found = await request.services.buckets.state_at(target.key, number or 0)
    return await offload(_earlier, request, found.snapshot, found.automations)


def _earlier(request: Request, now: Snapshot, automations: frozenset[str | None]) -> Response:
    head, target = request.head, request.bucket
    masking = _masking(request, now, *automations) if head.masked else None
    tagged = now if masking is None else masking.tagged(now)
    if not head.preconditions.if_none_match_holds(tagged):
        return responses.not_modified(tagged)
    head.preconditions._replace(if_none_match=None).check(now, target.key, "read")
    keys = head.query.get("key")
    chosen = now if keys is None else now._replace(bucket=now.bucket.only(keys))
    return target.template.fill(chosen if masking is None else masking.snapshot(chosen))


def _masking(request: Request, now: Snapshot, *automations: str | None) -> Masking | None:
    """Return the masks of a bucket by all schemas that may have applied to it."""
    schemas = request.services.schemas
    return schemas.masking(now.automation, request.bucket.automation, *automations)


async def undo(request: Request) -> Response:
    """Take one change back: a write like any other. Of a deleted bucket that is its deletion."""
    number = await request.json(_revision_to_undo) if request.body else None
    author = request.author(await user_name(request.peer.uid))
    target, head, services = request.bucket, request.head, request.services
    key, preconditions, buckets = target.key, head.preconditions, services.buckets
    if number is None and not (await settled(buckets.read(key))).revision:
        now = await services.trash.restore_newest(buckets, key, preconditions, author)
    else:
        now = await buckets.undo(key, number, preconditions, target.automation, author)
    template = responses.MINIMAL if head.minimal else target.template
    masking = _masking(request, now) if head.masked and not head.minimal else None
    return template.fill(now if masking is None else await offload(masking.snapshot, now))


def _revision_to_undo(body: object) -> int | None:
    members = as_object(body)
    if unknown := [name for name in members if name != "revision"]:
        raise InvalidRequest(f"cannot undo: {unknown[0][:40]!r} is not revision")
    number = members.get("revision")
    if number is None and "revision" not in members:
        return None
    if type(number) is float and number.is_integer():
        # 7.0 is a whole number in JSON, too.
        number = int(number)
    if type(number) is not int or not 1 <= number < MAX_REVISION:
        raise InvalidRequest("cannot undo: revision must be a whole number from 1")
    return number


def _number(request: Request, name: str, most: int) -> int | None:
    """Return a parameter that is a positive whole number; None if it is not given."""
    text = request.one(name)
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None or int(text) > most:
        raise InvalidRequest(
            f"cannot use the parameter {name}: it must be a whole number from 1 to {most}"
        )
    return int(text)
