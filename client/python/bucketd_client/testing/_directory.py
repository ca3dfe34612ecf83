"""Directories for sockets, whose paths may have only so many bytes."""

from __future__ import annotations

import contextlib
import os
import tempfile

from .._retry import MAX_SOCKET_PATH


def short_directory(name: str) -> str:
    """Make a directory whose path leaves room for a socket's name, also with a long TMPDIR."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108  (made by mkdtemp)
        with contextlib.suppress(OSError):
            home = tempfile.mkdtemp(prefix="bucketd-", dir=parent)
            if len(os.fsencode(home)) <= MAX_SOCKET_PATH - len(name):
                return home
            os.rmdir(home)
    raise OSError(
        f"cannot make a socket below {tempfile.gettempdir()}: its path would have over "
        f"{MAX_SOCKET_PATH} bytes, or the directory is not writable; set TMPDIR to a short one"
    )
