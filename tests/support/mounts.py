"""A mount namespace that outlives the daemons in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def exec_through(wrapper: list[str]) -> tuple[str, ...]:
    """Return a ``Daemon.program`` that runs the daemon through another program, by exec."""
    command = f"[*{wrapper!r}, sys.executable, '-m', 'bucketd', *sys.argv[1:]]"
    return ("-c", f"import os, sys; os.execvp({wrapper[0]!r}, {command})")


@dataclass(frozen=True)
class Mounts:
    """The namespace of process ``pid``, whose only purpose is to keep it."""

    pid: int

    @property
    def program(self) -> tuple[str, ...]:
        """The ``Daemon.program`` that runs the daemon in this namespace."""
        return exec_through(["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", f"--wd={Path.cwd()}"])

    def run(self, *command: str) -> None:
        enter = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", *command]
        subprocess.run(enter, check=True, capture_output=True)

    def read_only(self, path: Path) -> None:
        """Make all below ``path`` read-only, also for root."""
        self.run("mount", "--bind", str(path), str(path))
        self.run("mount", "-o", "remount,ro,bind", str(path))

    def small(self, path: Path, size: int) -> None:
        """Mount an empty file system of ``size`` bytes."""
        self.run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(path))

    def undo(self, path: Path) -> None:
        self.run("umount", str(path))

    def inside(self, path: Path) -> Path:
        """Return a path by which this process reaches ``path`` in the namespace."""
        return Path(f"/proc/{self.pid}/root{path}")


@contextmanager
def hold_mounts() -> Iterator[Mounts | None]:
    """Yield a mount namespace; None if the kernel permits none."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo there; read _"]
    try:
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except FileNotFoundError:
        yield None
        return
    with holder:
        assert holder.stdout is not None
        there = holder.stdout.readline() == b"there\n"
        yield Mounts(holder.pid) if there else None
        holder.kill()
