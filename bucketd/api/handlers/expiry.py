"""Follow the life of a context: what was opened with it ends when it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...core.contexts import Context

# Timers of the event loop do not run while the machine is suspended, so a timer is short and checks
# the time again.
MAX_TIMER_SECONDS = 10.0


class Expiry:
    """Call ``on_expired`` once a context has expired, also after the machine was suspended."""

    def __init__(self, context: Context, on_expired: Callable[[], object]) -> None:
        self._context, self._on_expired = context, on_expired
        self._timer: asyncio.TimerHandle | None = None
        self._check()

    def _check(self) -> None:
        left = self._context.seconds_left
        if left <= 0:
            self._on_expired()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(left, MAX_TIMER_SECONDS), self._check)

    def cancel(self, _ended: object = None) -> None:
        """Stop following: what was opened has ended."""
        if self._timer is not None:
            self._timer.cancel()
