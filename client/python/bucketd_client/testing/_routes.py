"""The routes of the server: buckets, events, contexts and holds, as the daemon has them."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _json_patch
from .._errors import error
from . import _changes, _strict_json
from ._call import Call, Handler, Response
from ._changes import Change, Object
from ._events import Filter, Stream
from ._holds import HoldRequest, fences_of
from ._model import NO_PRECONDITIONS, Context, Key, Stored, check_name
from ._operator_handlers import (
    create_context,
    end_hold,
    list_all,
    list_contexts,
    list_holds,
    own_context,
    revoke_context,
)
from ._requests import JSON, JSON_PATCH, MERGE_PATCH, Request, decode
from ._state import State

HOW_TO_START = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND"


def read(call: Call) -> Response:
    now = call.state.read(call.key)
    if call.flag("defaults"):
        call.preconditions._replace(if_none_match=None).check(now)
        bucket, defaults = now.bucket, call.state.defaults_of(call.key)
        missing = {key: value for key, value in defaults.items() if key not in bucket}
        return _result(call, now, _selected(call, {**bucket, **missing}))
    if not call.preconditions.if_none_match_holds(now):
        return Response(None, 304, now.etag)
    call.preconditions.check(now)
    return _result(call, now, _selected(call, now.bucket))


def _selected(call: Call, bucket: Object) -> Object:
    keys = call.query.get("key")
    return bucket if keys is None else {key: bucket[key] for key in keys if key in bucket}


def patch(call: Call) -> Response:
    if call.media_type == JSON_PATCH:
        return _commit(call, _json_patch.json_patch(_written(call), call.state.max_bytes))
    data = _strict_json.as_object(_written(call))
    if call.media_type == MERGE_PATCH:
        return _commit(call, _changes.merge_patch(data))
    return _commit(call, _changes.merge(data), data)


def put(call: Call) -> Response:
    data = _strict_json.as_object(_written(call))
    return _commit(call, _changes.replace(data), data)


def _written(call: Call) -> Any:
    """Return the body of a write, which must have no mask in it."""
    value = _strict_json.loads(call.body)
    _strict_json.refuse_masks(value)
    return value


def delete(call: Call) -> Response:
    keys = call.query.get("key")
    return _commit(call, None if keys is None else _changes.remove(keys))


def watch(call: Call) -> Response:
    return _streaming(call, Filter(call.key, {}, _members(call)))


def watch_all(call: Call) -> Response:
    names = {name: call.name(name) for name in ("device", "job", "automation")}
    return _streaming(call, Filter(None, names, _members(call)))


def _members(call: Call) -> frozenset[str] | None:
    return frozenset(call.query["key"]) if "key" in call.query else None


def _streaming(call: Call, only: Filter) -> Response:
    snapshot, holds = call.flag("snapshot"), call.flag("holds")
    since = call.request.headers.get("last-event-id", [None])[0]
    return Response(None, stream=Stream(call.state, only, call.context, since, snapshot, holds))


def hold(call: Call) -> Response:
    wanted = HoldRequest(_strict_json.loads_object(call.body))
    peer = call.request.peer
    return Response(None, stream=call.state.holds.take(call.key, wanted, peer, call.context))


def ready(_call: Call) -> Response:
    return Response({"status": "ready"})


class Route(NamedTuple):
    path: str
    parameters: str
    handlers: dict[str, Handler]
    access: str = "operator"


# The media types of the body, where a method takes one.
_ACCEPTS = {"PUT": (JSON,), "POST": (JSON,), "PATCH": (JSON, MERGE_PATCH, JSON_PATCH)}
# The parameters of a path that a method does not have.
_NOT_OF = {"PUT": ("key", "defaults"), "PATCH": ("key", "defaults"), "DELETE": ("defaults",)}
_BUCKET: dict[str, Handler] = {"GET": read, "PATCH": patch, "PUT": put, "DELETE": delete}
ROUTES = (
    Route("/healthz", "", {"GET": ready}, "anyone"),
    Route("/readyz", "", {"GET": ready}, "anyone"),
    Route("/v1/bucket", "key defaults mask", _BUCKET, "job"),
    Route("/v1/bucket/events", "holds key mask snapshot", {"GET": watch}, "job"),
    Route("/v1/buckets", "device job automation limit cursor", {"GET": list_all}),
    Route("/v1/context", "", {"GET": own_context}, "device"),
    Route("/v1/contexts", "", {"GET": list_contexts, "POST": create_context}),
    Route("/v1/contexts/{id}", "", {"DELETE": revoke_context}),
    Route("/v1/device/bucket", "key defaults mask", _BUCKET, "device"),
    Route("/v1/device/bucket/events", "holds key mask snapshot", {"GET": watch}, "device"),
    Route("/v1/device/hold", "", {"POST": hold}, "device"),
    Route("/v1/devices/{device}/bucket", "key defaults mask", _BUCKET),
    Route("/v1/devices/{device}/bucket/events", "holds key mask snapshot", {"GET": watch}),
    Route("/v1/devices/{device}/hold", "", {"POST": hold}),
    Route("/v1/devices/{device}/jobs/{job}/bucket", "key automation defaults mask", _BUCKET),
    Route(
        "/v1/devices/{device}/jobs/{job}/bucket/events",
        "automation holds key mask snapshot",
        {"GET": watch},
    ),
    Route("/v1/devices/{device}/jobs/{job}/hold", "", {"POST": hold}),
    Route("/v1/events", "device job automation holds key mask", {"GET": watch_all}),
    Route("/v1/hold", "", {"POST": hold}, "job"),
    Route("/v1/holds", "device job", {"GET": list_holds}),
    Route("/v1/holds/{id}", "", {"DELETE": end_hold}),
)


def respond(state: State, request: Request) -> Response:
    """Return the daemon's response. Raise the BucketError of a refusal.

    The order is the daemon's: what the head alone says, who asks, what only they are told.
    """
    request.refuse_browsers()
    route, names = _match(request.path)
    method = request.method
    handler = route.handlers.get("GET" if method == "HEAD" else method)
    if handler is None:
        takes = ", ".join(sorted({*route.handlers, *(["HEAD"] if "GET" in route.handlers else [])}))
        raise error("method_not_allowed", f"cannot {method} {request.path}: it takes {takes}")
    others = _NOT_OF.get(method, ())
    query = request.query(" ".join(p for p in route.parameters.split() if p not in others))
    if not route.path.endswith(("/events", "/hold")):
        request.accept_json()
    token = request.token()
    # Without schemas there are no secrets to mask.
    if query.get("mask", ["secrets"]) != ["secrets"]:
        raise error("invalid_request", "cannot use the parameter mask: it must be secrets")
    automation = _automation(query) if "job" in names else None
    key = _key(names)
    context = _context_of(state, route, token)
    if context is not None:
        is_job = route.access == "job"
        key = context.device, context.job if is_job else None
        automation = context.automation if is_job else None
    of_bucket = route.path.endswith(("/bucket", "/bucket/events"))
    preconditions = request.preconditions if of_bucket else NO_PRECONDITIONS
    is_write = of_bucket and method in _BUCKET and method != "GET"
    fences = fences_of(request.headers.get("bucketd-fence")) if is_write else None
    accepted = _ACCEPTS.get(method)
    media_type = request.media_type(accepted) if accepted else ""
    body = request.content()
    return handler(
        Call(
            state,
            request,
            query,
            names,
            key,
            automation,
            context,
            preconditions,
            fences,
            media_type,
            body,
        )
    )


def _match(path: str) -> tuple[Route, dict[str, str]]:
    segments = path.split("/")
    for route in ROUTES:
        shape = route.path.split("/")
        pairs = list(zip(shape, segments))
        if len(shape) == len(segments) and all(s[:1] == "{" or s == g for s, g in pairs):
            names = [(s[1:-1], g) for s, g in pairs if s[:1] == "{"]
            return route, {name: decode(g, f"the {name} in the path") for name, g in names}
    raise error("not_found", f"cannot find {path[:200]!r}: the testing server has no such route")


def _context_of(state: State, route: Route, token: str | None) -> Context | None:
    if route.access == "anyone":
        return None
    if route.access == "operator":
        if token is not None:
            raise error(
                "no_job_context",
                "cannot use an operator route with a token: a token opens its own bucket on "
                "/v1/bucket and /v1/device/bucket; leave the Authorization header out",
            )
        return None
    if token is None:
        raise error(
            "no_job_context", f"no job context: the request carries no token; {HOW_TO_START}"
        )
    context = next((c for c in state.live() if c.token == token), None)
    if context is None:
        raise error(
            "no_job_context",
            "no job context: the token is unknown, revoked or expired; "
            f"get a new one, or {HOW_TO_START}",
        )
    if route.access == "job" and context.job is None:
        raise error(
            "no_job_context",
            "no job context: the token is for a device alone, so it opens only "
            f"/v1/device/bucket; {HOW_TO_START}",
        )
    return context


def _automation(query: dict[str, list[str]]) -> str | None:
    return check_name(query["automation"][0], "automation") if "automation" in query else None


def _key(names: dict[str, str]) -> Key:
    device, job = names.get("device"), names.get("job")
    checked = "" if device is None else check_name(device, "device")
    return checked, None if job is None else check_name(job, "job")


def _commit(call: Call, change: Change | None, named: Object | None = None) -> Response:
    with call.state.lock:
        call.state.holds.check(call.key, call.fences)
        now = call.state.commit(
            call.key, call.request.method, change, call.preconditions, call.automation, named
        )
    if call.request.prefers_minimal:
        members = {"revision": now.revision}
        return Response(members, etag=now.etag, preference="return=minimal")
    return _result(call, now, now.bucket)


def _result(call: Call, now: Stored, bucket: Object) -> Response:
    return Response({call.label: bucket, "revision": now.revision}, etag=now.etag)
