"""From the head of a request to a handler, and from there to a reply.

What a head asks for depends on nothing but its bytes, so it may be cached for the next request
with the same head. Who asks, and whether they may, is decided anew for each request.
"""

from __future__ import annotations

from functools import lru_cache

from ..core.contexts import hash_of
from ..errors import Forbidden, InvalidRequest, ShuttingDown, TooLarge
from ..model.bucket import BucketKey, check_name
from . import access, audit, headers
from .headers import NO_PRECONDITIONS, Headers
from .request import Request, ResolvedRequest, Target
from .responses import Reply, refusal
from .routes import Route, match
from .services import Services
from .target import Query, parse_query, split_target


def resolve(method: str, target: str, fields: Headers) -> ResolvedRequest:
    """Return what a head asks for; raise BucketdError where nobody may have it."""
    if "Origin" in fields or "Referer" in fields:
        raise Forbidden(
            "cannot answer a browser: a request with Origin or Referer is refused, "
            "so that no web page can reach buckets through a proxy of this socket"
        )
    path, text = split_target(target)
    route, names = match(method, path)
    query = parse_query(text, frozenset(route.parameters.split()))
    if route.speaks_json:
        headers.check_accept(fields)
    values = fields.getall("Authorization", [])
    if len(values) > 1:
        raise InvalidRequest("cannot tell who asks: there are several Authorization headers")
    scheme, _, token = values[0].partition(" ") if values else ("", "", "")
    preconditions, malformed = NO_PRECONDITIONS, None
    if route.is_guarded:
        try:
            preconditions = headers.preconditions(fields, of_read=route.method == "GET")
        except InvalidRequest as error:
            malformed = error
    return ResolvedRequest(
        route=route,
        names=names,
        query=query,
        headers=fields,
        media_type=headers.media_type(fields, route.accepts),
        conditional=bool(preconditions),
        preconditions=preconditions,
        malformed=malformed,
        minimal=headers.prefers_minimal(fields),
        stale_ok=headers.accepts_stale(fields) and not preconditions,
        masked=_is_masked(query),
        head_only=method == "HEAD",
        has_authorization=bool(values),
        token_hash=hash_of(token.strip()) if scheme.lower() == "bearer" else None,
        target=_named_bucket(route, names, query),
        about=(route.path, route.method),
    )


def _named_bucket(route: Route, names: dict[str, str], query: Query) -> Target | None:
    if "device" not in names or not route.of_bucket:
        return None
    automation = query.get("automation", [None])[0]
    if automation is not None:
        check_name(automation, "automation")
    return Target(BucketKey.checked(names["device"], names.get("job")), automation)


def _is_masked(query: Query) -> bool:
    wanted = query.get("mask", [None])[0]
    if wanted not in (None, "secrets"):
        raise InvalidRequest("cannot use the parameter mask: it must be secrets")
    return wanted is not None


def check_not_stopping(resolved: ResolvedRequest) -> None:
    """Raise ShuttingDown for a request that arrives once the daemon stops."""
    if resolved.route.access is not access.anyone:
        raise ShuttingDown("cannot answer: the daemon is stopping; try again in a moment")


def admit(services: Services, peer: access.Peer, resolved: ResolvedRequest, length: int) -> Request:
    """Return the request without its body; raise BucketdError for what the head alone forbids.

    ``length``: of the body, as far as it is known.
    """
    route, token_hash = resolved.route, resolved.token_hash
    context = None if token_hash is None else services.contexts.find(token_hash)
    route.access(services.operators, peer, resolved.has_authorization, context)
    if resolved.malformed is not None:
        raise resolved.malformed
    if route.accepts and resolved.media_type is None:
        raise headers.unsupported_media_type(route.accepts)
    target = resolved.target
    if target is None and context is not None and route.of_bucket:
        # The rule of the route has let in this token, so it opens the bucket.
        job = None if route.access is access.any_context else context.job
        target = _opened_bucket(context.device, job, context.automation)
    if length > services.buckets.max_bytes:
        key = None if target is None else target.key
        raise body_too_large(f"{length} bytes", services.buckets.max_bytes, key)
    return Request(services, peer, resolved, context, target)


@lru_cache(maxsize=4096)
def _opened_bucket(device: str, job: str | None, automation: str | None) -> Target:
    return Target(BucketKey(device, job), None if job is None else automation)


def body_too_large(size: str, limit: int, key: BucketKey | None = None) -> TooLarge:
    what = "read the request body: it has" if key is None else f"set {key}: the request body has"
    return TooLarge(
        f"cannot {what} {size}, allowed are {limit}; [limits] max_bucket_bytes says how many"
    )


def handle(services: Services, peer: access.Peer, resolved: ResolvedRequest, body: bytes) -> Reply:
    """Return the reply to one request; a refusal is a response like any other."""
    try:
        request = admit(services, peer, resolved, len(body))
        request.body = body
        reply = resolved.route.handler(request)
        return audit.logged(request, reply) if resolved.route.is_operators_change else reply
    except Exception as error:
        return refusal(error)
