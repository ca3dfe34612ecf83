"""Classify failed system calls, and turn them into the daemon's errors."""

from __future__ import annotations

import errno

from ..errors import BucketdError, Internal, Overloaded, ReadOnly, StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_OBSTACLES = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR)


class OutcomeUnknown(OSError):
    """The change is in place, but may not survive a power cut."""


class NotAFile(OSError):
    """The path of a bucket file has an entry that is not a regular file."""


class BeingWritten(OSError):
    """Another program has the file open for writing."""


def is_obstacle(error: OSError) -> bool:
    """Report whether a call failed because an entry is not the expected file or directory."""
    return isinstance(error, NotAFile) or error.errno in _OBSTACLES


def refusal(doing: str, error: OSError) -> BucketdError:
    """Return the error of a response when ``doing`` ("write the bucket of …") failed."""
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
