"""From a request to a handler and back: match, identify, check access, call, answer."""

from __future__ import annotations

import logging

from aiohttp import HttpVersion10, HttpVersion11, web

from ..errors import BucketdError, Forbidden, Internal, InvalidRequest, ShuttingDown
from ..model import BucketKey, check_name
from . import access, wire
from .call import Call, Query, Services, Target
from .routes import Route, match

log = logging.getLogger(__name__)
_VERSIONS = (HttpVersion11, HttpVersion10)


async def handle(services: Services, peer: access.Peer, request: web.BaseRequest) -> web.Response:
    """Answer one request; every refusal becomes the error envelope."""
    try:
        return await _answer(services, peer, request)
    except BucketdError as error:
        response = wire.refused(error)
    except Exception as error:
        if isinstance(error, ConnectionError):
            raise
        log.exception("a request failed in a way that was not foreseen")
        response = wire.refused(
            Internal("cannot answer: an internal error, see the daemon's log for its cause")
        )
    if services.draining or not request.content.is_eof():
        response.force_close()
    return response


async def _answer(services: Services, peer: access.Peer, request: web.BaseRequest) -> web.Response:
    _refuse_browsers_and_other_protocols(request)
    path, query_text = wire.split_target(request.raw_path)
    route, names = match(request.method, path)
    if services.draining and route.access is not access.anyone:
        raise ShuttingDown("cannot answer: the daemon is stopping; try again in a moment")
    caller = _identify(services, peer, request)
    route.access(caller)
    wire.check_accept(request)
    query = wire.parse_query(query_text, frozenset(route.parameters.split()))
    target = _target(route, caller, names, query)
    return await route.handler(Call(services, request, caller, names, query, target))


def _refuse_browsers_and_other_protocols(request: web.BaseRequest) -> None:
    if request.version not in _VERSIONS:
        raise InvalidRequest("cannot answer: this is an HTTP/1.1 server")
    if "Origin" in request.headers or "Referer" in request.headers:
        raise Forbidden(
            "cannot answer a browser: a request with Origin or Referer is refused, "
            "so that no web page can reach buckets through a proxy of this socket"
        )


def _identify(services: Services, peer: access.Peer, request: web.BaseRequest) -> access.Caller:
    values = request.headers.getall("Authorization", [])
    if len(values) > 1:
        raise InvalidRequest("cannot tell who asks: there are several Authorization headers")
    context = None
    if values:
        scheme, _, token = values[0].partition(" ")
        if scheme.lower() == "bearer":
            context = services.contexts.find(token.strip())
    return access.Caller(services.operators.include(peer), bool(values), context)


def _target(
    route: Route, caller: access.Caller, names: dict[str, str], query: Query
) -> Target | None:
    """The bucket that the route is about: named in its path, or the one that the token opens."""
    if not route.path.endswith("/bucket"):
        return None
    if "device" in names:
        automation = query.get("automation", [None])[0]
        if automation is not None:
            check_name(automation, "automation")
        return Target(BucketKey.checked(names["device"], names.get("job")), automation)
    device_only = route.access is access.any_context
    key = access.key_of(caller.context, device_only=device_only)
    automation = None if device_only or caller.context is None else caller.context.automation
    return Target(key, automation)
