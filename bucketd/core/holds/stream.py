"""Stream to a holder for as long as its hold lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from ...store.holds import Hold
from ..events import sse

HEARTBEAT = b":\n\n"
# Heartbeats are sent to so many streams at a time.
BATCH_SIZE = 64
PAUSE_SECONDS = 0.001


class HoldStream:
    """Send a holder the hold, heartbeats, and at last why it was lost, if it was.

    ``release`` ends the hold; it is called when the stream ends, with or without its connection,
    and returns a future of the end.
    """

    def __init__(self, hold: Hold, release: Callable[[], asyncio.Future[Any]]) -> None:
        self.hold, self._release = hold, release
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send: Callable[[bytes], None] | None = None
        self._lost: bytes | None = None

    def start(self, send: Callable[[bytes], None]) -> None:
        hold = self.hold
        about = {
            "id": hold.id,
            "fence": hold.fence,
            "name": hold.name,
            "device": hold.key.device,
            "job": hold.key.job,
            "since": hold.row()["since"],
            "exclusive": hold.exclusive,
            "label": hold.label,
        }
        send(sse.announcement("hold", about))
        if not self.ended.done():
            self._send = send
        if self._lost is not None:
            send(self._lost)

    def beat(self) -> None:
        """Send a heartbeat."""
        if self._send is not None:
            self._send(HEARTBEAT)

    def lose(self, reason: str) -> None:
        """Tell the holder that it has lost the hold, and end the stream."""
        self._lost = sse.announcement("lost", {"id": self.hold.id, "reason": reason})
        if self._send is not None:
            self._send(self._lost)
        self.close()

    def on_end_of_input(self) -> None:
        """End the hold, then the stream: so a holder can wait until it is released."""
        self._release().add_done_callback(lambda _ended: self.close())

    def close(self) -> None:
        """End the stream. A second call does nothing."""
        # A reference to the connection would be a cycle.
        self._send = None
        if not self.ended.done():
            self.ended.set_result(None)
            self._release()


class Heartbeats:
    """Send heartbeats to all ``streams``, every so many ``seconds``, while there are any."""

    def __init__(self, streams: Callable[[], list[HoldStream]], seconds: float) -> None:
        self._streams, self.seconds = streams, seconds
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Send the next ones in time. A second call does nothing."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        self._timer = None
        streams = self._streams()
        if streams:
            self.start()
            self._send(iter(streams))

    def _send(self, streams: Iterator[HoldStream]) -> None:
        for count, stream in enumerate(streams, 1):
            stream.beat()
            if count == BATCH_SIZE:
                asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._send, streams)
                return
