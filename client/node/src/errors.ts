import type { ErrorCode } from "./codes.js";
import type { Detail } from "./types.js";

export interface BucketErrorOptions {
  /** HTTP status of the daemon's response; 0 when there was none. */
  status?: number;
  details?: Detail[];
  /** The current revision, after a failed precondition. */
  revision?: number;
  /** The id of the request in the daemon's log. */
  requestId?: string;
}

/**
 * The error that a `Bucket` rejects with.
 *
 *     BucketError
 *     ├── InvalidRequestError      invalid_json, invalid_request, unsupported_media_type, …
 *     ├── NoJobContextError        no_job_context
 *     ├── ForbiddenError           forbidden
 *     ├── NotFoundError            not_found
 *     ├── PatchFailedError         patch_failed
 *     ├── PreconditionFailedError  precondition_failed; carries `revision`
 *     ├── HeldError                held; `details` has who holds it, and since when
 *     ├── HoldLostError            hold_lost: the hold has ended; nothing was changed
 *     ├── TooLargeError            too_large
 *     ├── SchemaViolationError     schema_violation; `details` has every violation
 *     ├── UnavailableError         request_timeout, too_many_requests, overloaded, shutting_down,
 *     │                            read_only, storage_full
 *     ├── StoreError               bucket_corrupt, internal; also a response that is not bucketd's
 *     └── TransportError           no complete response from the daemon
 *         ├── DaemonUnreachableError  daemon_unreachable: nothing was changed
 *         ├── TimeoutError            timeout
 *         └── ConnectionLostError     connection_lost
 */
export class BucketError extends Error {
  /** To branch on, one of a closed list; a daemon newer than this client may have others. */
  readonly code: ErrorCode;
  readonly status: number;
  readonly details: Detail[] | undefined;
  readonly revision: number | undefined;
  readonly requestId: string | undefined;

  constructor(message: string, code: string, options: BucketErrorOptions = {}) {
    super(message);
    this.name = new.target.name;
    this.code = code as ErrorCode;
    this.status = options.status ?? 0;
    this.details = options.details;
    this.revision = options.revision;
    this.requestId = options.requestId;
  }
}

export class InvalidRequestError extends BucketError {
  constructor(message: string, code = "invalid_request", options?: BucketErrorOptions) {
    super(message, code, options);
  }
}

export class NoJobContextError extends BucketError {
  constructor(message: string, code = "no_job_context", options?: BucketErrorOptions) {
    super(message, code, options);
  }
}

export class ForbiddenError extends BucketError {}
export class NotFoundError extends BucketError {}
export class PatchFailedError extends BucketError {}
export class PreconditionFailedError extends BucketError {}
export class HeldError extends BucketError {}

export class HoldLostError extends BucketError {
  constructor(message: string, code = "hold_lost", options?: BucketErrorOptions) {
    super(message, code, options);
  }
}

export class TooLargeError extends BucketError {}
export class SchemaViolationError extends BucketError {}
export class UnavailableError extends BucketError {}
export class StoreError extends BucketError {}
export class TransportError extends BucketError {}

export class DaemonUnreachableError extends TransportError {
  constructor(message: string) {
    super(message, "daemon_unreachable");
  }
}

export class TimeoutError extends TransportError {
  constructor(message: string) {
    super(message, "timeout");
  }
}

export class ConnectionLostError extends TransportError {
  constructor(message: string) {
    super(message, "connection_lost");
  }
}
