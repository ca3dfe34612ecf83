"""The path of a bucket's file below the state directory, and the bucket at a path."""

from __future__ import annotations

from functools import lru_cache

from ...fs.filenames import SUFFIX, decode, encode
from ...model.bucket import BucketKey

DEVICES, JOBS, DEVICE_FILE = "devices", "jobs", "device.json"


def parts(key: BucketKey) -> tuple[tuple[str, ...], str]:
    """Return the directories below the state directory, and the file name in the last of them."""
    device = encode(key.device)
    if key.job is None:
        return (DEVICES, device), DEVICE_FILE
    return (DEVICES, device, JOBS), encode(key.job) + SUFFIX


@lru_cache(maxsize=8192)
def path(key: BucketKey) -> str:
    """Return the path of the file below the state directory."""
    directories, name = parts(key)
    return "/".join((*directories, name))


def key_of(directories: tuple[str, ...], name: str) -> BucketKey | None:
    """Return the bucket at a place; None if the file name does not show the names."""
    if len(directories) < 2 or directories[0] != DEVICES:
        return None
    device = decode(directories[1])
    job = decode(name.removesuffix(SUFFIX)) if directories[2:] == (JOBS,) else None
    if device is None or (directories[2:] and job is None):
        return None
    key = BucketKey(device, job)
    return key if parts(key) == (directories, name) else None
