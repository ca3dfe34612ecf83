"""Backups in a directory: each is a directory named by its time, which appears once it is whole.

It has ``buckets.ndjson``, the lines of an export; ``schemas.ndjson``, one object
``{"automation", "existing", "schema"}`` for each schema set through the API; and ``manifest.json``,
with their numbers and checksums.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from .parser import Usage

FORMAT = "bucketd-backup/1"
BUCKETS, SCHEMAS, MANIFEST = "buckets.ndjson", "schemas.ndjson", "manifest.json"
_NAME = re.compile(r"\d{8}T\d{6}Z")
_PART = re.compile(r"\.\d{8}T\d{6}Z\.part")


class Written(NamedTuple):
    """A file of a backup: how many lines and bytes it has, and their checksum."""

    lines: int
    bytes: int
    sha256: str


class LineFile:
    """A file that is written line by line, durably, and counted."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.lines = self.bytes = 0

    def write(self, line: bytes) -> None:
        self._file.write(line)
        self._hash.update(line)
        self.lines += 1
        self.bytes += len(line)

    def written(self) -> Written:
        return Written(self.lines, self.bytes, self._hash.hexdigest())


@contextmanager
def line_file(home: str, name: str) -> Iterator[LineFile]:
    """Yield a new file of mode 0600, which is durable in the end."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(os.path.join(home, name), flags, 0o600), "wb") as file:
        yield LineFile(file)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new(home: str) -> Iterator[tuple[str, str]]:
    """Yield the name of a new backup and the directory to fill, which then gets that name.

    One backup is made in ``home`` at a time. Raises Usage while another one is.
    """
    os.makedirs(home, 0o700, exist_ok=True)
    lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Usage(f"cannot back up to {home}: another backup is being made there") from None
        # An earlier run has left these, since nobody else fills a directory now.
        for left in filter(_PART.fullmatch, os.listdir(home)):
            shutil.rmtree(os.path.join(home, left))
        name = _free_name(home)
        part = os.path.join(home, f".{name}.part")
        os.mkdir(part, 0o700)
        try:
            yield name, part
            _sync(part)
            os.rename(part, os.path.join(home, name))
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        os.fsync(lock)
    finally:
        os.close(lock)


def _free_name(home: str) -> str:
    while os.path.exists(
        os.path.join(home, name := time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    ):
        time.sleep(0.1)
    return name


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(home: str, files: dict[str, Written], **facts: Any) -> None:
    """Describe the backup in a directory, which is then complete."""
    members = {name: written._asdict() for name, written in files.items()}
    text = json.dumps({"format": FORMAT, **facts, "files": members}, indent=2)
    with line_file(home, MANIFEST) as file:
        file.write(text.encode() + b"\n")


def keep_newest(home: str, count: int) -> list[str]:
    """Remove all backups but the newest ones, and return the names of those kept."""
    names = sorted(filter(_NAME.fullmatch, os.listdir(home)))
    for name in names[:-count]:
        # The manifest goes first, so that nobody takes the rest for a backup.
        os.unlink(os.path.join(home, name, MANIFEST))
        shutil.rmtree(os.path.join(home, name))
    return names[-count:]


def checked(home: str) -> dict[str, Any]:
    """Return the manifest of a backup; raise Usage unless each file is as it was written."""
    try:
        with open(os.path.join(home, MANIFEST), "rb") as file:
            manifest = json.load(file)
        files = {name: Written(**manifest["files"][name]) for name in (BUCKETS, SCHEMAS)}
        if manifest["format"] != FORMAT:
            raise ValueError("its format is that of a later version")
        damaged = [
            name for name in files if _sha256(os.path.join(home, name)) != files[name].sha256
        ]
    except OSError as problem:
        cause = f"{problem.filename}: {problem.strerror}"
        raise Usage(f"cannot restore {home}: {cause}; name the directory of one backup") from None
    except (ValueError, TypeError, KeyError) as problem:
        raise Usage(f"cannot restore {home}: its {MANIFEST} is not valid ({problem})") from None
    if damaged:
        raise Usage(
            f"cannot restore {home}: {damaged[0]} is not as it was written (its SHA-256 differs); "
            "use another backup, or bucketctl import for what can still be read"
        )
    return dict(manifest)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return digest.hexdigest()


def schemas(home: str) -> list[dict[str, Any]]:
    """Return the schemas of a backup."""
    with open(os.path.join(home, SCHEMAS), "rb") as file:
        return [json.loads(line) for line in file]
