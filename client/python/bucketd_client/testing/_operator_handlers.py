"""Handlers of the lists of buckets, and of contexts."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from .._errors import error
from . import _strict_json
from ._call import Call, Response
from ._model import Key, Stored

_MEMBERS = ("device", "job", "automation", "ttl_seconds", "label")
MAX_ROWS = 1000


def list_all(call: Call) -> Response:
    wanted = {name: call.name(name) for name in ("device", "job", "automation")}
    limit, after = _limit(call.one("limit")), _cursor(call.one("cursor"))
    with call.state.lock:
        rows = [_row(key, now) for key, now in sorted(call.state.buckets.items(), key=_order)]
    fitting = [
        row
        for row in rows
        if all(value in (None, row[name]) for name, value in wanted.items())
        and [row["device"], row["job"] or ""] > after
    ]
    page = fitting[:limit]
    last = [page[-1]["device"], page[-1]["job"] or ""] if len(fitting) > limit else None
    return Response({"buckets": page, "next_cursor": last and json.dumps(last).encode().hex()})


def list_holds(call: Call) -> Response:
    wanted = {name: call.name(name) for name in ("device", "job")}
    rows = [
        row
        for row in call.state.holds.rows
        if all(value in (None, row[name]) for name, value in wanted.items())
    ]
    held = [row for row in rows if row["state"] == "held"]
    return Response({"holds": held, "waiting": [row for row in rows if row not in held]})


def end_hold(call: Call) -> Response:
    row = call.state.holds.end(call.names["id"])
    return Response({name: row[name] for name in ("id", "state", "device", "job", "name")})


def own_context(call: Call) -> Response:
    assert call.context is not None  # noqa: S101  (the access rule of the route)
    return Response({**call.context.scope, "schema": False})


def create_context(call: Call) -> Response:
    body = _strict_json.loads_object(call.body)
    if unknown := [name for name in body if name not in _MEMBERS]:
        raise error(
            "invalid_request",
            f"cannot mint a context: {unknown[0][:40]!r} is not one of {', '.join(_MEMBERS)}",
        )
    context = call.state.mint(*(body.get(name) for name in _MEMBERS))
    return Response({"id": context.id, "token": context.token, **context.scope}, 201)


def list_contexts(call: Call) -> Response:
    return Response({"contexts": [each.public for each in call.state.live()]})


def revoke_context(call: Call) -> Response:
    call.state.revoke(call.names["id"])
    return Response({"id": call.names["id"]})


def _order(item: tuple[Key, Stored]) -> tuple[str, str]:
    (device, job), _ = item
    return device, job or ""


def _row(key: Key, now: Stored) -> dict[str, Any]:
    device, job = key
    names = {"device": device, "job": job, "automation": now.automation}
    return {**names, "revision": now.revision, "size": len(now.text), "updated_at": now.updated_at}


def _limit(text: str | None) -> int:
    if text is None:
        return MAX_ROWS
    if text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_ROWS:
        return int(text)
    raise error(
        "invalid_request",
        f"cannot use the parameter limit: it must be a whole number from 1 to {MAX_ROWS}",
    )


def _cursor(text: str | None) -> list[str]:
    if text is None:
        return []
    with contextlib.suppress(ValueError, TypeError):
        found = json.loads(bytes.fromhex(text))
        if [type(each) for each in found] == [str, str]:
            return list(found)
    raise error(
        "invalid_request", "cannot list from this cursor: use a next_cursor as it was given"
    )
