"""Decide whether a file system can keep acknowledged writes."""

from __future__ import annotations

import os
import re

# File systems in memory, or whose fsync and rename promise less than on a local disk.
_UNFIT = {
    "tmpfs": "it is kept in memory",
    "ramfs": "it is kept in memory",
    "nfs": "a network file system acknowledges what its server may lose",
    "nfs4": "a network file system acknowledges what its server may lose",
    "cifs": "a network file system acknowledges what its server may lose",
    "smb3": "a network file system acknowledges what its server may lose",
    "9p": "a shared file system does not promise what fsync does",
}
_UNFIT_OPTIONS = {
    "nobarrier": "it is mounted with nobarrier",
    "barrier=0": "it is mounted with barrier=0",
    # Linux 6.18 reports "volatile" as "fsync=volatile".
    "volatile": "it is an overlay mounted with volatile",
    "fsync=volatile": "it is an overlay mounted with volatile",
}
# How many overlays upon overlays to follow; in a container the upper layer may be a path below
# another root, which would never end.
MAX_LAYERS = 4
_ESCAPE = re.compile(r"\\([0-7]{3})")


def unfit(path: str, mountinfo: str | None = None) -> str | None:
    """Return why an acknowledged write might not survive a power cut; None if it would.

    Read ``/proc/self/mountinfo`` (proc(5)); return None if that cannot be read.
    """
    try:
        table = _read_mounts() if mountinfo is None else mountinfo
    except OSError:
        return None
    return _unfit(os.path.realpath(path), table, MAX_LAYERS)


def _unfit(path: str, table: str, layers: int) -> str | None:
    mounted = _mount_of(path, table)
    if mounted is None:
        return None
    kind, options = mounted
    if kind in _UNFIT:
        return f"{kind}: {_UNFIT[kind]}"
    for option in options:
        if option in _UNFIT_OPTIONS:
            return _UNFIT_OPTIONS[option]
        name, _, upper = option.partition("=")
        if kind == "overlay" and name == "upperdir" and layers:
            cause = _unfit(_unescape(upper), table, layers - 1)
            if cause is not None:
                return f"overlay with its upper layer on {cause}"
    return None


def ignores_case(root: int, path: str = ".") -> bool:
    """Report whether a directory treats names that differ in case as one. Raises OSError.

    Some file systems (ext4) ignore case in single directories only, so the directory is tested.
    """
    probe = f"{path}/.case-probe"
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(probe, flags, 0o600, dir_fd=root)
    try:
        other = os.stat(f"{path}/.CASE-PROBE", dir_fd=root, follow_symlinks=False)
        return other.st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)
        os.unlink(probe, dir_fd=root)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), text)


def _read_mounts() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _mount_of(path: str, table: str) -> tuple[str, list[str]] | None:
    """Return type and options of a path's mount: the last of those with the longest mount point."""
    best, found = -1, None
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        point = _unescape(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), (rest[0], [*fields[5].split(","), *rest[2].split(",")])
    return found
