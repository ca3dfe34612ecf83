"""The runtime directory and the socket of the daemon, restored if they disappear.

A user's runtime directory is removed at logout, while the daemon may keep running. It would hold
its locks without serving anybody; so it binds its socket again, or stops if that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import Protocol

from . import startup
from .errors import BucketdError
from .server import Server, SocketError, bind, unbind
from .settings.sections import Settings
from .startup import StartError

log = logging.getLogger(__name__)
CHECK_SECONDS = 1.0
# A daemon without a socket stops after so long.
UNREACHABLE_SECONDS = 30.0


class Unreachable(Exception):
    """The daemon has stopped because its socket is gone and cannot be bound again."""


class RuntimeFiles(Protocol):
    """What the daemon keeps in the runtime directory, in a directory of its own."""

    def are_stored(self) -> bool:
        """Report whether this directory exists, or need not."""

    def move(self, root: int) -> None:
        """Store everything again below another runtime directory. Raises BucketdError."""


class Endpoint:
    """The runtime directory and the socket; ``problem`` says why clients cannot connect."""

    def __init__(self, settings: Settings, inherited: socket.socket | None) -> None:
        self._settings = settings
        self.runtime = startup.take_runtime_dir(settings)
        self.problem: str | None = None
        self._failing_since: float | None = None
        # The status of the socket file; None if the socket belongs to systemd.
        self._bound: os.stat_result | None = None
        self._inherited = inherited
        if inherited is None:
            self._sock = self._bind()
        else:
            self._sock = inherited
            if inherited.getsockname() != settings.socket.path:
                log.warning("serving the inherited socket, and not %s", settings.socket.path)
        self.path: str = self._sock.getsockname()

    async def serve(self, server: Server) -> None:
        """Accept connections from now on."""
        self._server = server
        self._listening = await server.serve(self._sock)

    def close(self) -> None:
        """Accept no more connections, and remove the socket if it is ours."""
        self._listening.close()
        if self._bound is not None:
            unbind(self.path, self._bound)

    def check_reachable(self) -> None:
        """Raise Unreachable if the daemon has stopped because its socket was gone."""
        if self._has_given_up:
            raise Unreachable(f"stopped, as clients could no longer connect: {self.problem}")

    async def keep_reachable(self, kept: Sequence[RuntimeFiles], stop: asyncio.Event) -> None:
        """Restore the runtime directory, what is ``kept`` there, and the socket if they disappear,
        until ``stop``.

        Set ``stop`` if that fails for UNREACHABLE_SECONDS.
        """
        while not stop.is_set():
            try:
                await self._restore(kept)
                self.problem = self._failing_since = None
            except (BucketdError, OSError, SocketError, StartError) as error:
                self._note(str(error))
            if self._has_given_up:
                log.error("stopping, as clients can no longer connect: %s", self.problem)
                stop.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), CHECK_SECONDS)

    async def _restore(self, kept: Sequence[RuntimeFiles]) -> None:
        if not _is_same(self._settings.paths.runtime_dir, os.fstat(self.runtime)):
            runtime = startup.take_runtime_dir(self._settings)
            try:
                for one in kept:
                    await asyncio.to_thread(one.move, runtime)
            except BaseException:
                os.close(runtime)
                raise
            os.close(self.runtime)
            self.runtime = runtime
            log.warning("the runtime directory was removed, and has been created again")
        for one in kept:
            if not one.are_stored():
                await asyncio.to_thread(one.move, self.runtime)
        if self._is_socket_gone():
            listening = await self._server.serve(self._bind())
            self._listening.close()
            self._listening = listening
            log.warning("the socket was removed, and has been bound again: %s", self.path)

    def _is_socket_gone(self) -> bool:
        if self._bound is not None:
            return not _is_same(self.path, self._bound)
        # A socket of systemd may just be out of sight, except in a directory that is ours.
        is_ours = os.path.dirname(self.path) == self._settings.paths.runtime_dir
        return is_ours and not os.path.lexists(self.path)

    def _bind(self) -> socket.socket:
        path = self._settings.socket.path if self._inherited is None else self.path
        sock = bind(path, self._settings.socket_mode)
        self._bound = os.stat(path)
        return sock

    def _note(self, cause: str) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            log.error("the socket or the runtime directory is gone: %s; trying again", cause)
        self.problem = cause

    @property
    def _has_given_up(self) -> bool:
        since = self._failing_since
        return since is not None and time.monotonic() - since >= UNREACHABLE_SECONDS


def _is_same(path: str, known: os.stat_result) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (known.st_dev, known.st_ino)
