"""Everything that can be refused, as one tree.

BucketdError
├── BadInput
│   ├── InvalidJson            not JSON that can be kept exactly
│   ├── InvalidRequest         a name, parameter, header or schema that is not one
│   └── SchemaViolation        the bucket would break its schema; details say where
├── Denied
│   ├── NoJobContext           no token, or one that opens nothing
│   └── Forbidden              the peer may not do this, whatever it sends
├── NotFound, MethodNotAllowed, NotAcceptable, UnsupportedMediaType, RequestTimeout
├── Conflict
│   ├── PatchFailed            a JSON Patch that does not apply
│   ├── SchemaConflict         a schema that stored buckets violate
│   └── PreconditionFailed     a guard that does not hold; carries the revision
├── TooLarge                   the body or the merged bucket is over the limit
├── Unavailable                worth another try later
│   ├── TooManyRequests, Overloaded, ShuttingDown, ReadOnly
└── Failure
    ├── BucketCorrupt          the stored file is not readable as a bucket
    ├── StorageFull            no space; nothing changed
    └── Internal               a defect of ours, or a device that fails

Each leaf has a ``code``, one of the closed list that clients rely on; what
HTTP status a code has is not known here (see ``api.wire``).
A message reads "cannot <verb> <thing>: <cause>", and the way out.
"""

from __future__ import annotations

from typing import Any, ClassVar


class BucketdError(Exception):
    """A refusal with a sentence a person can act on; ``extra`` goes into the answer as it is."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, details: list[Any] | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.extra = extra


class BadInput(BucketdError):
    code = "invalid_request"


class InvalidJson(BadInput):
    code = "invalid_json"


class InvalidRequest(BadInput):
    code = "invalid_request"


class SchemaViolation(BadInput):
    code = "schema_violation"


class Denied(BucketdError):
    code = "forbidden"


class NoJobContext(Denied):
    code = "no_job_context"


class Forbidden(Denied):
    code = "forbidden"


class NotFound(BucketdError):
    code = "not_found"


class MethodNotAllowed(BucketdError):
    code = "method_not_allowed"


class NotAcceptable(BucketdError):
    code = "not_acceptable"


class UnsupportedMediaType(BucketdError):
    code = "unsupported_media_type"


class RequestTimeout(BucketdError):
    code = "request_timeout"


class Conflict(BucketdError):
    code = "patch_failed"


class PatchFailed(Conflict):
    code = "patch_failed"


class SchemaConflict(Conflict):
    code = "schema_conflict"


class PreconditionFailed(Conflict):
    code = "precondition_failed"


class TooLarge(BucketdError):
    code = "too_large"


class Unavailable(BucketdError):
    code = "overloaded"


class TooManyRequests(Unavailable):
    code = "too_many_requests"


class Overloaded(Unavailable):
    code = "overloaded"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class ReadOnly(Unavailable):
    code = "read_only"


class Failure(BucketdError):
    code = "internal"


class BucketCorrupt(Failure):
    code = "bucket_corrupt"


class StorageFull(Failure):
    code = "storage_full"


class Internal(Failure):
    code = "internal"
