"""Clients that do not read their responses: how many of them the daemon puts up with."""

from __future__ import annotations

import asyncio
import logging

log = logging.getLogger(__name__)
MAX_SLOW = 64
MAX_SLOW_AT_ALL = 256
PATIENCE_SECONDS = 1.0  # for those beyond MAX_SLOW: to read a large response takes a moment


class SlowReaders:
    """Connections whose peer has not read its response, the slowest first.

    Each may hold as much memory as the largest bucket. Beyond MAX_SLOW the slowest are ended;
    beyond MAX_SLOW_AT_ALL no large response is sent to anybody, so their memory is bounded.
    """

    def __init__(self) -> None:
        self._since: dict[object, tuple[float, asyncio.Transport]] = {}
        self._sweeping = False
        self.is_full = False  # too many for large responses

    def add(
        self, who: object, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._since[who] = loop.time(), transport
        self.is_full = len(self._since) >= MAX_SLOW_AT_ALL
        if len(self._since) > MAX_SLOW and not self._sweeping:
            self._sweeping = True
            loop.call_later(PATIENCE_SECONDS, self._sweep, loop)

    def remove(self, who: object) -> None:
        self._since.pop(who, None)
        self.is_full = len(self._since) >= MAX_SLOW_AT_ALL

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeping = False
        late = loop.time() - PATIENCE_SECONDS
        over = len(self._since) - MAX_SLOW
        ended = [t for since, t in list(self._since.values())[: max(0, over)] if since <= late]
        for transport in ended:
            # What its peer has not read is lost; it may ask again.
            transport.abort()
        if ended:
            log.warning("closed %d connections whose peers do not read responses", len(ended))
        if over > len(ended):
            self._sweeping = True
            loop.call_later(PATIENCE_SECONDS, self._sweep, loop)
