"""Peers that do not read their answers: how many of them the daemon puts up with."""

from __future__ import annotations

import asyncio
import logging

log = logging.getLogger(__name__)
MOST = 64
PATIENCE_SECONDS = 1.0  # for those beyond MOST: a large answer takes its reader a moment
CROWD = 256


class SlowReaders:
    """Connections whose peer has not read its answer, the longest stuck first.

    Each may hold as much as the largest bucket. Beyond MOST the longest stuck are
    ended; beyond CROWD no large answers are begun, so what they hold is bounded.
    """

    def __init__(self) -> None:
        self._since: dict[object, tuple[float, asyncio.Transport]] = {}
        self._sweeping = False

    @property
    def crowded(self) -> bool:
        return len(self._since) >= CROWD

    def add(
        self, who: object, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._since[who] = loop.time(), transport
        if len(self._since) > MOST and not self._sweeping:
            self._sweeping = True
            loop.call_later(PATIENCE_SECONDS, self._sweep, loop)

    def remove(self, who: object) -> None:
        self._since.pop(who, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeping = False
        late = loop.time() - PATIENCE_SECONDS
        over = len(self._since) - MOST
        ended = [t for since, t in list(self._since.values())[: max(0, over)] if since <= late]
        for transport in ended:
            transport.abort()  # what its peer has not read is lost; it may ask again
        if ended:
            log.warning("ended %d connections whose peers do not read answers", len(ended))
        if over > len(ended):
            self._sweeping = True
            loop.call_later(PATIENCE_SECONDS, self._sweep, loop)
