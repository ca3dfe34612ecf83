"""Detect that an open file or directory was removed: its content is lost with the descriptor."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable

# PyDLL keeps the interpreter's lock: statx waits for no disk here, and switching costs more.
_libc = ctypes.PyDLL(None)
_AT_EMPTY_PATH, _STATX_NLINK = 0x1000, 0x4
_STATX = struct.Struct("=I12xI236x")  # struct statx: stx_mask, then stx_nlink; 256 bytes


def check_linked(fd: int) -> None:
    """Raise OSError if an open file or directory was removed."""
    if _links(fd) == 0:
        raise OSError(errno.ENOENT, "it was removed from the state directory, or with it")


def _fstat_links(fd: int) -> int:
    return os.fstat(fd).st_nlink


def _statx_links() -> Callable[[int], int]:
    """Return a function that counts a file's names by statx(2) (Linux 4.11), without its times.

    From Linux 6.13 on, asking for a file's times makes its next write update them, and the sync
    after that write takes 1.5 times as long.
    """
    statx = _libc.statx
    statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)

    def links(fd: int) -> int:
        answer = ctypes.create_string_buffer(_STATX.size)
        if statx(fd, b"", _AT_EMPTY_PATH, _STATX_NLINK, answer) != 0:
            # The kernel lacks statx, or a filter forbids it; any other error recurs in fstat.
            return _fstat_links(fd)
        mask, found = _STATX.unpack(answer)
        return found if mask & _STATX_NLINK else _fstat_links(fd)

    return links


_links = _statx_links() if hasattr(_libc, "statx") else _fstat_links
