"""``<state>/quarantine/``: damaged files and obstacles, kept unchanged for people."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from datetime import UTC, datetime

from ...fs import errors, files
from ...fs.filenames import printable

log = logging.getLogger(__name__)
QUARANTINE = "quarantine"


def new_name(parts: tuple[str, ...], name: str) -> str:
    """Return a unique name in the quarantine for a bucket file."""
    return f"{_stamp((*parts[1:2], name.removesuffix('.json')))}.json"


def keep_file(root: int, parts: tuple[str, ...], name: str, new: str) -> None:
    """Keep a file unchanged under the name ``new``; do nothing if it is gone. Raises OSError.

    The quarantine gets a second link, so the file stays where it is until a readable one is renamed
    over it. A directory can only be moved, and so can a file of another user if the kernel forbids
    to link it (``fs.protected_hardlinks``).
    """
    with contextlib.suppress(FileNotFoundError), files.directory(root, parts) as parent:
        is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        with _quarantine_fd(root) as quarantine_fd:
            if is_directory or not _link(name, new, parent, quarantine_fd):
                os.rename(name, new, src_dir_fd=parent, dst_dir_fd=quarantine_fd)
            files.sync_entries(quarantine_fd)
            files.sync_entries(parent)
        log.warning("kept %s as %s/%s", printable("/".join((*parts, name))), QUARANTINE, new)


def _link(name: str, new: str, parent: int, quarantine_fd: int) -> bool:
    try:
        os.link(name, new, src_dir_fd=parent, dst_dir_fd=quarantine_fd, follow_symlinks=False)
    except PermissionError:
        return False
    return True


def move_obstacle(root: int, parts: tuple[str, ...]) -> None:
    """Move entries to the quarantine that are not directories but should be. Raises OSError.

    A symbolic link is moved itself; its target stays unchanged.
    """
    for depth, part in enumerate(parts):
        try:
            with files.directory(root, parts[: depth + 1]):
                continue
        except OSError as error:
            if not errors.is_obstacle(error):
                return
        new = _stamp(parts[: depth + 1])
        with files.directory(root, parts[:depth]) as parent, _quarantine_fd(root) as quarantine_fd:
            os.rename(part, new, src_dir_fd=parent, dst_dir_fd=quarantine_fd)
            files.sync_entries(quarantine_fd)
            files.sync_entries(parent)
        log.warning("moved %s to %s/%s", "/".join(parts[: depth + 1]), QUARANTINE, new)


def keep_copy(root: int, name: str, text: bytes) -> None:
    """Keep a copy of a damaged file before it is overwritten. Raises OSError."""
    new = _stamp((name,))
    files.write(root, (QUARANTINE,), new, lambda _origin: text)
    log.error("%s is damaged; kept a copy as %s/%s", name, QUARANTINE, new)


def kept(root: int) -> list[str]:
    """Return the paths in the quarantine, the newest first. Raises OSError."""
    names = [*files.names(root, (QUARANTINE,))]
    return [printable(f"{QUARANTINE}/{name}") for name in reversed(names)]


def _quarantine_fd(root: int) -> contextlib.AbstractContextManager[int]:
    return files.directory(root, (QUARANTINE,), create=True)


def _stamp(names: tuple[str, ...]) -> str:
    """Return a unique file name with the time and the names."""
    what = "-".join(name[:60] for name in names)
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}-{what}"
