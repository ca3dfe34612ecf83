"""System calls below the state directory: short functions over descriptors.

Every path is walked from one descriptor of the state directory with O_NOFOLLOW,
so no symbolic link in it is ever followed. They raise OSError; ``refusal`` turns that into what
a caller may be told.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import BucketdError, Internal, Overloaded, ReadOnly, StorageFull

_libc = ctypes.CDLL(None, use_errno=True)
syncfs = _libc.syncfs
_BLOCK = 1024 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_IN_THE_WAY = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR)
# linux/fs.h: _IOR('v', 1, long); the file systems that have generations fill in 32 bits.
_FS_IOC_GETVERSION = 0x80087601
_AT_EMPTY_PATH, _STATX_NLINK = 0x1000, 0x4
_STATX = struct.Struct("=I12xI236x")  # struct statx: stx_mask, then stx_nlink; 256 bytes


class OutcomeUnknown(OSError):
    """The change is in place, but whether it survives a power cut is not known."""


class NotAFile(OSError):
    """Something other than a regular file stands where a bucket file should be."""


class Signature(NamedTuple):
    """What changes whenever a file is replaced or written: inode, size, time of change in ns."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def birth_of(fd: int) -> str:
    """Tells a file from any other of its file system, also from a later one with its inode.

    A freed inode goes to the next file that is made, so its number alone would not. Where there
    are no generations (tmpfs), it is all there is.
    """
    inode = os.fstat(fd).st_ino
    try:
        found = fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8))
    except OSError:
        return str(inode)
    return f"{inode}-{struct.unpack_from('=I', found)[0]}"


def in_the_way(error: OSError) -> bool:
    """Whether it failed because of something that is no file, or no directory, of ours."""
    return isinstance(error, NotAFile) or error.errno in _IN_THE_WAY


def refusal(doing: str, error: OSError) -> BucketdError:
    """The error to answer with when ``doing`` ("write the bucket of …") failed with ``error``."""
    cause = error.strerror or str(error)
    if isinstance(error, OutcomeUnknown):
        return Internal(
            f"cannot {doing} for certain: {cause}; the outcome is unknown, so read it again"
        )
    if error.errno in _FULL:
        return StorageFull(f"cannot {doing}: {cause}; nothing was changed, free some space")
    if error.errno in _READ_ONLY:
        return ReadOnly(
            f"cannot {doing}: {cause}; nothing was changed, let this user write there again"
        )
    if error.errno in _EXHAUSTED:
        return Overloaded(f"cannot {doing}: {cause}; nothing was changed, try again")
    return Internal(f"cannot {doing}: {cause}; nothing was changed, look at the disk")


def open_root(path: str) -> int:
    """A descriptor of the state directory, made with mode 0700 where it is missing."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def directory(
    root: int, parts: tuple[str, ...], create: bool = False, durably: bool = True
) -> Iterator[int]:
    """A descriptor of the directory at ``parts`` below ``root``; made with ``create``."""
    here = os.dup(root)
    try:
        for part in parts:
            below = _enter(here, part, create, durably)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _enter(parent: int, name: str, create: bool, durably: bool) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    if durably:
        os.fsync(parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def check_named(fd: int) -> None:
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
    statx = ctypes.PyDLL(None).statx  # Keeps the interpreter's lock, for it waits for no disk.
    statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)

    def links(fd: int) -> int:
        answer = ctypes.create_string_buffer(_STATX.size)
        if statx(fd, b"", _AT_EMPTY_PATH, _STATX_NLINK, answer) != 0:
            return _fstat_links(fd)  # not known to the kernel, or forbidden; or it tells the cause
        mask, found = _STATX.unpack(answer)
        return found if mask & _STATX_NLINK else _fstat_links(fd)

    return links


_links = _statx_links() if hasattr(_libc, "statx") else _fstat_links


def signature(root: int, path: str) -> Signature | None:
    """One ``stat``; None where nothing stands. Raises where the state directory itself is gone."""
    try:
        return Signature.of(os.stat(path, dir_fd=root, follow_symlinks=False))
    except FileNotFoundError:
        check_named(root)
        # That stat went through links on the way; nothing behind one is ours to call absent.
        with (
            contextlib.suppress(FileNotFoundError),
            directory(root, tuple(path.split("/")[:-1])),
        ):
            pass
        return None


@dataclass(frozen=True, slots=True)
class Content:
    """A regular file's bytes, and the signature and birth of just that file."""

    text: bytes
    signature: Signature
    birth: str


def read(root: int, parts: tuple[str, ...], name: str) -> Content:
    """A regular file; FileNotFoundError where there is nothing."""
    with directory(root, parts) as parent:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=parent)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFile(errno.EINVAL, "it is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise NotAFile(errno.EFBIG, f"it has {status.st_size} bytes")
        return Content(_read_all(fd, status.st_size), Signature.of(status), birth_of(fd))
    finally:
        os.close(fd)


def _read_all(fd: int, size: int) -> bytes:
    text = b""
    while chunk := os.read(fd, size + 1 - len(text)):
        text += chunk
    return text


def may_make(root: int, parts: tuple[str, ...]) -> bool:
    """Whether this user may make files in the directory at ``parts``, or first that directory."""
    for depth in range(len(parts), -1, -1):
        path = "/".join(parts[:depth]) or "."
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(path, dir_fd=root, follow_symlinks=False)
            # Anything but a directory gives way to one.
            return not stat.S_ISDIR(status.st_mode) or os.access(
                path, os.W_OK | os.X_OK, dir_fd=root
            )
    return False


def names(root: int, parts: tuple[str, ...]) -> list[str]:
    """The sorted names in a directory; none where there is no such directory."""
    try:
        with directory(root, parts) as here:
            return sorted(os.listdir(here))
    except (FileNotFoundError, NotADirectoryError):
        return []


def write(
    root: int,
    parts: tuple[str, ...],
    name: str,
    text_for: Callable[[str], bytes],
    durably: bool = True,
) -> Signature:
    """Put a whole new file in place atomically, and durably unless the journal covers it.

    ``text_for`` gets the birth of the file it will stand in. Raises OutcomeUnknown
    when only the last step, making the rename durable, failed.
    """
    with directory(root, parts, create=True, durably=durably) as parent:
        temporary = f".{name}.tmp"
        try:
            signature = _write_new(parent, temporary, text_for, durably)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise
        if durably:
            sync_entries(parent)
        return signature


def _write_new(
    parent: int, name: str, text_for: Callable[[str], bytes], durably: bool
) -> Signature:
    # A crash may have left one behind; whatever it is, it is never written through.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        rest = memoryview(text_for(birth_of(fd)))
        while rest:
            rest = rest[os.write(fd, rest) :]
        if durably:
            os.fsync(fd)
        return Signature.of(os.fstat(fd))
    finally:
        os.close(fd)


def remove(root: int, parts: tuple[str, ...], name: str, durably: bool = True) -> None:
    """Unlink a file; no error where there is none."""
    with contextlib.suppress(FileNotFoundError), directory(root, parts) as parent:
        os.unlink(name, dir_fd=parent)
        if durably:
            sync_entries(parent)


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


def sync_all(root: int) -> None:
    """Make everything on the state directory's file system durable (syncfs(2), Linux 5.8)."""
    if syncfs(root) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_entries(parent: int) -> None:
    """Make renames and links in a directory durable."""
    try:
        os.fsync(parent)
    except OSError as error:
        raise OutcomeUnknown(error.errno, error.strerror) from error
