"""System calls on the journal's files: reserved once, written at places, synced, read whole."""

from __future__ import annotations

import os

_BLOCK = 1024 * 1024


def open_log(parent: int, name: str, size: int) -> int:
    """A descriptor of a file of at least ``size`` bytes, zero-filled and reserved where new."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        have = os.fstat(fd).st_size
        while have < size:
            # Written, not only reserved: else each fdatasync would also write metadata.
            have += os.pwrite(fd, bytes(min(_BLOCK, size - have)), have)
        os.fsync(fd)
        os.fsync(parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_log(fd: int) -> bytes:
    """All of it, also where it is longer than ``open_log`` would make it now."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def shorten(fd: int, size: int) -> None:
    """Give back what stands behind ``size`` bytes, if anything."""
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
