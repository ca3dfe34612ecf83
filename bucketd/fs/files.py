"""System calls below the state directory, as short functions over descriptors.

Every path is walked from one descriptor of the state directory with O_NOFOLLOW, so no symbolic
link in it is ever followed. The functions raise OSError; ``errors`` says what each means.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import BeingWritten, NotAFile, OutcomeUnknown
from .unlinked import check_linked

_libc = ctypes.CDLL(None, use_errno=True)
syncfs = _libc.syncfs
MAX_FILE_BYTES = 64 * 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# linux/fs.h: _IOR('v', 1, long); the file systems that have generations fill in 32 bits.
_FS_IOC_GETVERSION = 0x80087601


# Inode, size, mtime and ctime in ns identify the content of a file: the key changes when the file
# is replaced or written. Every read of a bucket makes one, so it is a plain tuple.
StatKey = tuple[int, int, int, int]


def stat_key_of(status: os.stat_result) -> StatKey:
    """Return the StatKey of a status."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def file_id_of(fd: int) -> str:
    """Return an id that distinguishes a file from all others, also later ones, on its file system.

    The number of a freed inode is used again for a new file, so the id includes the inode's
    generation; some file systems (tmpfs) have none.
    """
    inode = os.fstat(fd).st_ino
    try:
        found = fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8))
    except OSError:
        return str(inode)
    return f"{inode}-{struct.unpack_from('=I', found)[0]}"


def open_root(path: str) -> int:
    """Return a descriptor of the state directory; create it with mode 0700 if missing."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def directory(
    root: int, parts: tuple[str, ...], create: bool = False, durably: bool = True
) -> Iterator[int]:
    """Open the directory at ``parts`` below ``root``; with ``create``, create it if missing."""
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


def stat_key(root: int, path: str) -> StatKey | None:
    """Return the StatKey of a path; None if it does not exist. Raises if the root is gone."""
    try:
        return stat_key_of(os.stat(path, dir_fd=root, follow_symlinks=False))
    except FileNotFoundError:
        check_linked(root)
        # The stat followed links in the path. A path with a link is an error, not an absent file.
        with (
            contextlib.suppress(FileNotFoundError),
            directory(root, tuple(path.split("/")[:-1])),
        ):
            pass
        return None


@dataclass(frozen=True, slots=True)
class Content:
    """A regular file's bytes, and the StatKey and file id of that very file."""

    text: bytes
    stat_key: StatKey
    file_id: str


def read(root: int, parts: tuple[str, ...], name: str, unless_written: bool = False) -> Content:
    """Read a regular file; raise FileNotFoundError if there is none.

    With ``unless_written``, raise BeingWritten while another program has the file open for
    writing, if the kernel tells this user, and keep writers waiting until the file is read.
    """
    with directory(root, parts) as parent:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=parent)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFile(errno.EINVAL, "it is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise NotAFile(errno.EFBIG, f"it has {status.st_size} bytes")
        if unless_written:
            _keep_writers_waiting(fd)
            status = os.fstat(fd)
        return Content(_read_all(fd, status.st_size), stat_key_of(status), file_id_of(fd))
    finally:
        os.close(fd)


def _keep_writers_waiting(fd: int) -> None:
    """Take a read lease (fcntl(2)), which ends with the descriptor."""
    try:
        # The kernel signals the holder of a lease when a writer comes; SIGIO, its default, would
        # end the process.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # A lease is not possible on files of other users and on some file systems.
        if error.errno == errno.EAGAIN:
            raise BeingWritten(error.errno, "another program has it open for writing") from None


def _read_all(fd: int, size: int) -> bytes:
    text = b""
    while chunk := os.read(fd, size + 1 - len(text)):
        text += chunk
    return text


def can_create(root: int, parts: tuple[str, ...]) -> bool:
    """Report whether this user may create files at ``parts``, or the directory itself."""
    for depth in range(len(parts), -1, -1):
        path = "/".join(parts[:depth]) or "."
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(path, dir_fd=root, follow_symlinks=False)
            # An entry that is not a directory is moved to the quarantine.
            return not stat.S_ISDIR(status.st_mode) or os.access(
                path, os.W_OK | os.X_OK, dir_fd=root
            )
    return False


def names(root: int, parts: tuple[str, ...], files: bool = True) -> list[str]:
    """Return the sorted names in a directory; none if it does not exist.

    Without ``files``, regular files are left out. Names that are not UTF-8 have surrogates.
    """
    try:
        with directory(root, parts) as here:
            if files:
                return sorted(os.listdir(here))
            with os.scandir(here) as found:
                return sorted(e.name for e in found if not e.is_file(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def write(
    root: int,
    parts: tuple[str, ...],
    name: str,
    text_for: Callable[[str], bytes],
    durably: bool = True,
) -> StatKey:
    """Write a file atomically, and durably unless the journal covers the change.

    ``text_for`` returns the text; its argument is the new file's id, ``@``, and the mtime that the
    file will have. Raises OutcomeUnknown if only making the rename durable failed.
    """
    with directory(root, parts, create=True, durably=durably) as parent:
        temporary = f".{name}.tmp"
        fd = _create(parent, temporary)
        try:
            written = _write_new(fd, text_for, durably)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            # The rename changes the ctime; from then on other programs can open the file.
            found = stat_key_of(os.fstat(fd))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise
        finally:
            os.close(fd)
        if durably:
            sync_entries(parent)
        return found if found[:3] == written[:3] else written


def _create(parent: int, name: str) -> int:
    # A crash may have left a temporary file. It is removed rather than opened, since it may be a
    # link.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=parent)


def _write_new(fd: int, text_for: Callable[[str], bytes], durably: bool) -> StatKey:
    # The file system can store this time exactly, since it comes from the file system.
    mtime_ns = os.fstat(fd).st_mtime_ns
    rest = memoryview(text_for(f"{file_id_of(fd)}@{mtime_ns}"))
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.utime(fd, ns=(mtime_ns, mtime_ns))
    if durably:
        os.fsync(fd)
    return stat_key_of(os.fstat(fd))


def remove(root: int, parts: tuple[str, ...], name: str, durably: bool = True) -> None:
    """Unlink a file, if it exists."""
    with contextlib.suppress(FileNotFoundError), directory(root, parts) as parent:
        os.unlink(name, dir_fd=parent)
        if durably:
            sync_entries(parent)


def free_bytes(root: int) -> int:
    """Return how much this user can write to the file system; 0 where it can make no more files."""
    found = os.fstatvfs(root)
    has_files = not found.f_files or found.f_favail
    return found.f_bavail * found.f_frsize if has_files else 0


def begin(root: int, parts: tuple[str, ...], name: str, text: bytes) -> int:
    """Create a file with this text, after the one there is removed; neither atomic nor durable.

    Return a descriptor of it, for ``append``.
    """
    with directory(root, parts, create=True, durably=False) as parent:
        fd = _create(parent, name)
    try:
        _write_at(fd, text, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_for_append(root: int, parts: tuple[str, ...], name: str) -> int:
    """Return a descriptor of a regular file that exists, for ``append``."""
    # O_NONBLOCK: opening a named pipe must not block.
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with directory(root, parts) as parent:
        fd = os.open(name, flags, dir_fd=parent)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise NotAFile(errno.EINVAL, "it is not a regular file")


def append(fd: int, text: bytes, size: int) -> bool:
    """Append to a file of ``size`` bytes, not durably.

    Return False if it has another size, or was removed. Where writing fails, the file is as long as
    it was, as far as that is possible.
    """
    status = os.fstat(fd)
    if status.st_size != size or not status.st_nlink:
        return False
    try:
        _write_at(fd, text, size)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise
    return True


def _write_at(fd: int, text: bytes, offset: int) -> None:
    rest = memoryview(text)
    while rest:
        done = os.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done


def move(
    root: int, parts: tuple[str, ...], name: str, new_parts: tuple[str, ...], new_name: str
) -> None:
    """Rename a file, if it exists, to another directory, which is created; not durably."""
    with contextlib.suppress(FileNotFoundError), directory(root, parts) as parent:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
        with directory(root, new_parts, create=True, durably=False) as target:
            os.rename(name, new_name, src_dir_fd=parent, dst_dir_fd=target)


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
