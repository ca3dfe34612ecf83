"""Every route, as one sorted table; a row names who may use it.

To add a route: add its row here, in order, and write its handler in the module of its noun.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from ..errors import MethodNotAllowed, NotFound
from . import access
from .handlers import (
    backup,
    buckets,
    contexts,
    events,
    history,
    holds,
    quarantine,
    schemas,
    status,
    trash,
)
from .headers import JSON, JSON_PATCH, MERGE_PATCH
from .request import Handler
from .target import decode

_OF_BUCKET = ("/bucket", "/bucket/events", "/bucket/history", "/bucket/undo", "/hold")


@dataclass(frozen=True, slots=True)
class Route:
    """One row. ``parameters``: the query parameters it takes, separated by blanks.

    ``accepts``: the media types of the body, where it takes one. A route that does not speak JSON
    answers in its one form, whatever Accept asks for. One that ``may_wait`` is not slow if it does.
    A POST that ``only_reads`` changes nothing.

    ``of_bucket``: the route is about one bucket, or the hold of what it belongs to; ``is_guarded``:
    preconditions apply, since it is about a bucket or brings one back; ``is_operators_change``: an
    operator changes something that is stored, which a hold is not.
    """

    path: str
    method: str
    access: access.Rule
    handler: Handler
    parameters: str = ""
    accepts: tuple[str, ...] = ()
    speaks_json: bool = True
    may_wait: bool = False
    only_reads: bool = False

    of_bucket: bool = field(init=False)
    is_guarded: bool = field(init=False)
    is_operators_change: bool = field(init=False)

    def __post_init__(self) -> None:
        # Each request asks for these, so they are computed once.
        derive = functools.partial(object.__setattr__, self)
        derive("of_bucket", self.path.endswith(_OF_BUCKET))
        derive("is_guarded", self.path.endswith((*_OF_BUCKET, "/restore")))
        changes = not (self.method == "GET" or self.only_reads or self.may_wait)
        derive("is_operators_change", changes and self.access is access.operator)


ANYONE, OPERATOR = access.anyone, access.operator
JOB, DEVICE = access.job_context, access.any_context
_PAIR = "/v1/devices/{device}/jobs/{job}/bucket"
_READ = "key defaults mask revision"
_METADATA = "revision created_at updated_at"
_PAGE = "limit cursor values mask"
_DOCUMENT = (JSON,)
_PATCHES = (JSON, MERGE_PATCH, JSON_PATCH)

ROUTES = (
    Route("/healthz", "GET", ANYONE, status.health),
    Route("/metrics", "GET", OPERATOR, status.metrics, speaks_json=False),
    Route("/readyz", "GET", ANYONE, status.ready),
    Route("/v1/backup", "PUT", OPERATOR, backup.record, accepts=_DOCUMENT),
    Route("/v1/bucket", "DELETE", JOB, buckets.delete, "key mask trash"),
    Route("/v1/bucket", "GET", JOB, buckets.read, _READ),
    Route("/v1/bucket", "PATCH", JOB, buckets.patch, "mask", _PATCHES),
    Route("/v1/bucket", "PUT", JOB, buckets.put, "mask", _DOCUMENT),
    Route(
        "/v1/bucket/events", "GET", JOB, events.watch, "key mask snapshot holds", speaks_json=False
    ),
    Route("/v1/bucket/history", "GET", JOB, history.list_all, _PAGE),
    Route("/v1/bucket/undo", "POST", JOB, history.undo, "mask", _DOCUMENT),
    Route(
        "/v1/buckets",
        "GET",
        OPERATOR,
        buckets.list_all,
        "device job automation older_than_days limit cursor",
    ),
    Route("/v1/context", "GET", DEVICE, contexts.own),
    Route("/v1/contexts", "GET", OPERATOR, contexts.list_all),
    Route("/v1/contexts", "POST", OPERATOR, contexts.create, accepts=_DOCUMENT),
    Route("/v1/contexts/{id}", "DELETE", OPERATOR, contexts.revoke),
    Route("/v1/device/bucket", "DELETE", DEVICE, buckets.delete, "key mask trash"),
    Route("/v1/device/bucket", "GET", DEVICE, buckets.read, _READ),
    Route("/v1/device/bucket", "PATCH", DEVICE, buckets.patch, "mask", _PATCHES),
    Route("/v1/device/bucket", "PUT", DEVICE, buckets.put, "mask", _DOCUMENT),
    Route(
        "/v1/device/bucket/events",
        "GET",
        DEVICE,
        events.watch,
        "key mask snapshot holds",
        speaks_json=False,
    ),
    Route("/v1/device/bucket/history", "GET", DEVICE, history.list_all, _PAGE),
    Route("/v1/device/bucket/undo", "POST", DEVICE, history.undo, "mask", _DOCUMENT),
    Route(
        "/v1/device/hold",
        "POST",
        DEVICE,
        holds.take,
        accepts=_DOCUMENT,
        speaks_json=False,
        may_wait=True,
    ),
    Route("/v1/devices/{device}/bucket", "DELETE", OPERATOR, buckets.delete, "key mask trash"),
    Route("/v1/devices/{device}/bucket", "GET", OPERATOR, buckets.read, _READ),
    Route("/v1/devices/{device}/bucket", "PATCH", OPERATOR, buckets.patch, "mask", _PATCHES),
    Route(
        "/v1/devices/{device}/bucket", "PUT", OPERATOR, buckets.put, f"mask {_METADATA}", _DOCUMENT
    ),
    Route(
        "/v1/devices/{device}/bucket/events",
        "GET",
        OPERATOR,
        events.watch,
        "key mask snapshot holds",
        speaks_json=False,
    ),
    Route("/v1/devices/{device}/bucket/history", "GET", OPERATOR, history.list_all, _PAGE),
    Route("/v1/devices/{device}/bucket/undo", "POST", OPERATOR, history.undo, "mask", _DOCUMENT),
    Route(
        "/v1/devices/{device}/hold",
        "POST",
        OPERATOR,
        holds.take,
        accepts=_DOCUMENT,
        speaks_json=False,
        may_wait=True,
    ),
    Route(_PAIR, "DELETE", OPERATOR, buckets.delete, "key automation mask trash"),
    Route(_PAIR, "GET", OPERATOR, buckets.read, f"automation {_READ}"),
    Route(_PAIR, "PATCH", OPERATOR, buckets.patch, "automation mask", _PATCHES),
    Route(_PAIR, "PUT", OPERATOR, buckets.put, f"automation mask {_METADATA}", _DOCUMENT),
    Route(
        f"{_PAIR}/events",
        "GET",
        OPERATOR,
        events.watch,
        "automation key mask snapshot holds",
        speaks_json=False,
    ),
    Route(f"{_PAIR}/history", "GET", OPERATOR, history.list_all, f"automation {_PAGE}"),
    Route(f"{_PAIR}/undo", "POST", OPERATOR, history.undo, "automation mask", _DOCUMENT),
    Route(
        "/v1/devices/{device}/jobs/{job}/hold",
        "POST",
        OPERATOR,
        holds.take,
        accepts=_DOCUMENT,
        speaks_json=False,
        may_wait=True,
    ),
    Route(
        "/v1/events",
        "GET",
        OPERATOR,
        events.watch_all,
        "device job automation key mask holds",
        speaks_json=False,
    ),
    Route("/v1/export", "GET", OPERATOR, buckets.export, "device job automation mask limit cursor"),
    Route("/v1/hold", "POST", JOB, holds.take, accepts=_DOCUMENT, speaks_json=False, may_wait=True),
    Route("/v1/holds", "GET", OPERATOR, holds.list_all, "device job"),
    Route("/v1/holds/{id}", "DELETE", OPERATOR, holds.end),
    Route("/v1/openapi.json", "GET", ANYONE, status.openapi),
    Route("/v1/quarantine", "GET", OPERATOR, quarantine.list_all),
    Route("/v1/quarantine/{id}", "DELETE", OPERATOR, quarantine.drop),
    Route("/v1/quarantine/{id}", "GET", OPERATOR, quarantine.read),
    Route("/v1/schemas", "GET", OPERATOR, schemas.list_all),
    Route("/v1/schemas/{automation}", "DELETE", OPERATOR, schemas.remove),
    Route("/v1/schemas/{automation}", "GET", OPERATOR, schemas.read),
    Route(
        "/v1/schemas/{automation}",
        "PUT",
        OPERATOR,
        schemas.put,
        "force dry_run existing",
        _DOCUMENT,
    ),
    Route(
        "/v1/schemas/{automation}/check",
        "POST",
        OPERATOR,
        schemas.check,
        accepts=_DOCUMENT,
        only_reads=True,
    ),
    Route("/v1/status", "GET", OPERATOR, status.status),
    Route("/v1/trash", "GET", OPERATOR, trash.list_all, "device job automation limit cursor"),
    Route("/v1/trash/{id}", "DELETE", OPERATOR, trash.remove),
    Route("/v1/trash/{id}/restore", "POST", OPERATOR, trash.restore),
)

_Methods = dict[str, Route]
_by_path: dict[str, _Methods] = {}
for _route in ROUTES:
    _by_path.setdefault(_route.path, {})[_route.method] = _route
_shapes = {tuple(path.split("/")): m for path, m in _by_path.items() if "{" in path}
_fixed = {path: m for path, m in _by_path.items() if "{" not in path}


def match(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Return the row for a raw path, and the names in it, each segment decoded once.

    Raise NotFound, MethodNotAllowed with ``allow``, or InvalidRequest for a bad escape.
    """
    methods = _fixed.get(path)
    names: dict[str, str] = {}
    if methods is None:
        methods, names = _match_shape(path)
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        allow = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
        raise MethodNotAllowed(f"cannot {method} {path}: it takes {allow}", allow=allow)
    return route, names


def _match_shape(path: str) -> tuple[_Methods, dict[str, str]]:
    segments = path.split("/")
    for shape, methods in _shapes.items():
        if len(shape) == len(segments) and all(
            s.startswith("{") or s == given for s, given in zip(shape, segments, strict=True)
        ):
            return methods, {
                s[1:-1]: decode(given, f"the {s[1:-1]} in the path")
                for s, given in zip(shape, segments, strict=True)
                if s.startswith("{")
            }
    raise NotFound(f"cannot find {path[:200]!r}: there is no such route; see /v1/openapi.json")
