"""Handlers of the bucket routes; the same four serve every way of naming a bucket."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from ...concurrency import INLINE_MAX_BYTES, offload
from ...errors import InvalidRequest
from ...model import changes, strict_json
from ...model.bucket import BucketKey, Snapshot, envelope_fields, is_timestamp
from ...model.changes import Change, Metadata
from ...model.strict_json import as_object
from ...store.base import BucketInfo, Filter, Page
from .. import headers as reading
from .. import responses
from ..request import Handler, Request, Target
from ..responses import Response

MAX_PAGE = 1000
_ROW = tuple(field.name for field in dataclasses.fields(BucketInfo))
ChangeOf = Callable[[Request, object], Change]
Kinds = dict[str, ChangeOf]
Begun = tuple[str, asyncio.Future[Snapshot]]  # label of the result, and what it comes to


async def read(call: Request) -> Response:
    target, guard = _target(call), reading.guard(call.headers)
    stale_ok = not guard and not reading.wants_newest(call.headers)
    now = await call.services.buckets.get(target.key, stale_ok)
    if not guard.if_none_match_holds(now):
        return responses.not_modified(now)
    guard.check(now, target.key, "read")
    return responses.result(target.label, await _selected(now, call.query.get("key")))


async def patch(call: Request) -> Response:
    return await _written(call, _PATCHES)


async def put(call: Request) -> Response:
    return await _written(call, _WHOLE)


async def delete(call: Request) -> Response:
    keys = call.query.get("key")
    return await _commit(call, changes.clear() if keys is None else changes.remove(keys))


def begin(call: Request, content: bytes) -> Begun | None:
    """The same for ``patch`` and ``put`` with their body; None where it takes more than that."""
    services, kinds = call.services, _KINDS.get(call.handler)
    if kinds is None or len(content) > min(INLINE_MAX_BYTES, services.buckets.max_bytes):
        return None
    change_of, heavy = _change_of(call, kinds)
    if heavy:
        return None
    target, guard = _target(call), reading.guard(call.headers)
    change = change_of(call, strict_json.loads(content))
    future = services.buckets.begin(target.key, change, guard, target.automation)
    return None if future is None else (target.label, future)


async def list_all(call: Request) -> Response:
    only = Filter(call.name("device"), call.name("job"), call.name("automation"))
    limit = _limit(call.one("limit"))
    page = await call.services.buckets.list(only, call.one("cursor"), limit)
    return await _paged(page, lambda: {"buckets": [_listed(row) for row in page.rows]})


async def export(call: Request) -> Response:
    """The same pages with the buckets in them, each as its file has it."""
    only = Filter(call.name("device"), call.name("job"), call.name("automation"))
    limit = _limit(call.one("limit"))
    stored, page = await call.services.buckets.export(only, call.one("cursor"), limit)
    return await _paged(page, lambda: {"envelopes": [_envelope(key, now) for key, now in stored]})


async def _paged(page: Page, rows: Callable[[], dict[str, Any]]) -> Response:
    """The answer with a page's rows; made beside the loop, for there may be many."""
    more = {"unreadable": page.unreadable} if page.unreadable else {}
    return await offload(
        lambda: responses.success({**rows(), "next_cursor": page.next_cursor, **more})
    )


def _listed(row: BucketInfo) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _ROW}


def _envelope(key: BucketKey, now: Snapshot) -> dict[str, Any]:
    return {**envelope_fields(key, now), "bucket": orjson.Fragment(now.bucket)}


async def _written(call: Request, kinds: Kinds) -> Response:
    change_of, heavy = _change_of(call, kinds)  # before the body is read
    return await _commit(call, await call.json(partial(change_of, call), heavy))


async def _commit(call: Request, change: Change) -> Response:
    target, guard = _target(call), reading.guard(call.headers)
    if reading.has_large_body(call.headers):
        change = change._replace(offloaded=True)
    now = await call.services.buckets.change(target.key, change, guard, target.automation)
    return responses.result(target.label, now)


def _target(call: Request) -> Target:
    if call.target is None:
        raise TypeError("a bucket handler stands on a route that names no bucket")
    return call.target


def _replaced(call: Request, value: object) -> Change:
    return changes.replace(as_object(value))._replace(metadata=_metadata(call))


def _metadata(call: Request) -> Metadata | None:
    """What is to be kept of a state that is carried here; None where nothing is."""
    if not any(name in call.query for name in Metadata._fields):
        return None
    revision, *times = (call.one(name) for name in Metadata._fields)
    if not (
        (revision is None or _REVISION.fullmatch(revision))
        and all(at is None or is_timestamp(at) for at in times)
    ):
        raise InvalidRequest(
            "cannot keep revision, created_at or updated_at: give them as an export has them"
        )
    return Metadata(int(revision or 0), *times)


_REVISION = re.compile(r"[1-9][0-9]{0,14}")


def _merge(_call: Request, body: object) -> Change:
    return changes.merge(as_object(body))


def _merge_patch(_call: Request, body: object) -> Change:
    return changes.merge_patch(as_object(body))


def _json_patch(call: Request, body: object) -> Change:
    if not isinstance(body, list):
        raise InvalidRequest("cannot read the JSON Patch: it must be an array of operations")
    return changes.json_patch(body, call.services.buckets.max_bytes)


# What a body means, by the media types that its handler takes.
_PATCHES: Kinds = {
    reading.JSON: _merge,
    reading.MERGE_PATCH: _merge_patch,
    reading.JSON_PATCH: _json_patch,
}
_WHOLE: Kinds = {reading.JSON: _replaced}
_KINDS: dict[Handler, Kinds] = {patch: _PATCHES, put: _WHOLE}


def _change_of(call: Request, kinds: Kinds) -> tuple[ChangeOf, bool]:
    """What makes the change of the body, and whether that may take long."""
    kind = reading.media_type(call.headers, tuple(kinds))
    heavy = kind == reading.JSON_PATCH  # many small steps, and an import the first time
    return kinds[kind], heavy


async def _selected(now: Snapshot, keys: list[str] | None) -> Snapshot:
    if keys is None:
        return now
    if len(now.bucket) > INLINE_MAX_BYTES:
        return await offload(_select, now, keys)
    return _select(now, keys)


def _select(now: Snapshot, keys: list[str]) -> Snapshot:
    bucket = orjson.loads(now.bucket)
    chosen = {k: bucket[k] for k in keys if k in bucket}
    return now._replace(bucket=orjson.dumps(chosen))


def _limit(text: str | None) -> int:
    if text is None:
        return MAX_PAGE
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_PAGE):
        raise InvalidRequest(f"cannot use the parameter limit: it must be 1 to {MAX_PAGE}")
    return int(text)
