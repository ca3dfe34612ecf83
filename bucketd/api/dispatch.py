"""From a request to a handler and back, in two steps: what it means, and what is answered.

What a request's head means depends on nothing but its bytes, so it may be kept
for the next request with the same head. Who asks, and whether they may, is
found out for each request.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..core.contexts import hash_of
from ..errors import BucketdError, Forbidden, Internal, InvalidRequest, ShuttingDown
from ..model.bucket import BucketKey, Snapshot, check_name
from . import access, responses
from . import headers as reading
from .handlers import buckets
from .headers import Headers
from .request import Body, Query, Request, Services, Target
from .responses import Response
from .routes import Route, match

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """What the head of a request asks for, whoever sends it: its row, and the names in it."""

    route: Route
    names: dict[str, str]
    query: Query
    headers: Headers
    has_authorization: bool
    token_hash: str | None
    named: Target | None

    @property
    def plain_read(self) -> bool:
        """Whether it asks for a whole bucket, on no condition."""
        return (
            self.route.handler is buckets.read
            and "key" not in self.query
            and not reading.is_conditional(self.headers)
        )


Known = tuple[Target, Snapshot]


def resolve(method: str, target: str, headers: Headers) -> ResolvedRequest:
    """What a head means. Raises BucketdError where no caller could be given what it asks for."""
    if "Origin" in headers or "Referer" in headers:
        raise Forbidden(
            "cannot answer a browser: a request with Origin or Referer is refused, "
            "so that no web page can reach buckets through a proxy of this socket"
        )
    path, text = reading.split_target(target)
    route, names = match(method, path)
    query = reading.parse_query(text, frozenset(route.parameters.split()))
    if route.speaks_json:
        reading.check_accept(headers)
    values = headers.getall("Authorization", [])
    if len(values) > 1:
        raise InvalidRequest("cannot tell who asks: there are several Authorization headers")
    scheme, _, token = values[0].partition(" ") if values else ("", "", "")
    return ResolvedRequest(
        route=route,
        names=names,
        query=query,
        headers=headers,
        has_authorization=bool(values),
        token_hash=hash_of(token.strip()) if scheme.lower() == "bearer" else None,
        named=_named(route, names, query),
    )


def _named(route: Route, names: dict[str, str], query: Query) -> Target | None:
    """The bucket that a path names, where it names one."""
    if "device" not in names or not route.of_bucket:
        return None
    automation = query.get("automation", [None])[0]
    if automation is not None:
        check_name(automation, "automation")
    return Target(BucketKey.checked(names["device"], names.get("job")), automation)


async def answer(
    services: Services, peer: access.Peer, meaning: ResolvedRequest, body: Body
) -> Response:
    """Answer one request; every refusal becomes the error envelope."""
    try:
        return await meaning.route.handler(_call(services, peer, meaning, body))
    except Exception as error:
        if isinstance(error, ConnectionError):
            raise
        return refusal(error)


def refusal(error: BaseException) -> Response:
    """The error envelope; what was not foreseen goes to the log, and says no more than that."""
    if isinstance(error, BucketdError):
        return responses.refused(error)
    request_id = responses.new_request_id()
    log.error("request %s failed in a way that was not foreseen", request_id, exc_info=error)
    return responses.refused(
        Internal("cannot answer: an internal error, see the daemon's log for its cause"),
        request_id,
    )


def known(services: Services, peer: access.Peer, meaning: ResolvedRequest) -> Known | None:
    """What a plain read is about and finds; None where that takes waiting, or is refused."""
    if services.draining:
        return None
    try:
        caller = _caller(services, peer, meaning)
        target = meaning.named or _opened(meaning.route, caller)
        now = services.buckets.known(target.key) if target is not None else None
    except BucketdError:
        return None
    return None if target is None or now is None else (target, now)


def begin(
    services: Services, peer: access.Peer, meaning: ResolvedRequest, content: bytes
) -> buckets.Begun | None:
    """Begin a write whose whole body is here; None, with nothing begun, where it takes more."""
    try:
        return buckets.begin(_call(services, peer, meaning, _no_body), content)
    except BucketdError:
        return None  # whoever takes the long way hears why


async def _no_body(_limit: int, _seconds: float) -> bytes:
    return b""


def _call(services: Services, peer: access.Peer, meaning: ResolvedRequest, body: Body) -> Request:
    """Identify the caller, check its access, and find the bucket that it may have."""
    route = meaning.route
    if services.draining and route.access is not access.anyone:
        raise ShuttingDown("cannot answer: the daemon is stopping; try again in a moment")
    caller = _caller(services, peer, meaning)
    target = meaning.named or _opened(route, caller)
    return Request(
        services,
        route.handler,
        meaning.headers,
        body,
        caller,
        meaning.names,
        meaning.query,
        target,
    )


def _caller(services: Services, peer: access.Peer, meaning: ResolvedRequest) -> access.Caller:
    """Who asks; raises where they may not."""
    token = meaning.token_hash
    context = None if token is None else services.contexts.find(token)
    caller = access.Caller(services.operators.include(peer), meaning.has_authorization, context)
    meaning.route.access(caller)
    return caller


def _opened(route: Route, caller: access.Caller) -> Target | None:
    """The bucket that a token opens, on a route that is about a bucket."""
    if not route.of_bucket:
        return None
    device_only = route.access is access.any_context
    key = access.key_of(caller.context, device_only=device_only)
    automation = None if device_only or caller.context is None else caller.context.automation
    return Target(key, automation)
