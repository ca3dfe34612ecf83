"""systemd's protocols: notifications, the watchdog, and socket activation.

They are implemented without libsystemd. Each is inactive if its variables are not set, as when the
daemon runs from a shell.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

log = logging.getLogger(__name__)
FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
# The maximum age of the status line without a watchdog interval.
STATUS_SECONDS = 30.0
# How long a manager that does not read may block the daemon.
SEND_SECONDS = 1.0

Environ = MutableMapping[str, str]


class InheritedSocketError(Exception):
    """The inherited socket is not usable; the message says why, and how to fix it."""


class Notifier:
    """Send the daemon's state to the service manager; log failures, and never raise."""

    def __init__(self, address: str) -> None:
        # An @ in the variable represents the NUL byte at the start of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._received = True

    @classmethod
    def from_environ(cls, environ: Environ) -> Notifier:
        """Take the address out of the environment, so that no child process can use it."""
        return cls(environ.pop("NOTIFY_SOCKET", ""))

    def ready(self, status: str) -> None:
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        # The time tells the manager which of several reloads this message belongs to.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(_CLOCK) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", _status("finishing accepted requests"))

    def status(self, text: str) -> None:
        self._send(_status(text))

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(SEND_SECONDS)
                sock.connect(self._address)
                sock.send("\n".join(lines).encode())
        # An invalid address raises a ValueError.
        except (OSError, ValueError) as error:
            # Log the failure once, rather than at each watchdog message.
            if self._received:
                log.warning("cannot notify the service manager: %s", error)
            self._received = False
        else:
            self._received = True


_CLOCK = time.CLOCK_MONOTONIC


def _status(text: str) -> str:
    # A line break would begin another variable.
    return "STATUS=" + " ".join(text.split())


def watchdog_seconds(environ: Environ) -> float | None:
    """Remove the watchdog interval from the environment and return it; None without a watchdog."""
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not usec or (pid and pid != str(os.getpid())):
        return None
    if not (usec.isascii() and usec.isdigit() and int(usec) > 0):
        log.warning("cannot use WATCHDOG_USEC: it is not a number of microseconds over 0")
        return None
    return int(usec) / 1e6


def inherited_socket(environ: Environ) -> socket.socket | None:
    """Return the listening unix socket that was passed to this process, if any.

    Remove the variables and make the descriptor close-on-exec, so that no child inherits it.
    Raises InheritedSocketError.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise InheritedSocketError(
            f"cannot use the inherited sockets: LISTEN_FDS is {count!r}, and just "
            "one is served; give bucketd.socket one ListenStream="
        )
    try:
        os.set_inheritable(FIRST_DESCRIPTOR, False)
        sock = socket.socket(fileno=FIRST_DESCRIPTOR)
    except OSError as error:
        raise _unfit(error.strerror or "it is not a socket") from error
    if not _listening(sock):
        # The descriptor is not a listening socket, so it stays open.
        sock.detach()
        raise _unfit("it is not a listening unix stream socket")
    sock.setblocking(False)
    return sock


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager, as its variables describe it."""

    notifier: Notifier
    watchdog_seconds: float | None
    socket: socket.socket | None

    @classmethod
    def from_environ(cls, environ: Environ) -> Manager:
        return cls(
            Notifier.from_environ(environ), watchdog_seconds(environ), inherited_socket(environ)
        )


async def report(
    manager: Manager,
    stalled: Callable[[], float],
    healthy: Callable[[], bool],
    status_line: Callable[[], str],
) -> None:
    """Notify the watchdog while the daemon works, and update the status line; never return.

    A run of this task shows that the event loop works. ``stalled`` returns for how many seconds the
    committer has been at one step, and ``healthy`` whether all background tasks run.
    """
    period, sent = (manager.watchdog_seconds or 2 * STATUS_SECONDS) / 2, status_line()
    while True:
        if stalled() >= period:
            log.error(
                "the committer has been at one step for %.0f s, so the watchdog is not notified; "
                "look at the disk",
                stalled(),
            )
        elif not healthy():
            log.error("a background task keeps failing, so the watchdog is not notified")
        elif manager.watchdog_seconds is not None:
            manager.notifier.alive()
        if status_line() != sent:
            sent = status_line()
            manager.notifier.status(sent)
        await asyncio.sleep(period)


def _listening(sock: socket.socket) -> bool:
    return (
        sock.family == socket.AF_UNIX
        and sock.type == socket.SOCK_STREAM
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    )


def _unfit(cause: str) -> InheritedSocketError:
    return InheritedSocketError(
        f"cannot use the inherited socket: {cause}; bucketd.socket must name "
        "the path of a unix socket with ListenStream="
    )
