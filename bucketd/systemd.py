"""systemd's protocols: notifications, the watchdog, and socket activation.

They are spoken without libsystemd. Each is off where its variables are not set, as when the daemon
runs from a shell.
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
STATUS_SECONDS = 30.0  # how old the status line may be where no watchdog sets the pace
SEND_SECONDS = 1.0  # how long a manager that does not read may block the daemon

Environ = MutableMapping[str, str]


class InheritedSocketError(Exception):
    """The inherited socket cannot be listened on; the message says why, and how to fix it."""


class Notifier:
    """Sends the daemon's state to the service manager. Never raises: that is not essential."""

    def __init__(self, address: str) -> None:
        # In the variable, @ stands for the NUL byte that begins an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._received = True

    @classmethod
    def from_environ(cls, environ: Environ) -> Notifier:
        """Take the address out of the environment, so that no child process can use it."""
        return cls(environ.pop("NOTIFY_SOCKET", ""))

    def ready(self, status: str) -> None:
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        # With the time, the manager knows which of several reloads this is about.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(_CLOCK) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", _status("finishing what was accepted"))

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
        except (OSError, ValueError) as error:  # ValueError: no address at all
            if self._received:  # once, and not at each watchdog message
                log.warning("cannot notify the service manager: %s", error)
            self._received = False
        else:
            self._received = True


_CLOCK = time.CLOCK_MONOTONIC


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())  # a line break would begin another variable


def watchdog_seconds(environ: Environ) -> float | None:
    """Take out of the environment how often ``Notifier.alive`` is expected; None: never."""
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not usec or (pid and pid != str(os.getpid())):
        return None
    if not (usec.isascii() and usec.isdigit() and int(usec) > 0):
        log.warning("cannot use WATCHDOG_USEC: it is not a number of microseconds over 0")
        return None
    return int(usec) / 1e6


def inherited_socket(environ: Environ) -> socket.socket | None:
    """Return the listening unix socket that was passed to this process, if any.

    The variables are taken out and the descriptor is close-on-exec, so that no child has it.
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
        sock.detach()  # The descriptor belongs to somebody else.
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
    """Feed the watchdog while the daemon works, and keep the status line current. Never return.

    Running at all shows that the event loop turns. ``stalled`` says for how many seconds the
    committer has been at one step, and ``healthy`` whether all background tasks live.
    """
    period, sent = (manager.watchdog_seconds or 2 * STATUS_SECONDS) / 2, status_line()
    while True:
        if stalled() >= period:
            log.error(
                "the committer has been at one step for %.0f s, so the watchdog is not fed; "
                "look at the disk",
                stalled(),
            )
        elif not healthy():
            log.error("a background task keeps failing, so the watchdog is not fed")
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
