// The closed list of error codes. Made by `make docs`; change bucketd/errors.py.

/** The HTTP status of each code of the daemon. */
export const STATUS = {
  invalid_json: 400,
  invalid_request: 400,
  no_job_context: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  not_acceptable: 406,
  request_timeout: 408,
  patch_failed: 409,
  schema_conflict: 409,
  exists: 409,
  undo_conflict: 409,
  not_kept: 410,
  precondition_failed: 412,
  hold_lost: 412,
  too_large: 413,
  unsupported_media_type: 415,
  schema_violation: 422,
  held: 423,
  too_many_requests: 429,
  internal: 500,
  bucket_corrupt: 500,
  overloaded: 503,
  shutting_down: 503,
  read_only: 503,
  storage_full: 507,
} as const;

/** The code of an error, to branch on: the daemon's, and those of the client itself. */
export type ErrorCode =
  | keyof typeof STATUS
  | "connection_lost"
  | "daemon_unreachable"
  | "timeout";
