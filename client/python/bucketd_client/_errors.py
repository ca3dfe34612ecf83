"""Everything that can go wrong, as one tree.

BucketError
├── InvalidRequest             what was asked is not a request: 400 and its kin
│   ├── InvalidJson            data that JSON cannot hold, or that would be rounded
│   └── PatchFailed            a JSON Patch that does not apply
├── NoJobContext               no token, or one that opens nothing (any more)
├── Forbidden                  this user may not do this
├── NotFound                   no such thing
├── PreconditionFailed         the bucket is another than the one you guarded; ``revision`` tells
├── TooLarge                   over the size limit
├── SchemaViolation            the bucket would break its schema; ``details`` lists how
├── Unavailable                not now; what was asked may be right
│   ├── Overloaded             too many at once
│   ├── ShuttingDown           the daemon is stopping, and did not do it
│   ├── ReadOnly               the daemon writes nothing at present
│   ├── StorageFull            no space left; nothing changed
│   ├── RequestTimeout         the daemon waited too long for the request
│   ├── DaemonUnreachable      nobody serves the socket
│   └── Timeout                no answer in time
├── ConnectionLost             the outcome of a write is not known: read before you repeat
├── BucketCorrupt              the stored file cannot be read
└── InternalError              a defect, of the daemon or of what answers in its place

``code`` is one of the closed list ``CODES``: the daemon's, and three of the client's own,
whose docstrings are their entries in docs/errors.md.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any


class BucketError(Exception):
    """``code``, ``status`` (of HTTP; None without an answer), ``details``, ``revision``.

    ``request_id`` is what the daemon's log calls it, where it says more.
    """

    def __init__(
        self,
        message: str,
        code: str = "internal",
        status: int | None = None,
        details: list[Any] | None = None,
        revision: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.details = details or []
        self.revision = revision
        self.request_id = request_id


class InvalidRequest(BucketError):
    pass


class InvalidJson(InvalidRequest):
    pass


class PatchFailed(InvalidRequest):
    pass


class NoJobContext(BucketError):
    pass


class Forbidden(BucketError):
    pass


class NotFound(BucketError):
    pass


class PreconditionFailed(BucketError):
    pass


class TooLarge(BucketError):
    pass


class SchemaViolation(BucketError):
    pass


class Unavailable(BucketError):
    pass


class Overloaded(Unavailable):
    pass


class ShuttingDown(Unavailable):
    pass


class ReadOnly(Unavailable):
    pass


class StorageFull(Unavailable):
    pass


class RequestTimeout(Unavailable):
    pass


class DaemonUnreachable(Unavailable):
    """Nobody serves the socket, or whoever does closes each connection without an answer to a
    read, and that until the time was over. Nothing was changed.

    See whether bucketd runs (``systemctl status bucketd``, ``bucketctl doctor``) and whether
    ``BUCKETD_SOCKET`` names its socket."""


class Timeout(Unavailable):
    """No answer came in time. A write may have been done all the same.

    Read before you repeat a write; give a slow call a longer ``timeout``."""


class ConnectionLost(BucketError):
    """The connection ended after a write was sent and before its answer came, so nobody can
    know whether it was done.

    Read the bucket and see; ``update``, or a write with ``if_match``, is safe to repeat."""


class BucketCorrupt(BucketError):
    pass


class InternalError(BucketError):
    pass


NOT_BUCKETD = "this is not a response of bucketd; does BUCKETD_SOCKET name its socket?"
CODES: dict[str, type[BucketError]] = {
    "bucket_corrupt": BucketCorrupt,
    "connection_lost": ConnectionLost,
    "daemon_unreachable": DaemonUnreachable,
    "forbidden": Forbidden,
    "internal": InternalError,
    "invalid_json": InvalidJson,
    "invalid_request": InvalidRequest,
    "method_not_allowed": InvalidRequest,
    "no_job_context": NoJobContext,
    "not_acceptable": InvalidRequest,
    "not_found": NotFound,
    "overloaded": Overloaded,
    "patch_failed": PatchFailed,
    "precondition_failed": PreconditionFailed,
    "read_only": ReadOnly,
    "request_timeout": RequestTimeout,
    "schema_conflict": InvalidRequest,
    "schema_violation": SchemaViolation,
    "shutting_down": ShuttingDown,
    "storage_full": StorageFull,
    "timeout": Timeout,
    "too_large": TooLarge,
    "too_many_requests": Overloaded,
    "unsupported_media_type": InvalidRequest,
}


def error(code: str, message: str, **more: Any) -> BucketError:
    """The exception that stands for a code; BucketError itself for one of a newer daemon."""
    return CODES.get(code, BucketError)(message, code, **more)
