"""What systemd and this process tell each other: notices, the watchdog, a socket handed over.

Three small protocols, spoken without libsystemd; each is off where its
variables are not set, which is how the daemon runs from a shell.
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
STATUS_SECONDS = 30.0  # how late the status may be where no watchdog sets the pace
SEND_SECONDS = 1.0  # no longer than this may a manager that does not read hold us up

Environ = MutableMapping[str, str]


class HandoverError(Exception):
    """What was handed over cannot be listened on; the message says why, and what to do."""


class Notifier:
    """Tells the service manager how we are. Never raises: a daemon works unheard, too."""

    def __init__(self, address: str) -> None:
        # In the variable, @ stands for the NUL byte that begins an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._heard = True

    @classmethod
    def from_environ(cls, environ: Environ) -> Notifier:
        """Taken out of the environment, so that no process started by us speaks in our name."""
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
            if self._heard:  # once, not at each beat of the watchdog
                log.warning("cannot notify the service manager: %s", error)
            self._heard = False
        else:
            self._heard = True


_CLOCK = time.CLOCK_MONOTONIC


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())  # a line break would begin another variable


def watchdog_seconds(environ: Environ) -> float | None:
    """How often, at least, ``Notifier.alive`` is expected; None if it is not. Taken out."""
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not usec or (pid and pid != str(os.getpid())):
        return None
    if not (usec.isascii() and usec.isdigit() and int(usec) > 0):
        log.warning("cannot use WATCHDOG_USEC: it is no number of microseconds over 0")
        return None
    return int(usec) / 1e6


def handed_over(environ: Environ) -> socket.socket | None:
    """The listening unix socket that was passed to this process, if any; or HandoverError.

    The variables are taken out and the descriptor is close-on-exec: it is for us alone.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise HandoverError(
            f"cannot use the sockets that were handed over: LISTEN_FDS is {count!r}, and just "
            "one is served; give bucketd.socket one ListenStream="
        )
    try:
        os.set_inheritable(FIRST_DESCRIPTOR, False)
        sock = socket.socket(fileno=FIRST_DESCRIPTOR)
    except OSError as error:
        raise _unfit(error.strerror or "it is no socket") from error
    if not _listening(sock):
        sock.detach()  # it is not ours to close
        raise _unfit("it is no listening unix stream socket")
    sock.setblocking(False)
    return sock


@dataclass(frozen=True, slots=True)
class Manager:
    """Who started us, as its variables say: where it listens, what it expects, what it gave."""

    notifier: Notifier
    watchdog_seconds: float | None
    socket: socket.socket | None

    @classmethod
    def from_environ(cls, environ: Environ) -> Manager:
        return cls(Notifier.from_environ(environ), watchdog_seconds(environ), handed_over(environ))


async def report(
    manager: Manager, stalled: Callable[[], float], standing: Callable[[], str]
) -> None:
    """Feed the watchdog while the work gets on, and keep the status line true. Runs for good.

    That this runs shows that the event loop turns; ``stalled`` says for how
    many seconds what works beside it has been at one step.
    """
    period, told = (manager.watchdog_seconds or 2 * STATUS_SECONDS) / 2, standing()
    while True:
        if stalled() >= period:
            log.error(
                "the committer has been at one step for %.0f s, so the watchdog is not fed; "
                "look at the disk",
                stalled(),
            )
        elif manager.watchdog_seconds is not None:
            manager.notifier.alive()
        if standing() != told:
            told = standing()
            manager.notifier.status(told)
        await asyncio.sleep(period)


def _listening(sock: socket.socket) -> bool:
    return (
        sock.family == socket.AF_UNIX
        and sock.type == socket.SOCK_STREAM
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    )


def _unfit(cause: str) -> HandoverError:
    return HandoverError(
        f"cannot use the socket that was handed over: {cause}; bucketd.socket must name "
        "the path of a unix socket with ListenStream="
    )
