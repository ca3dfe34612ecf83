"""What it means that a system call has failed: what was in the way, and what a caller is told."""

from __future__ import annotations

import errno

from ..errors import BucketdError, Internal, Overloaded, ReadOnly, StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_OBSTACLES = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR)


class OutcomeUnknown(OSError):
    """The change is in place, but whether it survives a power cut is not known."""


class NotAFile(OSError):
    """Something other than a regular file stands where a bucket file should be."""


def is_obstacle(error: OSError) -> bool:
    """Whether it failed because of something that is no file, or no directory, of ours."""
    return isinstance(error, NotAFile) or error.errno in _OBSTACLES


def refusal(doing: str, error: OSError) -> BucketdError:
    """The error to answer with when ``doing`` ("write the bucket of …") failed with ``error``."""
    cause = error.strerror or str(error)
    if isinstance(error, OutcomeUnknown):
        return Internal(
            f"cannot {doing} for certain: {cause}; the outcome is unknown, so read it again"
        )
    if error.errno in _FULL:
        return StorageFull(f"cannot {doing}: {cause}; nothing was changed, free some space")
    if error.errno in _READ_ONLY:
        return ReadOnly(
            f"cannot {doing}: {cause}; nothing was changed, let this user write there again"
        )
    if error.errno in _EXHAUSTED:
        return Overloaded(f"cannot {doing}: {cause}; nothing was changed, try again")
    return Internal(f"cannot {doing}: {cause}; nothing was changed, look at the disk")
