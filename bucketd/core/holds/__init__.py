"""Hold a bucket or a device: what is asked for, the stream of a holder, and the files."""

from .holds import EXPIRED, GRACE_SECONDS, REVOKED, Holds
from .request import HoldRequest, is_fence
from .stream import HoldStream

__all__ = [
    "EXPIRED",
    "GRACE_SECONDS",
    "REVOKED",
    "HoldRequest",
    "HoldStream",
    "Holds",
    "is_fence",
]
