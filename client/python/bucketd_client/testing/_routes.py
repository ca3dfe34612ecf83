"""The routes of the server: buckets, events and contexts, as the daemon has them."""

from __future__ import annotations

from typing import NamedTuple

from .._errors import error
from . import _changes, _strict_json
from ._call import Call, Handler, Response
from ._changes import Change, Object
from ._events import Filter, Stream
from ._model import Context, Key, Stored, check_name
from ._operator_handlers import create_context, list_all, list_contexts, own_context, revoke_context
from ._requests import JSON, JSON_PATCH, MERGE_PATCH, Request, decode
from ._state import State

GET_ONE = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND"


def read(call: Call) -> Response:
    now, preconditions = call.state.read(call.key), call.request.preconditions
    if not preconditions.if_none_match_holds(now):
        return Response(None, 304, now.etag)
    preconditions.check(now)
    bucket, keys = now.bucket, call.query.get("key")
    if keys is not None:
        bucket = {key: bucket[key] for key in keys if key in bucket}
    return _result(call, now, bucket)


def patch(call: Call) -> Response:
    kind = call.request.media_type((JSON, MERGE_PATCH, JSON_PATCH))
    text = call.request.content(call.state.max_bytes)
    if kind == JSON_PATCH:
        return _commit(call, _changes.json_patch(_strict_json.loads(text), call.state.max_bytes))
    data = _strict_json.loads_object(text)
    if kind == MERGE_PATCH:
        return _commit(call, _changes.merge_patch(data))
    return _commit(call, _changes.merge(data), data)


def put(call: Call) -> Response:
    call.request.media_type((JSON,))
    data = _strict_json.loads_object(call.request.content(call.state.max_bytes))
    return _commit(call, _changes.replace(data), data)


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
    snapshot = call.one("snapshot")
    if snapshot not in (None, "true", "false"):
        raise error("invalid_request", "cannot use snapshot: it must be true or false")
    since = call.request.headers.get("last-event-id", [None])[0]
    return Response(None, stream=Stream(call.state, only, call.context, since, snapshot == "true"))


def ready(_call: Call) -> Response:
    return Response({"status": "ready"})


class Route(NamedTuple):
    path: str
    parameters: str
    handlers: dict[str, Handler]
    access: str = "operator"


_BUCKET: dict[str, Handler] = {"GET": read, "PATCH": patch, "PUT": put, "DELETE": delete}
ROUTES = (
    Route("/healthz", "", {"GET": ready}, "anyone"),
    Route("/readyz", "", {"GET": ready}, "anyone"),
    Route("/v1/bucket", "key", _BUCKET, "job"),
    Route("/v1/bucket/events", "key snapshot", {"GET": watch}, "job"),
    Route("/v1/buckets", "device job automation limit cursor", {"GET": list_all}),
    Route("/v1/context", "", {"GET": own_context}, "device"),
    Route("/v1/contexts", "", {"GET": list_contexts, "POST": create_context}),
    Route("/v1/contexts/{id}", "", {"DELETE": revoke_context}),
    Route("/v1/device/bucket", "key", _BUCKET, "device"),
    Route("/v1/device/bucket/events", "key snapshot", {"GET": watch}, "device"),
    Route("/v1/devices/{device}/bucket", "key", _BUCKET),
    Route("/v1/devices/{device}/bucket/events", "key snapshot", {"GET": watch}),
    Route("/v1/devices/{device}/jobs/{job}/bucket", "key automation", _BUCKET),
    Route(
        "/v1/devices/{device}/jobs/{job}/bucket/events", "automation key snapshot", {"GET": watch}
    ),
    Route("/v1/events", "device job automation key", {"GET": watch_all}),
)


def respond(state: State, request: Request) -> Response:
    """Return the daemon's response. Raise the BucketError of a refusal."""
    request.refuse_browsers()
    route, names = _match(request.path)
    handler = route.handlers.get("GET" if request.method == "HEAD" else request.method)
    if handler is None:
        takes = ", ".join(sorted({*route.handlers, *(["HEAD"] if "GET" in route.handlers else [])}))
        raise error("method_not_allowed", f"cannot {request.method} {route.path}: it takes {takes}")
    all_or_part = request.method in ("GET", "HEAD", "DELETE")
    query = request.query(route.parameters if all_or_part else route.parameters.replace("key", ""))
    if not route.path.endswith("/events"):
        request.accept_json()
    context = _context_of(state, route, request.token())
    return handler(Call(state, request, query, names, _key(route, names, context), context))


def _match(path: str) -> tuple[Route, dict[str, str]]:
    segments = path.split("/")
    for route in ROUTES:
        shape = route.path.split("/")
        pairs = list(zip(shape, segments))
        if len(shape) == len(segments) and all(s[:1] == "{" or s == g for s, g in pairs):
            return route, {s[1:-1]: decode(g) for s, g in pairs if s[:1] == "{"}
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
        raise error("no_job_context", f"no job context: the request carries no token; {GET_ONE}")
    context = next((c for c in state.live() if c.token == token), None)
    if context is None:
        raise error(
            "no_job_context", "no job context: the token is unknown, revoked or expired; "
            f"get a new one, or {GET_ONE}",
        )  # fmt: skip
    if route.access == "job" and context.job is None:
        raise error(
            "no_job_context", "no job context: the token is for a device alone, so it opens only "
            f"/v1/device/bucket; {GET_ONE}",
        )  # fmt: skip
    return context


def _key(route: Route, names: dict[str, str], context: Context | None) -> Key:
    if context is not None:
        return context.device, context.job if route.access == "job" else None
    if "device" not in names:
        return "", None
    job = names.get("job")
    device = check_name(names["device"], "device")
    return device, None if job is None else check_name(job, "job")


def _commit(call: Call, change: Change | None, named: Object | None = None) -> Response:
    preconditions, method = call.request.preconditions, call.request.method
    now = call.state.commit(call.key, method, change, preconditions, call.automation, named)
    if call.request.prefers_minimal:
        members = {"revision": now.revision}
        return Response(members, etag=now.etag, preference="return=minimal")
    return _result(call, now, now.bucket)


def _result(call: Call, now: Stored, bucket: Object) -> Response:
    return Response({call.label: bucket, "revision": now.revision}, etag=now.etag)
