"""Everything that can be refused, as one tree.

BucketdError
├── BadInput: InvalidJson, InvalidRequest, SchemaViolation
├── Denied: NoJobContext, Forbidden
├── NotFound, MethodNotAllowed, NotAcceptable, UnsupportedMediaType, RequestTimeout
├── Conflict: PatchFailed, SchemaConflict, PreconditionFailed
├── TooLarge
├── Unavailable (worth another try later): TooManyRequests, Overloaded, ShuttingDown, ReadOnly
└── Failure: BucketCorrupt, StorageFull, Internal

Each leaf has a ``code``, one of the closed list that clients rely on; what
HTTP status a code has is not known here (see ``api.wire``). A leaf's docstring
is its entry in docs/errors.md: the cause, and after an empty line the cure.
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
    """The body is not JSON that can be kept exactly: a syntax error, NaN or Infinity, a lone
    surrogate, or a whole number outside of 64 bits whose digits a double would lose.

    Send UTF-8 JSON; the message names the value by its JSON Pointer, or the line and column.
    Send such a number as a string, and a lone surrogate escaped."""

    code = "invalid_json"


class InvalidRequest(BadInput):
    """A name, parameter, header, schema or JSON Patch that is not one, or a body that is no
    object.

    Correct what the message names; the reference of routes says what each takes."""

    code = "invalid_request"


class SchemaViolation(BadInput):
    """The merged bucket would break the schema of its automation; ``details`` has every
    violation with its path (of a bucket with over 2,500 members the first). Nothing was changed.

    Send what the schema allows, or change the schema (``bucketctl schema check`` tells first
    whom a new one would refuse)."""

    code = "schema_violation"


class Denied(BucketdError):
    code = "forbidden"


class NoJobContext(Denied):
    """The request has no token, or one that is unknown, revoked or expired, or one of a
    device alone where a job's is needed.

    Start the automation with ``bucketctl run --device D --job J -- COMMAND``; as an operator,
    name device and job."""

    code = "no_job_context"


class Forbidden(Denied):
    """The peer is no operator and the route is for operators, or the request has ``Origin``
    or ``Referer`` and so comes from a web page.

    Use the job's own token, or let the operator add the user to ``[access]`` and reload."""

    code = "forbidden"


class NotFound(BucketdError):
    """There is no such route, context or schema. (A bucket that was never written is no
    error: it is ``{}``.)

    Look at the path, or at what there is: ``bucketctl context list``, ``schema list``."""

    code = "not_found"


class MethodNotAllowed(BucketdError):
    """The route exists and does not take this method.

    Use one of those in the message and in the ``Allow`` header."""

    code = "method_not_allowed"


class NotAcceptable(BucketdError):
    """``Accept`` rules out JSON, and this route answers in nothing else.

    Leave ``Accept`` out, or let it allow ``application/json``."""

    code = "not_acceptable"


class UnsupportedMediaType(BucketdError):
    """The body's ``Content-Type`` or ``Content-Encoding`` is none that this route takes.

    Send ``application/json``; to ``PATCH`` also ``application/merge-patch+json`` and
    ``application/json-patch+json``. Do not compress."""

    code = "unsupported_media_type"


class RequestTimeout(BucketdError):
    """The header or the body was not complete in time.

    Send it at once; for slow callers raise ``header_timeout_seconds`` and
    ``body_timeout_seconds`` in ``[limits]``."""

    code = "request_timeout"


class Conflict(BucketdError):
    code = "patch_failed"


class PatchFailed(Conflict):
    """A JSON Patch does not apply: a place is missing, or a ``test`` fails. None of its
    operations was applied.

    Read the bucket again and make the patch for what is there."""

    code = "patch_failed"


class SchemaConflict(Conflict):
    """Stored buckets violate the new schema; ``details`` has the first 100 with their
    violations, ``count`` says how many. The old schema stays in force.

    Mend those buckets or the schema, or set it all the same with ``--force`` (``?force=true``):
    they stay readable, and their next write must be valid."""

    code = "schema_conflict"


class PreconditionFailed(Conflict):
    """``If-Match`` or ``If-None-Match`` does not hold: the bucket has changed since it was
    read. ``revision`` is the current one. Nothing was changed.

    Read it again, decide anew, and write with the new ETag; ``update`` of the clients does that
    by itself."""

    code = "precondition_failed"


class TooLarge(BucketdError):
    """The body, or the bucket as it would be after the change, is over ``max_bucket_bytes``; or
    all buckets of its device would be over ``max_device_bytes`` together. The message has size,
    limit and the largest keys or buckets. Nothing was changed.

    Keep large things in files and their paths in the bucket, remove keys or buckets that are no
    longer needed (``bucketctl usage`` tells what each device has), or raise the limit in
    ``[limits]``."""

    code = "too_large"


class Unavailable(BucketdError):
    code = "overloaded"


class TooManyRequests(Unavailable):
    """As many contexts are live as ``max_live`` in ``[contexts]`` allows.

    Revoke those that nobody needs (``bucketctl context list``), give them a shorter
    ``ttl_seconds``, or raise the limit."""

    code = "too_many_requests"


class Overloaded(Unavailable):
    """Connections, waiting writes, descriptors or the lock are all taken at the moment, or
    etcd cannot be reached. Nothing was changed.

    Try again after ``Retry-After``, as the clients do. If it stays, the message names what is
    taken: another program that holds ``write.lock``, say."""

    code = "overloaded"


class ShuttingDown(Unavailable):
    """The daemon is stopping and did not act on the request.

    Try again: after a restart it is there in a moment, and the clients wait for that."""

    code = "shutting_down"


class ReadOnly(Unavailable):
    """The journal failed, or the daemon may not write to the file system, so no write can be
    promised. Reads go on. Nothing was changed.

    Look for the cause in the log and the kernel's log, mend it, and restart bucketd; it
    recovers what was acknowledged."""

    code = "read_only"


class Failure(BucketdError):
    code = "internal"


class BucketCorrupt(Failure):
    """The bucket's file is damaged and no good generation of it is known. It was left
    untouched where it is, and the message names it.

    Put a good file in its place (from a backup, under ``write.lock``), or replace or delete the
    bucket; the damaged file is then kept in ``quarantine/``."""

    code = "bucket_corrupt"
    damage = ""  # the file and what is wrong with it, without what became of that


class StorageFull(Failure):
    """There is no space for the write, or a quota is used up. Nothing was changed, and what
    was acknowledged before is kept.

    Free some space; writes go on by themselves. Whole buckets can be deleted meanwhile, which frees
    their files."""

    code = "storage_full"


class Internal(Failure):
    """A defect of the daemon, or a device that fails. Where the outcome of a write cannot be
    known, the message says so.

    Find the ``X-Request-Id`` of the answer in the daemon's log, which says more. Where the
    outcome is unknown, read before you repeat."""

    code = "internal"
