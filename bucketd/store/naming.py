"""From names to places: any legal name is one safe file name, and no two share one.

Bytes of the UTF-8 name other than ``A–Z a–z 0–9 _ -`` and a ``.`` inside become
``%XX``, so ``/``, ``..`` and control characters cannot leave their directory.
A result over 200 bytes is cut and carries a hash of the whole name instead.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from urllib.parse import unquote

from ..model import BucketKey

MAX_ENCODED, KEPT = 200, 160
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_HALF_ESCAPE = re.compile(r"%[0-9A-F]?$")

SUFFIX = ".json"
DEVICES, JOBS, DEVICE_FILE = "devices", "jobs", "device.json"


@lru_cache(maxsize=8192)
def encode(name: str) -> str:
    """The file name (without suffix) that stands for a device or job name."""
    raw = name.encode()
    last = len(raw) - 1
    plain = "".join(
        chr(b) if b in _PLAIN or (b == 0x2E and 0 < i < last) else f"%{b:02X}"
        for i, b in enumerate(raw)
    )
    if len(plain) <= MAX_ENCODED:
        return plain
    head = _HALF_ESCAPE.sub("", plain[:KEPT])
    return f"{head}~{hashlib.sha256(raw).hexdigest()[:32]}"


def decode(encoded: str) -> str | None:
    """The name behind a file name; None where it was cut and only the envelope knows."""
    name = unquote(encoded, errors="replace")
    return name if encode(name) == encoded else None


def parts(key: BucketKey) -> tuple[tuple[str, ...], str]:
    """The directories below the state directory, and the file name in the last of them."""
    device = encode(key.device)
    if key.job is None:
        return (DEVICES, device), DEVICE_FILE
    return (DEVICES, device, JOBS), encode(key.job) + SUFFIX


@lru_cache(maxsize=8192)
def path(key: BucketKey) -> str:
    """The same as one relative path."""
    directories, name = parts(key)
    return "/".join((*directories, name))


def key_of(directories: tuple[str, ...], name: str) -> BucketKey | None:
    """The bucket at a place, where its names can be told from that."""
    if len(directories) < 2 or directories[0] != DEVICES:
        return None
    device = decode(directories[1])
    job = decode(name.removesuffix(SUFFIX)) if directories[2:] == (JOBS,) else None
    if device is None or (directories[2:] and job is None):
        return None
    key = BucketKey(device, job)
    return key if parts(key) == (directories, name) else None
