"""Every error that the daemon can respond with, as one tree.

BucketdError
├── BadInput: InvalidJson, InvalidRequest, SchemaViolation
├── Denied: NoJobContext, Forbidden
├── NotFound, MethodNotAllowed, NotAcceptable, UnsupportedMediaType, RequestTimeout
├── Conflict: PatchFailed, SchemaConflict, UndoConflict, NotKept, Exists, PreconditionFailed,
│   HoldLost, Held
├── TooLarge
├── Unavailable (try again later): TooManyRequests, Overloaded, ShuttingDown, ReadOnly
└── Failure: BucketCorrupt, StorageFull, Internal

Each leaf has a ``code`` of the closed list that clients rely on; ``api.responses`` maps a code to
an HTTP status. The docstring of a leaf is its entry in docs/errors.md: the cause, then, after an
empty line, how to fix it. A message reads "cannot <verb> <thing>: <cause>; <how to fix it>".
"""

from __future__ import annotations

from typing import Any, ClassVar


class BucketdError(Exception):
    """An error with a sentence that a person can act on; ``extra`` has further response fields."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, details: list[Any] | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.extra = extra


class BadInput(BucketdError):
    code = "invalid_request"


class InvalidJson(BadInput):
    """The body is not JSON that can be stored exactly: a syntax error, NaN or Infinity, a lone
    surrogate, or an integer beyond 64 bits that would lose digits as a double.

    Send UTF-8 JSON. The message names the value by its JSON Pointer, or by line and column. Send
    such an integer as a string, and escape a lone surrogate.
    """

    code = "invalid_json"


class InvalidRequest(BadInput):
    """A name, parameter, header, schema or JSON Patch is not valid, or the body is not an
    object.

    Correct what the message names; the reference of routes lists what each route accepts.
    """

    code = "invalid_request"


class SchemaViolation(BadInput):
    """The merged bucket would violate the schema of its automation. ``details`` has every
    violation with its path (only the first for a bucket with over 2,500 keys and items); if the
    schema tolerates what stood before, only what the write makes worse. Nothing was changed.

    Send what the schema allows, or change the schema (``bucketctl schema check`` shows
    beforehand which stored buckets a new schema would refuse).
    """

    code = "schema_violation"


class Denied(BucketdError):
    code = "forbidden"


class NoJobContext(Denied):
    """The request has no token, or its token is unknown, revoked or expired, or the token is for
    a device alone and the route needs a job.

    Start the automation with ``bucketctl run --device D --job J -- COMMAND``; as an operator,
    name the device and the job.
    """

    code = "no_job_context"


class Forbidden(Denied):
    """The route is for operators and the caller is not one, or the request has ``Origin`` or
    ``Referer`` and so comes from a web page.

    Use the job's own token, or let the operator add the user to ``[access]`` and reload.
    """

    code = "forbidden"


class NotFound(BucketdError):
    """There is no such route, context or schema. (A bucket that was never written is not an
    error: it is ``{}``.)

    Check the path, or list what exists: ``bucketctl context list``, ``bucketctl schema list``.
    """

    code = "not_found"


class MethodNotAllowed(BucketdError):
    """The route exists, but does not accept this method.

    Use one of the methods in the message and in the ``Allow`` header.
    """

    code = "method_not_allowed"


class NotAcceptable(BucketdError):
    """``Accept`` rules out JSON, and this route responds with nothing else.

    Leave ``Accept`` out, or let it allow ``application/json``.
    """

    code = "not_acceptable"


class UnsupportedMediaType(BucketdError):
    """The route does not accept the body's ``Content-Type`` or ``Content-Encoding``.

    Send ``application/json``; ``PATCH`` also accepts ``application/merge-patch+json`` and
    ``application/json-patch+json``. Do not compress the body.
    """

    code = "unsupported_media_type"


class RequestTimeout(BucketdError):
    """The header or the body was not complete in time.

    Send the request without pauses; for slow clients raise ``header_timeout_seconds`` and
    ``body_timeout_seconds`` in ``[limits]``.
    """

    code = "request_timeout"


class Conflict(BucketdError):
    code = "patch_failed"


class PatchFailed(Conflict):
    """The JSON Patch does not apply: a path does not exist, or a ``test`` fails. None of its
    operations was applied.

    Read the bucket again, and make a patch for its current state.
    """

    code = "patch_failed"


class SchemaConflict(Conflict):
    """Stored buckets violate the new schema. ``details`` has the first 100 of them with their
    violations, ``count`` their number. The old schema stays in force.

    Correct those buckets or the schema. Or set the schema with ``--tolerate``
    (``?existing=tolerate``): what they violate now does not refuse later writes. With ``--force``
    (``?force=true``) the buckets stay readable, and their next write must be valid.
    """

    code = "schema_conflict"


class Exists(Conflict):
    """A deleted bucket cannot be restored, since a bucket is stored in its place. Nothing was
    changed; the deleted one stays in the trash.

    Compare the two, then clear the stored bucket or rename its device, and restore again.
    """

    code = "exists"


class UndoConflict(Conflict):
    """A change cannot be taken back, since later changes have set or removed the same keys.
    ``details`` has each key with the revision that touched it last. Nothing was changed.

    Take the later changes back first, the newest before the others, or set the keys to what you
    want (``bucketctl history --values`` shows the earlier values).
    """

    code = "undo_conflict"


class NotKept(Conflict):
    """The history does not have this revision any more, or not what it takes to restore it:
    it keeps the newest ``revisions`` of a bucket, and at most ``bytes``.

    Raise the limits in ``[history]``, which counts from then on. An export made at that time, or a
    backup, has the bucket as it was.
    """

    code = "not_kept"


class PreconditionFailed(Conflict):
    """``If-Match`` or ``If-None-Match`` does not hold: the bucket has changed since it was read.
    ``revision`` is the current revision. Nothing was changed.

    Read the bucket again, decide anew, and write with the new ETag; ``update`` of the clients
    repeats these steps by itself.
    """

    code = "precondition_failed"


class HoldLost(Conflict):
    """The hold whose fence a write carries in ``Bucketd-Fence`` has ended, or is a hold of
    something else. The same error refuses to come back to a hold that has ended. Nothing was
    changed.

    Somebody else may hold it by now: stop what you do there, take the hold again, and read the
    bucket anew before you write. ``bucketctl hold list`` shows who holds what.
    """

    code = "hold_lost"


class Held(Conflict):
    """Somebody else holds the device or the bucket: a hold was not had within ``wait_seconds``,
    or a write does not carry the fence of the exclusive hold. ``details`` says who, and since when.
    Nothing was changed.

    Wait longer (``wait_seconds`` of the hold), or let an operator end a hold that hangs
    (``bucketctl hold list``, ``bucketctl hold break``).
    """

    code = "held"


class TooLarge(BucketdError):
    """The body or the changed bucket would exceed ``max_bucket_bytes``, or the buckets of the
    device would together exceed ``max_device_bytes``. The message has the size, the limit, and
    the largest keys or buckets. Nothing was changed.

    Store large data in files and only their paths in the bucket, remove keys or buckets that are
    no longer needed (``bucketctl usage`` shows the size of each device), or raise the limit in
    ``[limits]``.
    """

    code = "too_large"


class Unavailable(BucketdError):
    code = "overloaded"


class TooManyRequests(Unavailable):
    """The number of live contexts has reached ``max_live`` in ``[contexts]``, or the number of
    holds and waiters has reached ``max_holds`` in ``[limits]``, of which a user who is no operator
    may have a quarter.

    Revoke contexts that are no longer needed (``bucketctl context list``), give them a shorter
    ``ttl_seconds``, end holds (``bucketctl hold list``), or raise the limit.
    """

    code = "too_many_requests"


class Overloaded(Unavailable):
    """The limit of connections, waiting writes or file descriptors is reached, another program
    holds a lock or a bucket's file, or etcd is unavailable. Nothing was changed.

    Try again after ``Retry-After``, as the clients do. If the error persists, the message names
    the cause, such as another program that holds ``write.lock``.
    """

    code = "overloaded"


class ShuttingDown(Unavailable):
    """The daemon is stopping and has not handled the request.

    Try again: a restart takes a moment, and the clients wait for it.
    """

    code = "shutting_down"


class ReadOnly(Unavailable):
    """The journal has failed, or the daemon may not write to the file system, so no write would
    be durable. Reads still work. Nothing was changed.

    Find the cause in the daemon's log and in the kernel's log, remove it, and restart bucketd:
    it recovers every acknowledged write.
    """

    code = "read_only"


class Failure(BucketdError):
    code = "internal"


class BucketCorrupt(Failure):
    """The bucket's file is damaged, and no good generation of it is known. The file was left
    untouched where it is, and the message names it.

    Replace the file by a good one (from a backup, under ``write.lock``), or replace or delete
    the bucket; the damaged file is then moved to ``quarantine/``.
    """

    code = "bucket_corrupt"
    # The path of the file and the cause, without the daemon's action.
    damage = ""


class StorageFull(Failure):
    """There is no space for the write, or a disk quota is used up. Nothing was changed, and
    every acknowledged write is kept.

    Free some space; writes then work again without a restart. Whole buckets can be deleted
    meanwhile, which frees their files.
    """

    code = "storage_full"


class Internal(Failure):
    """The daemon has a defect, or a device fails. If the outcome of a write is unknown, the
    message says so.

    Look up the ``X-Request-Id`` of the response in the daemon's log, which has the details. If
    the outcome is unknown, read the bucket before you repeat the write.
    """

    code = "internal"
