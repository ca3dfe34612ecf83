"""What a batch has come to, told on the event loop: to who waits for it, then to the listener."""

from __future__ import annotations

import asyncio
import logging

from ...errors import BucketdError
from ...model.bucket import Snapshot
from ..base import ChangeEvent, Subscriber
from .batch import Batch, Commit
from .records import EventId, framed_size

log = logging.getLogger(__name__)


class Acknowledger:
    """Tells of batches in their order. ``event_id``: of the newest change told of."""

    def __init__(self, event_id: EventId) -> None:
        self.event_id = event_id
        self.listener: Subscriber | None = None

    def resolve(self, batch: Batch) -> None:
        for commit, outcome in batch.outcomes:
            _answer(commit, outcome)
        if batch.start is not None:
            self._tell(batch)

    def _tell(self, batch: Batch) -> None:
        """Tell of what was journaled; an adopted edit is told of as well."""
        assert batch.start is not None  # noqa: S101  (as it was asked before)
        generation, offset = batch.start.generation, batch.start.offset
        for (key, before, after), payload in zip(batch.transitions, batch.payloads, strict=True):
            event_id = EventId(generation, offset, after.etag)
            if self.listener is not None:
                self.listener.tell(ChangeEvent(key, before, after, str(event_id)))
            self.event_id = event_id
            offset += framed_size(payload)


def _answer(commit: Commit, outcome: Snapshot | BucketdError) -> None:
    future = commit.future
    if future is None:
        if isinstance(outcome, BucketdError):
            log.warning("%s", outcome.message)
    elif future.done():  # nobody waits; it has happened all the same
        return
    elif isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def release(waiter: asyncio.Future[None]) -> None:
    """Let it go on, if it still waits."""
    if not waiter.done():
        waiter.set_result(None)
