"""Describe an entry of the queue that belongs to this daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import BucketdError
from ...store.holds import Hold
from .stream import HoldStream


@dataclass(slots=True, eq=False)
class Entry:
    """An entry of this daemon. ``turn`` is done once it is held, or fails if it cannot be.

    ``allowed`` reports whether its owner may still hold it. ``lost`` says why it has ended before
    there was a stream. ``adopted`` is the task that continues it in the store after a restart.
    """

    hold: Hold
    allowed: Callable[[], bool]
    turn: asyncio.Future[None]
    stream: HoldStream | None = None
    lost: str | None = None
    adopted: asyncio.Task[None] | None = None

    def refuse(self, refusal: BucketdError) -> None:
        """Let the owner wait no longer, if it waits."""
        if not self.turn.done():
            self.turn.set_exception(refusal)
            # Marks it as seen, since nobody may be waiting for it yet.
            self.turn.exception()
