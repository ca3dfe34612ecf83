"""Handlers of the bucket routes, whichever way a route names the bucket."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import orjson

from ...concurrency import INLINE_MAX_BYTES, offload
from ...core.schemas.registry import Registry
from ...errors import InvalidRequest
from ...model import changes, strict_json
from ...model.bucket import BucketKey, Snapshot, envelope_fields, is_timestamp
from ...model.changes import Change, Metadata
from ...model.masks import refuse_masks
from ...model.strict_json import as_object
from ...store.base import BucketInfo, Filter, Page, settled
from .. import headers, responses
from ..access import known_user_name, user_name
from ..request import Request
from ..responses import Deferred, Reply, Response
from . import history

if TYPE_CHECKING:
    from ...core.schemas.masking import Masking

MAX_PAGE = 1000
# 100 years, the limit of [retention] days.
MAX_DAYS = 36525
_ROW = tuple(field.name for field in dataclasses.fields(BucketInfo))
ChangeOf = Callable[[Request, object], Change]


def read(request: Request) -> Reply:
    target = request.bucket
    if "revision" in request.head.query:
        return history.read_revision(request)
    completes = bool(request.head.query) and request.flag("defaults")
    found = request.services.buckets.read(target.key, request.head.stale_ok)
    if completes:
        return _read_completed(request, found)
    if isinstance(found, Snapshot):
        return _shown(request, found)
    return _read_later(request, found)


async def _read_later(request: Request, found: Awaitable[Snapshot]) -> Response:
    reply = _shown(request, await found)
    return reply if isinstance(reply, Response) else await reply


async def _read_completed(request: Request, found: Snapshot | Awaitable[Snapshot]) -> Response:
    """Return the response to a read with ``defaults``: the bucket completed by its schema."""
    target, head = request.bucket, request.head
    stored = await settled(found)
    # The schema may have changed where the bucket has not, so a 304 would be wrong.
    head.preconditions._replace(if_none_match=None).check(stored, target.key, "read")
    return await offload(_completed, request, stored)


def _completed(request: Request, stored: Snapshot) -> Response:
    target, keys = request.bucket, request.head.query.get("key")
    now = request.services.buckets.completed(stored, target.automation)
    chosen = now if keys is None else _selected(now, keys)
    masking = _masking(request, now) if request.head.masked else None
    return target.template.fill(chosen if masking is None else masking.snapshot(chosen))


def _shown(request: Request, now: Snapshot) -> Response | Coroutine[Any, Any, Response]:
    """Return the response to a read that found the state ``now``."""
    head, target = request.head, request.bucket
    masking = _masking(request, now) if head.masked else None
    if head.conditional:
        tagged = now if masking is None else masking.tagged(now)
        if not head.preconditions.if_none_match_holds(tagged):
            return responses.not_modified(tagged)
        head.preconditions._replace(if_none_match=None).check(now, target.key, "read")
    keys, template = head.query.get("key"), target.template
    if keys is None and masking is None:
        return template.fill(now)

    def fill() -> Response:
        chosen = now if keys is None else _selected(now, keys)
        return template.fill(chosen if masking is None else masking.snapshot(chosen))

    takes_long = masking is not None or not now.bucket.is_split
    return offload(fill) if takes_long and now.bucket.size > INLINE_MAX_BYTES else fill()


def _masking(request: Request, now: Snapshot) -> Masking | None:
    """Return the masks of a bucket: by the schema of its automation, and of the one named."""
    return request.services.schemas.masking(now.automation, request.bucket.automation)


def _selected(now: Snapshot, keys: list[str]) -> Snapshot:
    return now._replace(bucket=now.bucket.only(keys))


def patch(request: Request) -> Reply:
    media_type = request.head.media_type
    change_of = _PATCHES[media_type or headers.JSON]
    # A short JSON Patch may have many operations, and the first one imports the library.
    if media_type == headers.JSON_PATCH or len(request.body) > INLINE_MAX_BYTES:
        return _commit_offloaded(request, change_of)
    return _commit(request, change_of(request, _parsed(request.body)))


def put(request: Request) -> Reply:
    if len(request.body) > INLINE_MAX_BYTES:
        return _commit_offloaded(request, _replace)
    return _commit(request, _replace(request, _parsed(request.body)))


def delete(request: Request) -> Reply:
    keys = request.head.query.get("key")
    if keys is not None:
        if "trash" in request.head.query:
            raise InvalidRequest("cannot use the parameter trash with key: it is for whole buckets")
        return _commit(request, changes.remove(keys))
    keeps = request.flag("trash", default=True)
    return _commit(request, request.services.trash.removal if keeps else changes.clear())


def _parsed(body: bytes) -> Any:
    """Return the body of a write, which must have no mask in it."""
    value = strict_json.loads(body)
    refuse_masks(body, value)
    return value


def _commit(request: Request, change: Change) -> Deferred:
    head = request.head
    template = responses.MINIMAL if head.minimal else request.bucket.template
    user = known_user_name(request.peer.uid)
    outcome = _commit_named(request, change) if user is None else _committed(request, change, user)
    if head.masked and not head.minimal:
        return Deferred(_masked_outcome(request, outcome), template.fill)
    return Deferred(outcome, template.fill)


def _committed(request: Request, change: Change, user: str) -> Awaitable[Snapshot]:
    target, author = request.bucket, request.author(user)
    preconditions = request.head.preconditions
    buckets = request.services.buckets
    return buckets.commit(target.key, change, preconditions, target.automation, author)


async def _commit_named(request: Request, change: Change) -> Snapshot:
    """Commit the first change of a user, whose name has to be looked up."""
    return await _committed(request, change, await user_name(request.peer.uid))


async def _masked_outcome(request: Request, outcome: Awaitable[Snapshot]) -> Snapshot:
    now = await outcome
    masking = _masking(request, now)
    if masking is None:
        return now
    takes_long = now.bucket.size > INLINE_MAX_BYTES
    return await offload(masking.snapshot, now) if takes_long else masking.snapshot(now)


async def _commit_offloaded(request: Request, change_of: ChangeOf) -> Response:
    """Build the change in a worker thread, since its body takes long to parse, and commit it."""
    change = await offload(lambda: change_of(request, _parsed(request.body)))
    if len(request.body) > INLINE_MAX_BYTES:
        change = change._replace(offloaded=True)
    deferred = _commit(request, change)
    return deferred.render(await deferred.outcome)


def _merge(_request: Request, body: object) -> Change:
    return changes.merge(as_object(body))


def _merge_patch(_request: Request, body: object) -> Change:
    return changes.merge_patch(as_object(body))


def _json_patch(request: Request, body: object) -> Change:
    if not isinstance(body, list):
        raise InvalidRequest("cannot read the JSON Patch: it must be an array of operations")
    return changes.json_patch(body, request.services.buckets.max_bytes)


_PATCHES: dict[str, ChangeOf] = {
    headers.JSON: _merge,
    headers.MERGE_PATCH: _merge_patch,
    headers.JSON_PATCH: _json_patch,
}


def _replace(request: Request, body: object) -> Change:
    change, metadata = changes.replace(as_object(body)), _metadata(request)
    return change if metadata is None else change._replace(metadata=metadata)


def _metadata(request: Request) -> Metadata | None:
    """Return the metadata that an operator wants to keep from another store; None if none."""
    if not any(name in request.head.query for name in Metadata._fields):
        return None
    revision, *times = (request.one(name) for name in Metadata._fields)
    if not (
        (revision is None or _REVISION.fullmatch(revision))
        and all(at is None or is_timestamp(at) for at in times)
    ):
        raise InvalidRequest(
            "cannot keep revision, created_at or updated_at: give them as an export has them"
        )
    return Metadata(int(revision or 0), *times)


_REVISION = re.compile(r"[1-9][0-9]{0,14}")


async def list_all(request: Request) -> Response:
    only = Filter(request.name("device"), request.name("job"), request.name("automation"))
    limit, days = limit_of(request), _days(request.one("older_than_days"))
    page = await request.services.buckets.list(only, request.one("cursor"), limit)
    is_over = request.services.retention.is_over
    return await _paged(
        page,
        lambda: {
            "buckets": [
                _listed(row) for row in page.rows if days is None or is_over(row.updated_at, days)
            ]
        },
    )


async def export(request: Request) -> Response:
    """Return a page of envelopes: each bucket with its names, revision and times."""
    only = Filter(request.name("device"), request.name("job"), request.name("automation"))
    limit = limit_of(request)
    stored, page = await request.services.buckets.export(only, request.one("cursor"), limit)
    schemas = request.services.schemas if request.head.masked else None
    return await _paged(
        page, lambda: {"envelopes": [_envelope(key, _masked(schemas, now)) for key, now in stored]}
    )


def _masked(schemas: Registry | None, now: Snapshot) -> Snapshot:
    """Return the state, masked where schemas are given and mark a secret of it."""
    masking = schemas.masking(now.automation) if schemas is not None else None
    return now if masking is None else masking.snapshot(now)


async def _paged(page: Page, rows: Callable[[], dict[str, Any]]) -> Response:
    """Return the response with a page's rows, built in a worker thread, since rows may be many."""
    more = responses.unreadable(page.unreadable)
    return await offload(
        lambda: responses.success({**rows(), "next_cursor": page.next_cursor, **more})
    )


def _listed(row: BucketInfo) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _ROW}


def _envelope(key: BucketKey, now: Snapshot) -> dict[str, Any]:
    return {**envelope_fields(key, now), "bucket": orjson.Fragment(now.bucket.text)}


def _days(text: str | None) -> int | None:
    if text is None:
        return None
    if not (
        text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_DAYS and len(text) < 10
    ):
        raise InvalidRequest(
            f"cannot use the parameter older_than_days: it must be a whole number from 1 to "
            f"{MAX_DAYS}"
        )
    return int(text)


def limit_of(request: Request) -> int:
    """Return how many rows a page may have at most. Raises InvalidRequest."""
    text = request.one("limit")
    if text is None:
        return MAX_PAGE
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_PAGE):
        raise InvalidRequest(
            f"cannot use the parameter limit: it must be a whole number from 1 to {MAX_PAGE}"
        )
    return int(text)
