import type { Target } from "./context.js";
import {
  BucketError,
  ForbiddenError,
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
import type { Answer } from "./transport.js";

/** A successful answer; `etag` is null when no bucket is stored. */
export interface Reply {
  readonly body: any;
  readonly etag: string | null;
}

type Kind = new (message: string, code: string, options: BucketErrorOptions) => BucketError;

const KINDS: Readonly<Record<string, Kind>> = {
  bucket_corrupt: StoreError,
  forbidden: ForbiddenError,
  internal: StoreError,
  invalid_json: InvalidRequestError,
  invalid_request: InvalidRequestError,
  method_not_allowed: InvalidRequestError,
  no_job_context: NoJobContextError,
  not_acceptable: InvalidRequestError,
  not_found: NotFoundError,
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
  unsupported_media_type: InvalidRequestError,
};

const LATER = new Set(["overloaded", "shutting_down", "too_many_requests"]);

/** A refusal that the daemon itself asks to repeat after `ms`; nothing was changed. */
export class Later extends Error {
  constructor(
    readonly refusal: BucketError,
    readonly ms: number,
  ) {
    super(refusal.message);
  }
}

/** The daemon's answer, read; throws the BucketError that it stands for, or Later. */
export function read(answer: Answer, target: Target): Reply {
  const body = parse(answer, target);
  if (body.success === true) return { body, etag: answer.headers.etag ?? null };
  const refusal = errorOf(answer, body);
  if (!LATER.has(refusal.code)) throw refusal;
  throw new Later(refusal, 1000 * (Number(answer.headers["retry-after"]) || 0));
}

function parse(answer: Answer, target: Target): any {
  try {
    const body = JSON.parse(answer.text);
    if (body.success === true || (body.success === false && body.code)) return body;
  } catch {
    // not JSON: told below
  }
  const cause = `status ${answer.status} and no answer of bucketd's; is it bucketd that listens at ${target.socket}?`;
  throw new StoreError(`cannot read the answer: ${cause}`, "internal", { status: answer.status });
}

function errorOf({ status, headers }: Answer, body: any): BucketError {
  const code = String(body.code);
  const Kind = Object.hasOwn(KINDS, code) ? KINDS[code]! : BucketError;
  const options: BucketErrorOptions = { status };
  if (Array.isArray(body.details)) options.details = body.details;
  if (Number.isInteger(body.revision)) options.revision = body.revision;
  const id = headers["x-request-id"];
  if (typeof id === "string") options.requestId = id;
  return new Kind(String(body.error), code, options);
}
