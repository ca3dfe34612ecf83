import { now, sleep } from "./clock.js";
import { ConnectionLost, NotSent, TimedOut, exchange } from "./connections.js";
import { type Target, authorization, fencing, locate } from "./context.js";
import { ConnectionLostError, DaemonUnreachableError, StoreError, TimeoutError } from "./errors.js";
import { MalformedResponse, serialize } from "./http1.js";
import { QueueTimeout, enqueue } from "./keyed-queue.js";
import { type ApiResponse, RetryLater, parseResponse } from "./response.js";
import { permanentFailure } from "./socket-path.js";
import { withLargestKeys } from "./too-large.js";
import type { WriteSuccess } from "./types.js";

/** One call on a bucket; `query` is percent-encoded, `body` is JSON. */
export interface BucketRequest {
  readonly method: "GET" | "PUT" | "PATCH" | "POST" | "DELETE";
  readonly path?: string;
  readonly query?: readonly string[];
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Limits {
  readonly connectBy: number;
  readonly deadline: number;
}

const CONNECT_MS = 5_000;
const TOTAL_MS = 30_000;
const TRANSIENT = new Set(["ENOENT", "ECONNREFUSED", "EAGAIN", "EPIPE", "ECONNRESET"]);

/** Make one call, after the earlier calls on the same bucket; rejects with a BucketError. */
export async function request(target: Target, wanted: BucketRequest, timeout?: number): Promise<ApiResponse> {
  const start = now();
  const limits = { connectBy: start + (timeout ?? CONNECT_MS), deadline: start + (timeout ?? TOTAL_MS) };
  const bucket = `${target.socket}\n${target.path}\n${target.token ?? ""}`;
  try {
    return await enqueue(bucket, limits.deadline, () => retry(target, wanted, limits));
  } catch (error) {
    throw withLargestKeys(errorFor(error, target, wanted), wanted.body);
  }
}

export interface BucketResponse extends ApiResponse {
  readonly content: object;
}

/** Make one call whose response holds the bucket. */
export async function requestBucket(target: Target, wanted: BucketRequest, timeout?: number): Promise<BucketResponse> {
  const response = await request(target, wanted, timeout);
  const content = response.body[target.field];
  if (typeof content !== "object" || content === null) {
    throw new StoreError(`cannot read the response: it holds no ${target.field}`, "internal");
  }
  return { body: response.body, etag: response.etag, content };
}

/** Make one write, and return its response without the bucket, even if the daemon sends it. */
export async function requestMinimal(target: Target, wanted: BucketRequest, timeout?: number): Promise<WriteSuccess> {
  const { body } = await request(target, wanted, timeout);
  const { [target.field]: _, ...result } = body;
  if (Number.isInteger(result.revision)) return result;
  throw new StoreError("cannot read the response: it holds no revision", "internal");
}

const MIN_TRY_MS = 250;
/** A timer may fire so many milliseconds early; no attempt is made in the remaining time. */
const TIMER_ERROR_MS = 2;

/** Repeat a call until a response arrives or the time is over, while it has certainly changed nothing. */
async function retry(target: Target, wanted: BucketRequest, limits: Limits): Promise<ApiResponse> {
  let failed: unknown;
  for (let tries = 0; ; tries++) {
    if (target.hold) await target.hold.ready(limits.deadline - now());
    const ms = limits.deadline - now();
    if (ms <= (tries > 0 ? TIMER_ERROR_MS : 0)) break;
    try {
      return await attempt(target, wanted, ms);
    } catch (error) {
      // The error of a last attempt with hardly any time left says less than the one before.
      const cutShort = tries > 0 && ms < MIN_TRY_MS && error instanceof TimedOut && wanted.method === "GET";
      if (!cutShort) failed = error;
    }
    const pause = pauseAfter(failed, target, wanted, tries);
    const left = limits.connectBy - now();
    if (pause === undefined || left <= 0) break;
    await sleep(Math.min(pause, left));
  }
  throw failed ?? new TimedOut(false);
}

async function attempt(target: Target, wanted: BucketRequest, ms: number): Promise<ApiResponse> {
  const type: Record<string, string> = wanted.body === undefined ? {} : { "Content-Type": "application/json" };
  const fence = wanted.method === "GET" ? {} : fencing(target);
  const headers = { Accept: "application/json", ...authorization(target), ...type, ...fence, ...wanted.headers };
  const path = locate(target, wanted.path, wanted.query);
  const bytes = serialize({ method: wanted.method, path, headers, body: wanted.body });
  return parseResponse(await exchange(target.socket, bytes, ms), target);
}

/** Return the milliseconds until the next attempt; undefined if another attempt is unsafe or useless. */
function pauseAfter(error: unknown, target: Target, wanted: BucketRequest, tries: number): number | undefined {
  const backoff = Math.min(250, 10 * 2 ** Math.min(tries, 5)) * (0.5 + Math.random() / 2);
  if (error instanceof RetryLater) return Math.max(error.ms, backoff);
  if (error instanceof ConnectionLost && wanted.method === "GET") return backoff;
  return isTransient(error, target.socket) ? backoff : undefined;
}

/** Report whether nothing was sent and another attempt may reach a daemon. */
export function isTransient(error: unknown, socket: string): boolean {
  return error instanceof NotSent && !permanentFailure(socket) && TRANSIENT.has(error.reason.code ?? "");
}

/** Return the caller's error when no further attempt is made. */
export function errorFor(error: unknown, target: Target, wanted: BucketRequest): unknown {
  const doubt =
    wanted.method === "GET"
      ? ""
      : "; the outcome is unknown, so read the bucket before repeating the call";
  if (error instanceof RetryLater) return error.refusal;
  if (error instanceof NotSent) return unreachable(causeOf(error.reason), target.socket);
  if (error instanceof ConnectionLost && wanted.method === "GET") {
    return unreachable("it closes each connection without a response", target.socket);
  }
  if (error instanceof ConnectionLost) {
    return new ConnectionLostError(`cannot finish the call: bucketd closed the connection before its response was complete${doubt}`);
  }
  if (error instanceof QueueTimeout) {
    return new TimeoutError("cannot make the call: earlier calls on the same bucket took all its time; nothing was sent");
  }
  if (error instanceof TimedOut && !error.sent) {
    return new TimeoutError("cannot make the call: it was not sent in time; nothing was changed");
  }
  if (error instanceof TimedOut) {
    return new TimeoutError(`cannot finish the call: no response from bucketd in time${doubt}`);
  }
  if (error instanceof MalformedResponse) {
    const cause = "it is not HTTP, so not from bucketd; does BUCKETD_SOCKET name its socket?";
    return new StoreError(`cannot read the response: ${cause}`, "internal");
  }
  return error;
}

const CAUSES: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EAGAIN: "it accepts no further connections",
  ECONNREFUSED: "nobody listens there",
  ECONNRESET: "it closes each connection",
  ENOENT: "there is no socket",
  EPIPE: "it closes each connection",
};

function causeOf(reason: NodeJS.ErrnoException): string {
  const code = reason.code ?? "";
  return `${CAUSES[code] ?? "the system refuses"} (${code})`;
}

function unreachable(cause: string, socket: string): DaemonUnreachableError {
  return new DaemonUnreachableError(
    `cannot reach bucketd at ${socket}: ${permanentFailure(socket) ?? cause}; is bucketd running? Start it, or set BUCKETD_SOCKET to its socket`,
  );
}
