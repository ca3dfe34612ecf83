"""Every error, as one tree.

BucketError
├── InvalidRequest             the request is malformed: 400 and similar
│   ├── InvalidJson            data that JSON cannot hold, or would round
│   └── PatchFailed            a JSON Patch that does not apply
├── NoJobContext               no token, or one that is not (or no longer) valid
├── Forbidden                  this user may not do this
├── NotFound                   no such route, context or schema
├── PreconditionFailed         the bucket has changed; ``revision`` is its current revision
├── Held                       somebody else holds it; ``details`` says who, and since when
├── HoldLost                   the hold of a write has ended; nothing was changed
├── TooLarge                   over the size limit
├── SchemaViolation            the bucket would violate its schema; ``details`` says how
├── Unavailable                the same request may succeed later
│   ├── Overloaded             too many requests at once
│   ├── ShuttingDown           the daemon is stopping, and did nothing
│   ├── ReadOnly               the daemon does not write at present
│   ├── StorageFull            no space left; nothing was changed
│   ├── RequestTimeout         the daemon waited too long for the request
│   ├── DaemonUnreachable      nobody serves the socket
│   └── Timeout                no response in time
├── ConnectionLost             the outcome of a write is unknown: read before you repeat it
├── BucketCorrupt              the stored file cannot be read
└── InternalError              a defect of the daemon, or of what responds in its place

``code`` is one of the closed list ``CODES``: the daemon's codes, and three of the client, whose
docstrings are their entries in docs/errors.md.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

    from ._codes import Code


class BucketError(Exception):
    """An error with ``code``, ``status`` (of HTTP; None without a response) and ``details``.

    ``code`` is typed as a union of literals, so a type checker finds a misspelt one; a newer daemon
    may have others. After a failed precondition ``revision`` is the bucket's current revision.
    ``request_id`` identifies the request in the daemon's log.
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
        self.code: Code = code  # type: ignore[assignment]  # a newer daemon may have others
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


class Held(BucketError):
    pass


class HoldLost(BucketError):
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
    """Nobody serves the socket, or the daemon closes each connection without a response, until the
    time is over. Nothing was changed.

    Check that bucketd runs (``systemctl status bucketd``, ``bucketctl doctor``) and that
    ``BUCKETD_SOCKET`` names its socket."""


class Timeout(Unavailable):
    """No response came in time. A write may have been done all the same.

    Read before you repeat a write; give a slow call a longer ``timeout``."""


class ConnectionLost(BucketError):
    """The connection ended after a write was sent and before its response came, so the outcome of
    the write is unknown.

    Read the bucket to know; ``update``, or a write with ``if_match``, is safe to repeat."""


class BucketCorrupt(BucketError):
    pass


class InternalError(BucketError):
    pass


NOT_BUCKETD = "this is not a response of bucketd; does BUCKETD_SOCKET name its socket?"
CODES: dict[str, type[BucketError]] = {
    "bucket_corrupt": BucketCorrupt,
    "connection_lost": ConnectionLost,
    "daemon_unreachable": DaemonUnreachable,
    "exists": InvalidRequest,
    "forbidden": Forbidden,
    "held": Held,
    "hold_lost": HoldLost,
    "internal": InternalError,
    "invalid_json": InvalidJson,
    "invalid_request": InvalidRequest,
    "method_not_allowed": InvalidRequest,
    "no_job_context": NoJobContext,
    "not_acceptable": InvalidRequest,
    "not_found": NotFound,
    "not_kept": NotFound,
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
    "undo_conflict": InvalidRequest,
    "unsupported_media_type": InvalidRequest,
}


def error(code: str, message: str, **more: Any) -> BucketError:
    """Return the exception for a code; BucketError for a code of a newer daemon."""
    return CODES.get(code, BucketError)(message, code, **more)
