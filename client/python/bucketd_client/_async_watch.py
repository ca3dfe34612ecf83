"""Watching within asyncio: on its own streams, so that a watcher takes no thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from ._events import Change
from ._watch_session import FAILURES, Watching

_CHUNK = 65536


async def changes(watching: Watching) -> AsyncGenerator[Change, None]:
    """The changes of one bucket, from the first ``await`` on."""
    while True:
        writer = None
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_unix_connection(watching.path), watching.seconds
            )
            writer.write(watching.request())
            while True:
                chunk = await asyncio.wait_for(reader.read(_CHUNK), watching.seconds)
                for told in watching.take(chunk):
                    if isinstance(told, Change):
                        yield told
        except asyncio.TimeoutError:  # until Python 3.11 it is another
            seconds = watching.pause(TimeoutError())
        except FAILURES as failure:
            seconds = watching.pause(failure)
        finally:
            if writer is not None:
                writer.close()
        await asyncio.sleep(seconds)
