"""Sockets that end with their process: a forked child gives up its copies.

A child that kept the socket of a hold would keep the hold as well, after its parent has died.
"""

from __future__ import annotations

import os
from _weakrefset import WeakSet
from threading import RLock

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any, Callable, Protocol

    class HasSocket(Protocol):
        """Own a socket, as the blocking connection and that of asyncio do."""

        _sock: Any


_owners: WeakSet[HasSocket] = WeakSet()
# No process forks between the creation of a socket and its registration.
_lock = RLock()


def open_unshared(owner: HasSocket, new_socket: Callable[[], Any]) -> Any:
    """Return a new socket, which the owner keeps as ``_sock``, and which no child keeps."""
    with _lock:
        sock = new_socket()
        owner._sock = sock
        _owners.add(owner)
    return sock


def _give_up_in_child() -> None:
    try:
        for owner in list(_owners):
            _replace(owner._sock.fileno())
        _owners.clear()
    finally:
        _lock.release()


def _replace(descriptor: int) -> None:
    """Replace a descriptor by one of /dev/null, so that its owner may still close it.

    A shutdown would end the connection of the parent as well.
    """
    if descriptor < 0:
        return
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # No descriptor is left, so there is none that a later close could hit by mistake.
        os.close(descriptor)
        return
    os.dup2(null, descriptor, inheritable=False)
    os.close(null)


os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_give_up_in_child
)
