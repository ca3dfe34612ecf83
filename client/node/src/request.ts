import { statSync } from "node:fs";
import { type Target, locate } from "./context.js";
import { ConnectionLostError, DaemonUnreachableError, StoreError, TimeoutError } from "./errors.js";
import { enqueue } from "./keyed-queue.js";
import { type ApiResponse, RetryLater, parseResponse } from "./response.js";
import { ConnectionLost, NotSent, TimedOut, bearer, exchange } from "./transport.js";

/** One call on a bucket; `query` is percent-encoded, `body` is JSON. */
export interface BucketRequest {
  readonly method: "GET" | "PUT" | "PATCH" | "DELETE";
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
const MAX_SOCKET_PATH_BYTES = 107;
const TRANSIENT = new Set(["ENOENT", "ECONNREFUSED", "EAGAIN", "EPIPE", "ECONNRESET"]);

/** Make one call, after the earlier calls on the same bucket; rejects with a BucketError. */
export function request(target: Target, wanted: BucketRequest, timeout?: number): Promise<ApiResponse> {
  const now = Date.now();
  const limits = { connectBy: now + (timeout ?? CONNECT_MS), deadline: now + (timeout ?? TOTAL_MS) };
  const bucket = `${target.socket}\n${target.path}\n${target.token ?? ""}`;
  return enqueue(bucket, limits.deadline, () => retry(target, wanted, limits));
}

export interface BucketResponse extends ApiResponse {
  readonly content: object;
}

/** As `request`, for a call whose response holds the bucket. */
export async function requestBucket(target: Target, wanted: BucketRequest, timeout?: number): Promise<BucketResponse> {
  const response = await request(target, wanted, timeout);
  const content = response.body[target.field];
  if (typeof content !== "object" || content === null) {
    throw new StoreError(`cannot read the response: it holds no ${target.field}`, "internal");
  }
  return { ...response, content };
}

/** The earlier calls on the same bucket took all the time of this one. */
class QueueTimeout extends Error {}

const MIN_TRY_MS = 250;

/** Repeat a call while it certainly changed nothing, until a response arrives or the time is over. */
async function retry(target: Target, wanted: BucketRequest, limits: Limits): Promise<ApiResponse> {
  let failed: unknown = new QueueTimeout();
  for (let tries = 0; Date.now() < limits.deadline; tries++) {
    const ms = limits.deadline - Date.now();
    try {
      return await attempt(target, wanted, ms);
    } catch (error) {
      // The error of a last read with hardly any time left says less than the one before it.
      const cutShort = tries > 0 && ms < MIN_TRY_MS && error instanceof TimedOut && wanted.method === "GET";
      if (!cutShort) failed = error;
    }
    const pause = pauseAfter(failed, target, wanted, tries);
    const left = limits.connectBy - Date.now();
    if (pause === undefined || left <= 0) break;
    await new Promise((resolve) => setTimeout(resolve, Math.min(pause, left)));
  }
  throw errorFor(failed, target, wanted);
}

async function attempt(target: Target, wanted: BucketRequest, ms: number): Promise<ApiResponse> {
  const type: Record<string, string> = wanted.body === undefined ? {} : { "Content-Type": "application/json" };
  const headers = { ...bearer(target.token), ...type, ...wanted.headers };
  const path = locate(target, wanted.path, wanted.query);
  const response = await exchange(target.socket, { method: wanted.method, path, headers, body: wanted.body }, ms);
  return parseResponse(response, target);
}

/** Return the milliseconds until the next try; undefined when another try is unsafe or useless. */
function pauseAfter(error: unknown, target: Target, wanted: BucketRequest, tries: number): number | undefined {
  const backoff = Math.min(250, 10 * 2 ** Math.min(tries, 5)) * (0.5 + Math.random() / 2);
  if (error instanceof RetryLater) return Math.max(error.ms, backoff);
  if (error instanceof ConnectionLost && wanted.method === "GET") return backoff;
  return isTransient(error, target.socket) ? backoff : undefined;
}

/** Report whether nothing was sent and another try may reach a daemon. */
export function isTransient(error: unknown, socket: string): boolean {
  return error instanceof NotSent && !permanentFailure(socket) && TRANSIENT.has(error.reason.code ?? "");
}

/** Return why no daemon can ever listen at this path, if so. */
function permanentFailure(path: string): string | undefined {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    return `the path is longer than the ${MAX_SOCKET_PATH_BYTES} bytes that the path of a socket may have`;
  }
  try {
    return statSync(path).isSocket() ? undefined : "the file there is not a socket";
  } catch {
    // The file does not exist yet, or may not be examined; connecting tells more.
    return undefined;
  }
}

/** Return the error that the caller gets once no further try is made. */
export function errorFor(error: unknown, target: Target, wanted: BucketRequest): unknown {
  const doubt =
    wanted.method === "GET"
      ? ""
      : "; whether the change was made is not known, so read the bucket before repeating it";
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
    return new TimeoutError("cannot make the call: its time was over before it was sent; nothing was changed");
  }
  if (error instanceof TimedOut) {
    return new TimeoutError(`cannot finish the call: no response from bucketd in time${doubt}`);
  }
  return error;
}

const CAUSES: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EAGAIN: "it takes no further connections",
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
