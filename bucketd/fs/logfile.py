"""System calls on the journal's files: preallocate, write at offsets, sync, read."""

from __future__ import annotations

import os

_BLOCK = 1024 * 1024


def open_log(parent: int, name: str, size: int) -> int:
    """Return a descriptor of a file of at least ``size`` bytes, zero-filled where it is new."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        have = os.fstat(fd).st_size
        while have < size:
            # Zeros are written, since on a file that is only reserved each fdatasync would also
            # write metadata.
            have += os.pwrite(fd, bytes(min(_BLOCK, size - have)), have)
        os.fsync(fd)
        os.fsync(parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_log(fd: int) -> bytes:
    """Return the whole content, even if the file is longer than ``open_log`` would make it."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def shorten(fd: int, size: int) -> None:
    """Truncate a file to ``size`` bytes if it is longer."""
    if os.fstat(fd).st_size > size:
        os.ftruncate(fd, size)


def write_at(fd: int, text: bytes, offset: int) -> None:
    rest = memoryview(text)
    while rest:
        done = os.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done


def close(fd: int) -> None:
    os.close(fd)


def sync_data(fd: int) -> None:
    os.fdatasync(fd)
