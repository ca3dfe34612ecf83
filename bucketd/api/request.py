"""What a handler gets: the services of the daemon, and one request as plain data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ..concurrency import INLINE_MAX_BYTES, offload
from ..core.buckets import Buckets
from ..core.contexts import Contexts
from ..core.events.hub import Hub
from ..core.schemas.registry import Registry
from ..core.schemas.replication import SchemaWriter
from ..errors import InvalidRequest
from ..model.bucket import BucketKey, check_name
from ..stats import RequestCounter
from . import access, responses
from . import headers as reading

T = TypeVar("T")
Query = dict[str, list[str]]


@dataclass(slots=True)
class Services:
    """Everything that handlers may use. A reload replaces members, never changes them."""

    buckets: Buckets
    contexts: Contexts
    events: Hub
    schemas: Registry
    schema_writer: SchemaWriter
    operators: access.Operators
    body_timeout: float
    status: Callable[[], Awaitable[dict[str, Any]]]
    metrics: Callable[[], Awaitable[bytes]]
    slow_seconds: float
    tally: RequestCounter = field(default_factory=RequestCounter)
    draining: bool = False


class Target(NamedTuple):
    """The bucket that a request is about, and under which member of a result it is given."""

    key: BucketKey
    automation: str | None

    @property
    def label(self) -> str:
        return "bucket" if self.key.job is not None else "deviceBucket"


# Reads a body of at most so many bytes; TooLarge, RequestTimeout or InvalidRequest otherwise.
Body = Callable[[int, float], Awaitable[bytes]]


class Request(NamedTuple):
    """One request: ``names`` from its path and ``query``, decoded; ``target`` on bucket routes."""

    services: Services
    handler: Callable[[Request], Awaitable[responses.Response]]
    headers: reading.Headers
    body: Body
    caller: access.Caller
    names: dict[str, str]
    query: Query
    target: Target | None

    async def json(self, then: Callable[[Any], T], heavy: bool = False) -> T:
        """What ``then`` makes of the body; InvalidJson, TooLarge, RequestTimeout for none.

        With a large one, or where it is ``heavy``, ``then`` runs beside the loop.
        """
        limit, timeout = self.services.buckets.max_bytes, self.services.body_timeout
        text = await self.body(limit, timeout)
        made = partial(reading.made_of, text, then)
        if heavy or len(text) > INLINE_MAX_BYTES:
            return await offload(made)
        return made()

    def flag(self, name: str) -> bool:
        """Whether a parameter is ``true``; InvalidRequest for another word than that or false."""
        text = self.one(name)
        if text not in (None, "true", "false"):
            raise InvalidRequest(f"cannot use the parameter {name}: it must be true or false")
        return text == "true"

    def one(self, name: str) -> str | None:
        """The value of a parameter that is given at most once."""
        return self.query.get(name, [None])[0]

    def name(self, parameter: str) -> str | None:
        """The same where it is a name; a script's empty variable is none, and not "all"."""
        value = self.one(parameter)
        return None if value is None else check_name(value, parameter)


Handler = Callable[[Request], Awaitable[responses.Response]]
