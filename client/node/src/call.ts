import { statSync } from "node:fs";
import { Later, type Reply, read } from "./answer.js";
import { type Target, locate } from "./context.js";
import { ConnectionLostError, DaemonUnreachableError, StoreError, TimeoutError } from "./errors.js";
import { inTurn } from "./lanes.js";
import { Lost, NotSent, TooSlow, bearer, exchange } from "./transport.js";

/** One call on a bucket; `query` is percent-encoded, `body` JSON text. */
export interface Call {
  readonly method: "GET" | "PUT" | "PATCH" | "DELETE";
  readonly path?: string;
  readonly query?: readonly string[];
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Limits {
  readonly reachBy: number;
  readonly answerBy: number;
}

const REACH_MS = 5_000;
const ANSWER_MS = 30_000;
const LONGEST_SOCKET_PATH = 107;
const COMING_BACK = new Set(["ENOENT", "ECONNREFUSED", "EAGAIN", "EPIPE", "ECONNRESET"]);

/** Make one call, after those made before on the same bucket; rejects with BucketError. */
export function call(target: Target, what: Call, timeout?: number): Promise<Reply> {
  const now = Date.now();
  const limits = { reachBy: now + (timeout ?? REACH_MS), answerBy: now + (timeout ?? ANSWER_MS) };
  const lane = `${target.socket}\n${target.path}\n${target.token ?? ""}`;
  return inTurn(lane, limits.answerBy, () => attempts(target, what, limits));
}

export interface Content extends Reply {
  readonly content: object;
}

/** As `call`, for a call that answers with the bucket. */
export async function sendTo(target: Target, what: Call, timeout?: number): Promise<Content> {
  const reply = await call(target, what, timeout);
  const content = reply.body[target.field];
  if (typeof content !== "object" || content === null) {
    throw new StoreError(`cannot read the answer: it holds no ${target.field}`, "internal");
  }
  return { ...reply, content };
}

/** The calls before this one on the same bucket took all its time. */
class NoTurn extends Error {}

const FAIR_MS = 250;

/** Repeats what certainly changed nothing until an answer is in or the time is over. */
async function attempts(target: Target, what: Call, limits: Limits): Promise<Reply> {
  let failed: unknown = new NoTurn();
  for (let tries = 0; Date.now() < limits.answerBy; tries++) {
    const ms = limits.answerBy - Date.now();
    try {
      return await attempt(target, what, ms);
    } catch (error) {
      // A last read that was given hardly any time tells less than the one before it.
      const hasty = tries > 0 && ms < FAIR_MS && error instanceof TooSlow && what.method === "GET";
      if (!hasty) failed = error;
    }
    const pause = pauseAfter(failed, target, what, tries);
    const left = limits.reachBy - Date.now();
    if (pause === undefined || left <= 0) break;
    await new Promise((resolve) => setTimeout(resolve, Math.min(pause, left)));
  }
  throw final(failed, target, what);
}

async function attempt(target: Target, what: Call, ms: number): Promise<Reply> {
  const type: Record<string, string> = what.body === undefined ? {} : { "Content-Type": "application/json" };
  const headers = { ...bearer(target.token), ...type, ...what.headers };
  const wire = { method: what.method, path: locate(target, what.path, what.query), headers, body: what.body };
  return read(await exchange(target.socket, wire, ms), target);
}

/** Milliseconds until the next try; undefined when another try is not safe or of no use. */
function pauseAfter(error: unknown, target: Target, what: Call, tries: number): number | undefined {
  const backoff = Math.min(250, 10 * 2 ** Math.min(tries, 5)) * (0.5 + Math.random() / 2);
  if (error instanceof Later) return Math.max(error.ms, backoff);
  if (error instanceof Lost && what.method === "GET") return backoff;
  return comesBack(error, target.socket) ? backoff : undefined;
}

/** Whether nothing was sent, and another try may reach a daemon. */
export function comesBack(error: unknown, socket: string): boolean {
  return error instanceof NotSent && !hopeless(socket) && COMING_BACK.has(error.reason.code ?? "");
}

/** Why no daemon can ever answer at this path, if so. */
function hopeless(path: string): string | undefined {
  if (Buffer.byteLength(path) > LONGEST_SOCKET_PATH) {
    return `the path is longer than the ${LONGEST_SOCKET_PATH} bytes that a socket's may have`;
  }
  try {
    return statSync(path).isSocket() ? undefined : "there is something that is no socket";
  } catch {
    return undefined; // not there yet, or not to be looked at: connecting tells more
  }
}

/** What the caller is told once no further try is made. */
export function final(error: unknown, target: Target, what: Call): unknown {
  const doubt =
    what.method === "GET"
      ? ""
      : "; whether the change was made is not known, so read the bucket before repeating it";
  if (error instanceof Later) return error.refusal;
  if (error instanceof NotSent) return unreachable(causeOf(error.reason), target.socket);
  if (error instanceof Lost && what.method === "GET") {
    return unreachable("it closes each connection without an answer", target.socket);
  }
  if (error instanceof Lost) {
    return new ConnectionLostError(`cannot finish the call: bucketd closed the connection before it answered${doubt}`);
  }
  if (error instanceof NoTurn) {
    return new TimeoutError("cannot make the call: its time was over before its turn came; nothing was sent");
  }
  if (error instanceof TooSlow && !error.sent) {
    return new TimeoutError("cannot make the call: its time was over before it was sent; nothing was changed");
  }
  if (error instanceof TooSlow) {
    return new TimeoutError(`cannot finish the call: no answer from bucketd in time${doubt}`);
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
    `cannot reach bucketd at ${socket}: ${hopeless(socket) ?? cause}; is bucketd running? Start it, or set BUCKETD_SOCKET to its socket`,
  );
}
