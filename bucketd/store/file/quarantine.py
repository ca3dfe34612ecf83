"""``<state>/quarantine/``: what was found damaged or in the way, kept unchanged for people."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from datetime import UTC, datetime

from ...fs import errors, files

log = logging.getLogger(__name__)
QUARANTINE = "quarantine"


def keep_file(root: int, parts: tuple[str, ...], name: str) -> None:
    """Keep whatever stands there, unchanged; nothing to do where nothing stands. Raises OSError.

    A second link to a file, so that it still stands where it was until
    something readable is renamed over it. A directory can only be moved, as can a file of another
    user where the kernel lets nobody else link it (``fs.protected_hardlinks``).
    """
    new = f"{_stamp((*parts[1:2], name.removesuffix('.json')))}.json"
    with contextlib.suppress(FileNotFoundError), files.directory(root, parts) as parent:
        is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        with _quarantine_fd(root) as quarantine_fd:
            if is_directory or not _link(name, new, parent, quarantine_fd):
                os.rename(name, new, src_dir_fd=parent, dst_dir_fd=quarantine_fd)
            files.sync_entries(quarantine_fd)
            files.sync_entries(parent)
        log.warning("kept %s as %s/%s", "/".join((*parts, name)), QUARANTINE, new)


def _link(name: str, new: str, parent: int, quarantine_fd: int) -> bool:
    try:
        os.link(name, new, src_dir_fd=parent, dst_dir_fd=quarantine_fd, follow_symlinks=False)
    except PermissionError:
        return False
    return True


def move_obstacle(root: int, parts: tuple[str, ...]) -> None:
    """Move away what stands in the place of a directory on this way, if anything. Raises OSError.

    Such as a file, or a link: it is moved itself, what it points to stays as it is.
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
    """Put a copy of something damaged there, before it is overwritten. Raises OSError."""
    new = _stamp((name,))
    files.write(root, (QUARANTINE,), new, lambda _file_id: text)
    log.error("%s is damaged; kept a copy as %s/%s", name, QUARANTINE, new)


def count(root: int) -> int:
    """How many things are kept."""
    return len(files.names(root, (QUARANTINE,)))


def _quarantine_fd(root: int) -> contextlib.AbstractContextManager[int]:
    return files.directory(root, (QUARANTINE,), create=True)


def _stamp(names: tuple[str, ...]) -> str:
    """When, which of that moment, and what; short enough for a file name."""
    what = "-".join(name[:60] for name in names)
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}-{what}"
