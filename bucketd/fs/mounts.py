"""Whether a directory lies on a file system that can keep the promise of durability."""

from __future__ import annotations

import os
import re

# In memory, or where fsync and rename mean something else than on a local disk.
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
    "volatile": "it is an overlay mounted with volatile",
    "fsync=volatile": "it is an overlay mounted with volatile",  # Linux 6.18 says it so
}
_ESCAPE = re.compile(r"\\([0-7]{3})")


def unfit(path: str, mountinfo: str | None = None) -> str | None:
    """Why an acknowledged write might not survive a power cut there; None where it will.

    Reads ``/proc/self/mountinfo`` (proc(5)); where that cannot be read there is no verdict.
    """
    try:
        table = _read_mounts() if mountinfo is None else mountinfo
    except OSError:
        return None
    mounted = _mount_of(os.path.realpath(path), table)
    if mounted is None:
        return None
    kind, options = mounted
    if kind in _UNFIT:
        return f"{kind}: {_UNFIT[kind]}"
    causes = (_UNFIT_OPTIONS[option] for option in options if option in _UNFIT_OPTIONS)
    return next(causes, None)


def _read_mounts() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _mount_of(path: str, table: str) -> tuple[str, list[str]] | None:
    """Type and options of the mount that holds a path: of the longest points, the last."""
    best, found = -1, None
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        point = _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), (rest[0], [*fields[5].split(","), *rest[2].split(",")])
    return found
