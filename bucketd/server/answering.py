"""What one peer is sent: answers written, counted, and refused where too many go unread."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from ..api import access, dispatch, responses
from ..api.request import Services
from ..concurrency import INLINE_MAX_BYTES
from ..errors import Overloaded
from ..settings.sections import Limits
from .head_cache import HeadCache
from .slow_readers import SlowReaders

log = logging.getLogger(__name__)
SHARES = 4  # a user that is no operator may have one of these of all connections
MAX_LINE = 32 * 1024  # two names of 128 emoji and a few keys, percent-encoded
LINGER_SECONDS = 2.0  # how long an upload that was refused is read on, so that its sender hears why
NOWHERE = ("none", "none")  # path and method of what no route is for


@dataclass(slots=True)
class Shared:
    """What all connections have in common. A reload replaces ``limits``.

    ``held``: how many connections each user has.
    """

    services: Services
    limits: Limits
    repeats: HeadCache
    stuck: SlowReaders = field(default_factory=SlowReaders)
    held: Counter[int] = field(default_factory=Counter)

    def too_many(self, peer: access.Peer, connections: int) -> bool:
        """Whether one of the peer's is one too many: of all, or of what a user may take of them.

        Else any local user could keep all others out.
        """
        most = self.limits.max_connections
        over = self.held[peer.uid] > max(1, most // SHARES)
        return connections > most or (over and not self.services.operators.include(peer))


class Answering(web.RequestHandler):
    """The state of one connection, and its way out."""

    __slots__ = (
        *("_about", "_began", "_burst", "_early", "_fed", "_fresh", "_head", "_header_timer"),
        *("_limits", "_repeating", "_shared", "_streaming", "peer"),
    )

    def __init__(self, manager: web.Server, shared: Shared, **options: Any) -> None:
        super().__init__(
            manager,
            access_log=None,  # type: ignore[arg-type]  # its server itself passes None
            auto_decompress=False,
            keepalive_timeout=shared.limits.idle_timeout_seconds,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_LINE,
            tcp_keepalive=False,
            **options,
        )
        self._shared, self._limits = shared, shared.limits
        self._header_timer: asyncio.TimerHandle | None = None
        self.peer = access.Peer(0, -1, frozenset())
        self._fresh = True  # aiohttp's loop has not begun, so it does not wait yet
        # Bytes given to aiohttp since no request was under way, and the head they began with.
        self._fed, self._head = 0, b""
        self._repeating: asyncio.Future[Any] | None = None
        self._early = b""  # what came while a repeated request was under way
        self._began, self._about = 0.0, NOWHERE  # the request under way, for the figures
        self._streaming: responses.Stream | None = None
        self._burst = 0  # bytes of a stream that went out when none were unread

    def _send(self, answer: responses.Response) -> None:
        self._write(answer.encode(rfc822_formatted_time()))
        if answer.close:
            self.force_close()

    def _write(self, text: bytes) -> None:
        if self._manager is not None:
            self._manager.requests_count += 1
        if self.transport is not None:
            self.transport.write(text)
            self._next_keepalive_close_time = self._loop.time() + self._limits.idle_timeout_seconds

    def _count(self, status: int) -> None:
        services, seconds = self._shared.services, perf_counter() - self._began
        services.tally.add(*self._about, status, seconds)
        if seconds > services.slow_seconds:
            path, method = self._about
            log.warning("slow: %s %s took %.3f s, status %d", method, path, seconds, status)

    def _affordable(
        self, meaning: dispatch.ResolvedRequest, answer: responses.Response
    ) -> responses.Response:
        """The answer, unless it is a large one to a read, and too many of those are not read."""
        large = meaning.route.method == "GET" and len(answer.body) > INLINE_MAX_BYTES
        if not (large and self._shared.stuck.crowded):
            return answer
        return responses.refused(
            Overloaded("cannot answer: too many clients do not read their answers; try again")
        )
