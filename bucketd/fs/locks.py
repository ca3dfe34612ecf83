"""The two locks of a state directory, both through ``flock`` on side files."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator

import portalocker

WRITE_LOCK, DAEMON_LOCK = "write.lock", "daemon.lock"
# How long to wait for the pid of a holder that has just started.
HOLDER_SECONDS = 1.0
EXCLUSIVE = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING


def hold_daemon_lock(root: int) -> tuple[int | None, str]:
    """Take ``<state>/daemon.lock``, write this pid to it, and return the descriptor that holds it.

    Return (None, the holder's pid) if another process holds the lock. The directory is locked as
    well, since a lock on a file is void once somebody removes the file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(DAEMON_LOCK, flags, 0o600, dir_fd=root)
    try:
        free = _take(fd) and _take_directory(root)
    except OSError:
        os.close(fd)
        raise
    if not free:
        holder = _pid_of_holder(fd)
        os.close(fd)
        return None, holder
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd, str(os.getpid())


def _pid_of_holder(fd: int) -> str:
    """Return the pid in the lock file; wait for HOLDER_SECONDS until it is that of a process.

    The holder writes its pid just after it gets the lock. Until then the file is empty, or has the
    pid of an earlier daemon that has ended.
    """
    deadline = time.monotonic() + HOLDER_SECONDS
    while True:
        holder = os.pread(fd, 100, 0).decode(errors="replace").strip()
        if _is_running(holder) or time.monotonic() > deadline:
            return holder
        time.sleep(0.01)


def _is_running(pid: str) -> bool:
    if not (pid.isascii() and pid.isdecimal() and 0 < int(pid) < 2**31):
        return False
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return int(pid) != os.getpid()


def _take_directory(root: int) -> bool:
    try:
        return _take(root)
    except OSError:
        # Some file systems (NFS) cannot lock a directory.
        return True


def _take(fd: int) -> bool:
    """Lock a file without waiting; return False if another descriptor holds it. Raises OSError."""
    try:
        portalocker.lock(fd, EXCLUSIVE)
    except portalocker.exceptions.AlreadyLocked:
        return False
    except portalocker.exceptions.LockException as error:
        cause = error.args[0] if error.args else error
        if isinstance(cause, OSError):
            raise cause from None
        raise OSError(errno.ENOLCK, str(error)) from None
    return True


class WriteLock:
    """``<state>/write.lock``: only its holder may change bucket files.

    The lock is a side file that is never renamed or unlinked: after the rename of a locked data
    file two holders would lock two inodes. It uses ``flock``, so that ``flock(1)`` takes the same
    lock. ``held_since`` is a time of the monotonic clock; None while the daemon does not hold it.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._fd = self._open()
        self._guard = threading.Lock()
        self.held_since: float | None = None
        # The wall-clock time of the last release, comparable to the times of files.
        self.released_ns = 0

    def acquire(self, timeout: float = 0.0, give_up: Callable[[], bool] = lambda: True) -> bool:
        """Wait at most ``timeout`` seconds, or until ``give_up()``; return whether it is held now.

        Raises OSError if the file cannot be locked.
        """
        deadline, pause = time.monotonic() + timeout, 0.0005
        while True:
            with self._guard:
                if self.held_since is None and self._take_in_place():
                    self.held_since = time.monotonic()
                if self.held_since is not None:
                    return True
            if give_up() or time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.02)

    @contextlib.contextmanager
    def excluding_others(self) -> Iterator[bool]:
        """Hold the lock during one short check of a file, from any thread.

        Yield False if another program holds the lock.
        """
        with self._guard:
            if self.held_since is not None:
                yield True
                return
            try:
                taken = self._take_in_place()
            except OSError:
                # If the file cannot be locked, no other program holds the lock either.
                yield True
                return
            try:
                yield taken
            finally:
                if taken:
                    portalocker.unlock(self._fd)

    def _take_in_place(self) -> bool:
        while _take(self._fd):
            if self._still_in_place():
                return True
            # The file was unlinked, so a lock on its descriptor excludes nobody.
            fresh = self._open()
            self.close()
            self._fd = fresh
        return False

    def release(self) -> None:
        with self._guard:
            self.released_ns = time.time_ns()
            portalocker.unlock(self._fd)
            self.held_since = None

    def close(self) -> None:
        os.close(self._fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(WRITE_LOCK, flags, 0o600, dir_fd=self._root)

    def _still_in_place(self) -> bool:
        try:
            there = os.stat(WRITE_LOCK, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return there.st_ino == os.fstat(self._fd).st_ino
