"""A unix socket to listen on: bound with its mode, in place of a stale one, and removed again."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

MAX_PATH_BYTES = 107  # sockaddr_un, less the final NUL
BACKLOG = 1024


class SocketError(Exception):
    """The socket cannot be bound; the message says why, and how to fix it."""


def bind(path: str, mode: int) -> socket.socket:
    """Return a listening unix socket at ``path`` that has its mode from the first moment.

    A socket that nobody serves is replaced. Raise SocketError where one is in use, or anything
    else has that name.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SocketError(
            f"cannot listen on {path}: the path has over {MAX_PATH_BYTES} bytes, which no "
            "unix socket can have; give a shorter one with --socket"
        )
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _unusable(path, error) from error
    finally:
        os.umask(umask)
    sock.setblocking(False)
    return sock


def unbind(path: str, ours: os.stat_result) -> None:
    """Unlink the socket, unless another daemon has bound its own there meanwhile."""
    # A socket that cannot be unlinked is replaced by the next start, and must not keep this daemon
    # from ending in order.
    with contextlib.suppress(OSError):
        if os.stat(path).st_ino == ours.st_ino:
            os.unlink(path)


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SocketError(
                f"cannot listen on {path}: something else than a socket has that "
                "name; move it away, or give another path with --socket"
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                _unlink(path)
                return
    raise SocketError(
        f"cannot listen on {path}: another process serves it; stop that one, or give another "
        "path with --socket"
    )


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: OSError) -> SocketError:
    return SocketError(
        f"cannot listen on {path}: {error.strerror}; make its directory writable for this user, "
        "or give another path with --socket"
    )
