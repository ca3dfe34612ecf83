"""Whether an open file or directory still has a name: what has none is gone with its descriptor."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable

_libc = ctypes.PyDLL(None)  # keeps the interpreter's lock, for it waits for no disk
_AT_EMPTY_PATH, _STATX_NLINK = 0x1000, 0x4
_STATX = struct.Struct("=I12xI236x")  # struct statx: stx_mask, then stx_nlink; 256 bytes


def check_linked(fd: int) -> None:
    """Raise OSError where an open file or directory was removed meanwhile."""
    if _links(fd) == 0:
        raise OSError(errno.ENOENT, "it was removed from the state directory, or with it")


def _fstat_links(fd: int) -> int:
    return os.fstat(fd).st_nlink


def _statx_links() -> Callable[[int], int]:
    """How many names a file has, by statx(2) (Linux 4.11), asked for nothing else.

    From Linux 6.13 on, whoever asks for a file's times has its next write note a new one, and the
    sync after that write take half as long again.
    """
    statx = _libc.statx
    statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)

    def links(fd: int) -> int:
        answer = ctypes.create_string_buffer(_STATX.size)
        if statx(fd, b"", _AT_EMPTY_PATH, _STATX_NLINK, answer) != 0:
            return _fstat_links(fd)  # not known to the kernel, or forbidden; or it tells the cause
        mask, found = _STATX.unpack(answer)
        return found if mask & _STATX_NLINK else _fstat_links(fd)

    return links


_links = _statx_links() if hasattr(_libc, "statx") else _fstat_links
