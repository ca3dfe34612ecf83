"""File systems in image files, which can be cut off from their device as a power cut does."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Daemon
from mounts import Mounts, hold_mounts

# linux/fs.h and xfs_fs.h: FS_IOC_SHUTDOWN, which ext4 and XFS understand with the same flags.
_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSHING_THE_LOG = 2
MIB = 1024 * 1024
# XFS wants at least 300 MiB; the files are sparse.
SIZES = {"ext4": 96 * MIB, "xfs": 320 * MIB}
_MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


@dataclass
class Image:
    """A file system in a file, mounted at ``point`` in a mount namespace of its own.

    The namespace ends with its holder, so no mount and no loop device can be left behind,
    however a test ends.
    """

    kind: str
    mounts: Mounts
    file: Path
    point: Path

    @property
    def inside(self) -> Path:
        """The mount point as this process reaches it."""
        return self.mounts.inside(self.point)

    @property
    def device(self) -> Path:
        """The loop device below it."""
        table = Path(f"/proc/{self.mounts.pid}/mountinfo").read_text()
        line = next(line for line in table.splitlines() if f" {self.point} " in line)
        return Path(line.split(" - ")[1].split()[1])

    def check(self) -> None:
        """What fsck does before a mount; 1 says that something was put right."""
        done = subprocess.run(["e2fsck", "-fy", str(self.file)], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout

    def mount(self, *options: str) -> None:
        given = ",".join(("loop", *options))
        self.mounts.run("mount", "-o", given, str(self.file), str(self.point))

    def remount(self, *options: str) -> None:
        self.mounts.run("mount", "-o", ",".join(("remount", *options)), str(self.point))

    def unmount(self) -> None:
        self.mounts.undo(self.point)

    def cut(self) -> None:
        """From now on nothing reaches the device, not even what the kernel holds already."""
        fd = os.open(self.inside, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("=I", _WITHOUT_FLUSHING_THE_LOG))
        finally:
            os.close(fd)


@contextmanager
def hold_image(
    kind: str, *options: str, size: int | None = None, make: tuple[str, ...] = ()
) -> Iterator[Image]:
    """A fresh file system, mounted; skips where this machine does not allow one."""
    program = [*_MAKE[kind], *make]
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    home = Path(tempfile.mkdtemp(prefix="bd-image-"))
    try:
        with hold_mounts() as mounts:
            if mounts is None:
                pytest.skip("mount namespaces need root and util-linux")
            image = Image(kind, mounts, home / "image", home / "mounted")
            image.point.mkdir()
            with image.file.open("wb") as file:
                file.truncate(size or SIZES[kind])
            subprocess.run([*program, str(image.file)], check=True, capture_output=True)
            _mount_or_skip(image, options)
            yield image
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _mount_or_skip(image: Image, options: tuple[str, ...]) -> None:
    try:
        image.mount(*options)
    except subprocess.CalledProcessError as error:
        pytest.skip(
            f"{image.kind} cannot be mounted from a file here: {error.stderr.decode().strip()}"
        )


@dataclass
class TenantDaemon(Daemon):
    """A daemon whose state lies on a file system of the test's choice, which it judges itself."""

    mounted: Path = Path("/")

    @property
    def state_dir(self) -> Path:
        return self.mounted / "state"

    def environ(self, env: dict[str, str] | None = None) -> dict[str, str]:
        clean = super().environ()
        del clean["BUCKETD_STORE_UNSAFE_FILESYSTEM"]
        return {**clean, **self.env, **(env or {})}


@contextmanager
def hold_daemon(image: Image, **env: str) -> Iterator[TenantDaemon]:
    """A daemon, not started yet, with its state on the image."""
    home = Path(tempfile.mkdtemp(prefix="bd-"))
    daemon = TenantDaemon(home, program=image.mounts.program, env=env, mounted=image.point)
    try:
        yield daemon
    finally:
        daemon.remove()
