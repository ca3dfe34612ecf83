import type { Target } from "./context.js";
import {
  BucketError,
  ForbiddenError,
  HeldError,
  HoldLostError,
  InvalidRequestError,
  NoJobContextError,
  NotFoundError,
  PatchFailedError,
  PreconditionFailedError,
  SchemaViolationError,
  StoreError,
  TooLargeError,
  UnavailableError,
  type BucketErrorOptions,
} from "./errors.js";
import type { HttpResponse } from "./http1.js";

/** A successful response; `etag` is null when no bucket is stored. */
export interface ApiResponse {
  readonly body: any;
  readonly etag: string | null;
}

type Kind = new (message: string, code: string, options: BucketErrorOptions) => BucketError;

const KINDS: Readonly<Record<string, Kind>> = {
  bucket_corrupt: StoreError,
  exists: InvalidRequestError,
  forbidden: ForbiddenError,
  held: HeldError,
  hold_lost: HoldLostError,
  internal: StoreError,
  invalid_json: InvalidRequestError,
  invalid_request: InvalidRequestError,
  method_not_allowed: InvalidRequestError,
  no_job_context: NoJobContextError,
  not_acceptable: InvalidRequestError,
  not_found: NotFoundError,
  not_kept: NotFoundError,
  overloaded: UnavailableError,
  patch_failed: PatchFailedError,
  precondition_failed: PreconditionFailedError,
  read_only: UnavailableError,
  request_timeout: UnavailableError,
  schema_conflict: InvalidRequestError,
  schema_violation: SchemaViolationError,
  shutting_down: UnavailableError,
  storage_full: UnavailableError,
  too_large: TooLargeError,
  too_many_requests: UnavailableError,
  undo_conflict: InvalidRequestError,
  unsupported_media_type: InvalidRequestError,
};

const RETRYABLE = new Set(["overloaded", "shutting_down", "too_many_requests"]);

/** The daemon asks to retry after `ms`; nothing was changed. */
export class RetryLater extends Error {
  constructor(
    readonly refusal: BucketError,
    readonly ms: number,
  ) {
    super(refusal.message);
  }
}

/** Parse the daemon's response; throw the BucketError that it reports, or RetryLater. */
export function parseResponse(response: HttpResponse, target: Target): ApiResponse {
  const body = parseBody(response, target);
  if (body.success === true) return { body, etag: response.header("etag") ?? null };
  const refusal = errorOf(response, body);
  if (!RETRYABLE.has(refusal.code)) throw refusal;
  throw new RetryLater(refusal, 1000 * (Number(response.header("retry-after")) || 0));
}

function parseBody(response: HttpResponse, target: Target): any {
  try {
    const body = JSON.parse(response.text);
    if (body.success === true || (body.success === false && body.code)) return body;
  } catch {
    // The code below refuses a body that is not JSON, or JSON of another shape.
  }
  const cause = `status ${response.status}, and the body is not bucketd's; is it bucketd that listens at ${target.socket}?`;
  throw new StoreError(`cannot read the response: ${cause}`, "internal", { status: response.status });
}

function errorOf(response: HttpResponse, body: any): BucketError {
  const code = String(body.code);
  const Kind = Object.hasOwn(KINDS, code) ? KINDS[code]! : BucketError;
  const options: BucketErrorOptions = { status: response.status };
  if (Array.isArray(body.details)) options.details = body.details;
  if (Number.isInteger(body.revision)) options.revision = body.revision;
  const id = response.header("x-request-id");
  if (id !== undefined) options.requestId = id;
  return new Kind(String(body.error), code, options);
}
