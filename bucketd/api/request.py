"""One request as plain data: what its head asks for, who asks, and its body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..concurrency import INLINE_MAX_BYTES, offload
from ..core.contexts import Context
from ..errors import InvalidRequest
from ..model import author, strict_json
from ..model.author import Author
from ..model.bucket import BucketKey, check_name
from ..model.preconditions import Preconditions
from .access import Peer
from .headers import Headers
from .responses import BUCKET, DEVICE_BUCKET, Reply, ResponseTemplate
from .services import Services
from .target import Query

if TYPE_CHECKING:
    from .routes import Route

T = TypeVar("T")


@dataclass(slots=True)
class Target:
    """The bucket that a request is about, and the automation whose schema applies to it.

    ``template``: of responses about it.
    """

    key: BucketKey
    automation: str | None
    template: ResponseTemplate = BUCKET

    def __post_init__(self) -> None:
        if self.key.job is None:
            self.template = DEVICE_BUCKET


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """What the head of a request asks for, whoever sends it.

    ``names`` from the path and ``query`` are decoded; ``target`` is the bucket that the path names.
    ``media_type`` of the body is None where the route does not accept it. A ``conditional``
    request has ``preconditions``; ``malformed`` refuses those that cannot be read, to a caller who
    may ask at all. ``minimal``: respond to a write without the bucket; ``stale_ok``:
    a read may give what was stored before; ``masked``: with masks in place of secrets. ``about``:
    path and method of the route, for metrics.
    """

    route: Route
    names: dict[str, str]
    query: Query
    headers: Headers
    media_type: str | None
    conditional: bool
    preconditions: Preconditions
    malformed: InvalidRequest | None
    minimal: bool
    stale_ok: bool
    masked: bool
    head_only: bool
    has_authorization: bool
    token_hash: str | None
    target: Target | None
    about: tuple[str, str]


# Every request makes one, and a NamedTuple takes three times as long to make.
@dataclass(slots=True)
class Request:
    """Hold the input of a handler: the peer, the resolved head, the token's context, and the body.

    ``target``: the bucket, on a route that is about one. ``about``: the names that a
    handler has found a change to be about, for the log.
    """

    services: Services
    peer: Peer
    head: ResolvedRequest
    context: Context | None
    target: Target | None
    body: bytes = b""
    about: BucketKey | None = None

    @property
    def bucket(self) -> Target:
        """The bucket, on a route that is about one."""
        if self.target is None:
            raise TypeError("a bucket handler serves a route that names no bucket")
        return self.target

    def author(self, user: str) -> Author:
        """Return who asks, as the author of a change; ``user`` is the name of the peer's user."""
        context = self.context
        if context is None:
            return author.known(user)
        return author.known(user, context.id, context.device, context.job, context.label)

    async def json(self, then: Callable[[Any], T]) -> T:
        """Return what ``then`` makes of the body, in a worker thread where that is large."""
        made = partial(_parse, self.body, then)
        return made() if len(self.body) <= INLINE_MAX_BYTES else await offload(made)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return whether a parameter is ``true``; raise InvalidRequest unless true or false."""
        text = self.one(name)
        if text not in (None, "true", "false"):
            raise InvalidRequest(f"cannot use the parameter {name}: it must be true or false")
        return default if text is None else text == "true"

    def one(self, name: str) -> str | None:
        """Return the value of a parameter that is given at most once."""
        return self.head.query.get(name, [None])[0]

    def name(self, parameter: str) -> str | None:
        """Return a parameter that is a name. An empty one is refused, and does not mean "all"."""
        value = self.one(parameter)
        return None if value is None else check_name(value, parameter)


def _parse(text: bytes, then: Callable[[Any], T]) -> T:
    return then(strict_json.loads(text))


Handler = Callable[[Request], Reply]
