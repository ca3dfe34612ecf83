"""Edit bucket files as another program would: lock, read, write and rename."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness import Daemon

Bucket = dict[str, Any]

HOLDER = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def write_lock(daemon: Daemon) -> Iterator[None]:
    """Hold ``write.lock`` in this process."""
    with (daemon.state_dir / "write.lock").open("a") as lock:
        take(lock)
        yield


def take(lock: IO[str], seconds: float = 3.0) -> None:
    """Wait for the lock, which the daemon must never hold for long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert time.monotonic() < deadline, "write.lock is not released"
            time.sleep(0.001)


@contextmanager
def lock_held_elsewhere(daemon: Daemon) -> Iterator[subprocess.Popen[bytes]]:
    """Hold ``write.lock`` in another process until the end of the block, or until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(daemon.state_dir / "write.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def replace_file(path: Path, text: bytes) -> None:
    """Replace a file by write and rename."""
    fresh = path.with_name(f".{path.name}.by-hand")
    fresh.write_bytes(text)
    fresh.chmod(0o600)
    fresh.rename(path)


def envelope(daemon: Daemon, device: str, job: str | None = None) -> dict[str, Any]:
    """Return the file of a bucket, read under the lock, where it has the newest state."""
    with write_lock(daemon):
        return json.loads(daemon.bucket_path(device, job).read_bytes())


def edit(
    daemon: Daemon,
    change: Callable[[Bucket], Bucket],
    device: str,
    job: str | None = None,
    drop: tuple[str, ...] = (),
) -> None:
    """Change the bucket in a file as a careful program would; ``drop`` leaves fields out."""
    path = daemon.bucket_path(device, job)
    with write_lock(daemon):
        document = json.loads(path.read_bytes())
        document["bucket"] = change(document["bucket"])
        kept = {name: value for name, value in document.items() if name not in drop}
        replace_file(path, json.dumps(kept, indent=2).encode() + b"\n")


def written(device: str, job: str | None, bucket: Bucket, /, **fields: Any) -> bytes:
    """Return the text of a whole bucket file written by hand."""
    moment = "2026-01-02T03:04:05.000000Z"
    document = {
        "format": "bucketd/1",
        "device": device,
        "job": job,
        "automation": None,
        "revision": 7,
        "created_at": moment,
        "updated_at": moment,
        "bucket": bucket,
        **fields,
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def tree(root: Path) -> dict[str, tuple[str, bytes]]:
    """Return the kind and the bytes of every entry below ``root``."""
    found = {}
    for path in sorted(root.rglob("*")):
        kind = "link" if path.is_symlink() else "dir" if path.is_dir() else "file"
        found[str(path.relative_to(root))] = (kind, content(path, kind))
    return found


def content(path: Path, kind: str) -> bytes:
    if kind == "link":
        return os.fsencode(path.readlink())
    return path.read_bytes() if kind == "file" and path.is_file() else b""


def quarantined(daemon: Daemon) -> list[bytes]:
    """Return the bytes of every file in the quarantine."""
    home = daemon.state_dir / "quarantine"
    with write_lock(daemon):
        files = [path for path in sorted(home.rglob("*")) if path.is_file()]
        return [path.read_bytes() for path in files if not path.is_symlink()]


def quarantine_entries(daemon: Daemon) -> list[str]:
    """Return the names of all entries of the quarantine, of any kind."""
    home = daemon.state_dir / "quarantine"
    with write_lock(daemon):
        return sorted(path.name for path in home.iterdir()) if home.exists() else []
