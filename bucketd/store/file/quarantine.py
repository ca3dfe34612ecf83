"""``<state>/quarantine/``: damaged files and obstacles, kept unchanged for people."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
from datetime import UTC, datetime

from ...errors import NotFound, TooLarge
from ...fs import errors, files
from ...fs.filenames import printable
from ..base import KeptFile

log = logging.getLogger(__name__)
QUARANTINE = "quarantine"
_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-")


class FileQuarantine:
    """The quarantine of a state directory, for people who look at it through the API."""

    def __init__(self, root: int) -> None:
        self._root = root

    def entries(self) -> list[KeptFile]:
        try:
            names = files.names(self._root, (QUARANTINE,))
            if not names:
                return []
            with _quarantine_fd(self._root) as here:
                # A name that is not UTF-8 is not ours, and no request could name it.
                ours = [name for name in reversed(names) if name.isprintable()]
                return [entry for name in ours if (entry := _entry(here, name)) is not None]
        except OSError as error:
            raise errors.refusal("list the quarantine", error) from error

    def read(self, name: str) -> tuple[KeptFile, bytes]:
        what = f"read {name!r} in the quarantine"
        found = self._find(name, what)
        if found.kind != "file":
            return found, b""
        if found.size > files.MAX_FILE_BYTES:
            raise TooLarge(
                f"cannot {what}: it has {found.size} bytes, and at most {files.MAX_FILE_BYTES} are "
                "shown; look at the file itself, in <state>/quarantine"
            )
        try:
            return found, files.read(self._root, (QUARANTINE,), name).text
        except OSError as error:
            raise errors.refusal(what, error) from error

    def drop(self, name: str) -> None:
        what = f"remove {name!r} from the quarantine"
        found = self._find(name, what)
        try:
            with _quarantine_fd(self._root) as here:
                if found.kind == "directory":
                    shutil.rmtree(name, dir_fd=here)
                else:
                    os.unlink(name, dir_fd=here)
                files.sync_entries(here)
        except OSError as error:
            raise errors.refusal(what, error) from error
        log.warning("removed %s/%s, as an operator has asked", QUARANTINE, name)

    def _find(self, name: str, what: str) -> KeptFile:
        for found in self.entries():
            if found.id == name:
                return found
        raise NotFound(f"cannot {what}: there is no such entry; see bucketctl quarantine list")


def _entry(here: int, name: str) -> KeptFile | None:
    """Return an entry of the open directory; None if it is gone."""
    try:
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
    except FileNotFoundError:
        return None
    kind = "file" if stat.S_ISREG(status.st_mode) else "other"
    kind = "directory" if stat.S_ISDIR(status.st_mode) else kind
    stamp = _STAMP.match(name)
    kept_at = "{}-{}-{}T{}:{}:{}.000Z".format(*stamp.groups()) if stamp else None
    return KeptFile(name, kind, status.st_size, kept_at)


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
