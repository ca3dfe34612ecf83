"""Requests whose head was seen before: answered within one turn of the loop where that can be."""

from __future__ import annotations

import asyncio
from time import perf_counter

from aiohttp.helpers import rfc822_formatted_time

from ..api import dispatch, responses
from ..api import headers as reading
from ..concurrency import INLINE_MAX_BYTES
from ..model.bucket import Snapshot
from .answering import Answering
from .head_cache import CachedHead


class Repeating(Answering):
    """A connection that knows what it hears again, and so needs no help to read it."""

    __slots__ = ()

    def _answer_repeat(self, data: bytes) -> bool:
        """Begin to answer it, if it is one; False where aiohttp has to read it."""
        found = self._shared.repeats.find(data)
        if found is None:
            return False
        repeat, content = found
        self._began, self._about = perf_counter(), repeat.about
        quick = self._show(repeat) if repeat.plain_read else self._begin(repeat.meaning, content)
        if not quick:
            self._repeating = self._loop.create_task(self._repeat(repeat.meaning, content))
        return True

    def _show(self, repeat: CachedHead) -> bool:
        """Answer a read of what is known now; False where that takes more."""
        known = dispatch.known(self._shared.services, self.peer, repeat.meaning)
        if known is None:
            return False
        target, now = known
        if len(now.bucket) > INLINE_MAX_BYTES and self._shared.stuck.crowded:
            return False
        if repeat.frame is None or not repeat.frame.fits(now):
            repeat.frame = responses.Frame.around(target.label, now)
        if repeat.frame is None:
            return False
        self._write(repeat.frame.encode(now, rfc822_formatted_time()))
        self._count(200)
        return True

    def _begin(self, meaning: dispatch.ResolvedRequest, content: bytes) -> bool:
        """Begin a write that needs nothing more from its peer; False where it may."""
        begun = dispatch.begin(self._shared.services, self.peer, meaning, content)
        if begun is None:
            return False
        label, self._repeating = begun

        def wrote(future: asyncio.Future[Snapshot]) -> None:
            error = future.exception()
            if error is not None:
                self._finish(dispatch.refusal(error))
                return
            now = future.result()
            frame = responses.Frame.around(label, now)
            if frame is None or self._shared.services.draining:
                self._finish(responses.result(label, now))
                return
            self._repeating = None
            self._write(frame.encode(now, rfc822_formatted_time()))
            self._count(200)
            self._go_on()

        self._repeating.add_done_callback(wrote)
        return True

    async def _repeat(self, meaning: dispatch.ResolvedRequest, content: bytes) -> None:
        services = self._shared.services

        async def body(limit: int, _seconds: float) -> bytes:
            if len(content) > limit:
                raise reading.body_too_large(f"{len(content)} bytes", limit)
            return content

        answer = await dispatch.answer(services, self.peer, meaning, body)
        self._finish(self._affordable(meaning, answer))

    def _finish(self, answer: responses.Response) -> None:
        self._repeating = None
        self._send(answer.closing() if self._shared.services.draining else answer)
        self._count(answer.status)
        self._go_on()

    def _go_on(self) -> None:
        if self._paused:  # its peer does not read: it is heard again by resume_writing
            return
        early, self._early = self._early, b""
        if early and self.transport is not None and not self._force_close:
            self.transport.resume_reading()
            self.data_received(early)

    @property
    def _waits(self) -> bool:
        """Whether aiohttp's loop has nothing to answer: then, and only then, it waits on this."""
        return self._waiter is not None and not self._waiter.done() and not self._force_close
