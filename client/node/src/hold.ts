import { clearTimeout, now, setTimeout } from "./clock.js";
import { ConnectionLost, TimedOut } from "./connections.js";
import { type HoldEvent, type LiveHold, type Target, authorization, heldTarget } from "./context.js";
import { BucketError, HoldLostError, InvalidRequestError } from "./errors.js";
import { encodeObject, nameOfError } from "./json.js";
import { refuseUnknown } from "./preconditions.js";
import { type BucketResponse, errorFor, isTransient, requestBucket } from "./request.js";
import { RetryLater } from "./response.js";
import type { ServerEvent } from "./sse.js";
import { StreamConnection, dataOf } from "./stream.js";
import type { HoldOptions, RefreshOptions, RuntimeSignal } from "./types.js";

/**
 * Milliseconds: to reach a daemon; for its response after the wait; to come back to a daemon that
 * restarts, which keeps the hold for 5 s after its start; for the end of the stream after a release.
 */
export const limits = { reach: 5_000, respond: 30_000, comeBack: 10_000, release: 1_000 };
const [FIRST_PAUSE, LONG_PAUSE] = [10, 100];
const MAX_WAIT_SECONDS = 3600;
const WAIT_SECONDS = 60;
const REFRESH_WAIT_SECONDS = 300;
const OPTIONS = ["wait", "name", "exclusive", "label", "signal"];
const VERB = "hold the bucket";
const EXAMPLE = "{ wait: 60 }";

/** Why a hold ended: one word for programs, and a clause for people. */
interface Ending {
  readonly reason: string;
  readonly cause: string;
}

/** A granted hold on its connection. */
interface Grant {
  readonly connection: StreamConnection;
  readonly event: HoldEvent;
  /** The events after the first one. */
  readonly events: AsyncGenerator<ServerEvent, never, void>;
}

/**
 * A hold: it lasts as long as its connection, and comes back with its fence when the daemon restarts.
 *
 * A silent daemon is not taken for a lost hold, since closing the connection would release it.
 */
export class Hold implements LiveHold {
  /** Wait for the hold; reject with a BucketError, or with the reason of the options' signal. */
  static async take(target: Target, options: HoldOptions, timeout?: number): Promise<Hold> {
    const body = bodyOf(options);
    if (target.hold) await target.hold.ready(timeout ?? limits.reach);
    return new Hold(target, await waitForGrant(target, body, options, timeout), options);
  }

  private readonly controller = new AbortController();
  /** Why the hold ended; undefined while it lasts. */
  private ended: Ending | undefined;
  /** Settles once the daemon has confirmed or ended the hold, after its connection broke. */
  private confirmation: Promise<void> | undefined;
  private keepsAlive = true;
  private readonly abort = () => this.end({ reason: "aborted", cause: "its signal was aborted" }, this.options.signal?.reason);

  private constructor(private readonly target: Target, private grant: Grant, private readonly options: HoldOptions) {
    options.signal?.addEventListener("abort", this.abort);
    if (options.signal?.aborted) this.abort();
    void this.keep();
  }

  get event(): HoldEvent {
    return this.grant.event;
  }

  get signal(): RuntimeSignal {
    return this.controller.signal as RuntimeSignal;
  }

  async ready(ms: number): Promise<void> {
    if (this.confirmation) await within(ms, this.confirmation);
    if (this.ended) throw this.error(this.ended);
  }

  /** Let the process end, which releases the hold. */
  unref(): void {
    this.keepsAlive = false;
    this.grant.connection.unref();
  }

  /** Run `work`, and release the hold however it ends. */
  async run<R>(work: () => R | PromiseLike<R>): Promise<R> {
    try {
      return await work();
    } finally {
      await this.release();
    }
  }

  async release(): Promise<void> {
    if (this.ended) return;
    this.finish({ reason: "released", cause: "it was released" });
    await this.grant.connection.finish(limits.release);
  }

  /** Follow the stream to its end, and come back until the hold has ended. */
  private async keep(): Promise<void> {
    while (!this.ended) {
      const reason = await reasonOfLoss(this.grant.events);
      this.grant.connection.close();
      if (this.ended) return;
      if (reason !== undefined) return this.end({ reason, cause: `it was lost (${reason})` });
      this.confirmation = this.comeBack();
      await this.confirmation;
      this.confirmation = undefined;
    }
  }

  /** Take the hold again by its fence, or end it. */
  private async comeBack(): Promise<void> {
    const until = now() + limits.comeBack;
    for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONG_PAUSE)) {
      const connection = connect(this.target, { fence: this.event.fence }, Math.max(1, until - now()));
      if (!this.keepsAlive) connection.unref();
      try {
        const grant = await granted(connection);
        if (this.ended) return connection.close();
        this.grant = grant;
        return;
      } catch (error) {
        connection.close();
        if (this.ended) return;
        if (!isWorthRepeating(error, this.target) || now() + pause > until) return this.end(endingBy(error, this.target));
        await connection.pause(pause);
      }
    }
  }

  /** End the hold without being asked to. */
  private end(ending: Ending, reason?: unknown): void {
    if (this.ended) return;
    this.finish(ending);
    this.grant.connection.close();
    this.controller.abort(reason ?? this.error(ending));
  }

  private finish(ending: Ending): void {
    this.ended = ending;
    this.options.signal?.removeEventListener("abort", this.abort);
  }

  private error({ reason, cause }: Ending): HoldLostError {
    const message = `cannot use the held bucket: ${cause}; nothing was changed; take the hold again`;
    return new HoldLostError(message, "hold_lost", { details: [{ id: this.event.id, reason }] });
  }
}

/** Separate the options from the callback; both may be missing. */
export function holdArguments(given: readonly unknown[]): [HoldOptions, ((held: any) => any) | undefined] {
  const [options = {}, work] = typeof given[0] === "function" ? [{}, given[0]] : given;
  refuseUnknown(options as object, VERB, OPTIONS, EXAMPLE);
  if (work === undefined || typeof work === "function") return [options as HoldOptions, work as (held: any) => any];
  throw new InvalidRequestError(`cannot ${VERB}: what follows the options must be a function`);
}

/** Return the response that holds the bucket, after `login` has brought it up to date if it was not `fresh`. */
export async function refresh(
  target: Target,
  fresh: (bucket: any) => unknown,
  login: (bucket: any, signal: RuntimeSignal) => unknown,
  options: RefreshOptions = {},
  timeout?: number,
): Promise<BucketResponse> {
  refuseUnknown(options, "refresh the bucket", OPTIONS, EXAMPLE);
  const found = await requestBucket(target, { method: "GET" }, timeout);
  if (await fresh(found.content)) return found;
  const { name = "login", wait = REFRESH_WAIT_SECONDS } = options;
  const hold = await Hold.take(target, { ...options, name, wait }, timeout);
  return hold.run(async () => {
    const held = heldTarget(target, hold);
    // Whoever held before may have logged in.
    const current = await requestBucket(held, { method: "GET" }, timeout);
    if (await fresh(current.content)) return current;
    const body = encodeObject(await login(current.content, hold.signal), "set the bucket");
    return requestBucket(held, { method: "PATCH", body }, timeout);
  });
}

/** The members of the body as the API names them; undefined ones are not sent. */
function bodyOf({ wait = WAIT_SECONDS, name, exclusive, label }: HoldOptions): object {
  if (typeof wait === "number" && wait >= 0 && wait <= MAX_WAIT_SECONDS) return { name, wait_seconds: wait, exclusive, label };
  throw new InvalidRequestError(`cannot ${VERB}: wait must be a number of seconds from 0 to ${MAX_WAIT_SECONDS}`);
}

function connect(target: Target, body: object, respondMs: number, signal?: HoldOptions["signal"]): StreamConnection {
  const headers = { Accept: "text/event-stream, application/json", "Content-Type": "application/json", ...authorization(target) };
  const path = target.path.replace(/\/bucket$/, "/hold");
  return new StreamConnection({ target, method: "POST", path, headers, body: encodeObject(body, VERB), respondMs }, signal);
}

/** Ask until the hold is granted, refused, or not had within its wait; a daemon that restarts is asked again. */
async function waitForGrant(target: Target, body: object, { wait = WAIT_SECONDS, signal }: HoldOptions, timeout?: number): Promise<Grant> {
  const [start, waitMs] = [now(), 1000 * wait];
  const [reach, respond] = [timeout ?? limits.reach, timeout ?? limits.respond];
  let [left, failingSince] = [waitMs, start];
  for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONG_PAUSE)) {
    if (signal?.aborted) throw abortion(signal);
    const connection = connect(target, { ...body, wait_seconds: left / 1000 }, left + respond, signal);
    const asked = now();
    try {
      return await granted(connection);
    } catch (error) {
      if (signal?.aborted) throw abortion(signal);
      // A connection that lasted had reached a daemon.
      if (error instanceof ConnectionLost && now() - asked > LONG_PAUSE) failingSince = now();
      const ms = error instanceof RetryLater ? Math.max(error.ms, pause) : pause;
      const until = Math.max(start + waitMs, failingSince + reach);
      if (!isWorthRepeating(error, target) || now() + ms > until) throw errorFor(error, target, { method: "GET" });
      await connection.pause(ms);
      left = Math.max(0, start + waitMs - now());
    } finally {
      // Once it is granted, the hold listens to the signal.
      connection.ignoreSignal();
    }
  }
}

/** Return the grant that the stream begins with. */
async function granted(connection: StreamConnection): Promise<Grant> {
  try {
    const events = await connection.open();
    for (;;) {
      const { value } = await events.next();
      if (value.kind !== "hold") continue;
      connection.giveUpAfter(0);
      return { connection, event: dataOf(value), events };
    }
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** Read the events of a hold to their end; return the daemon's reason if it ended the hold for good. */
async function reasonOfLoss(events: AsyncGenerator<ServerEvent, never, void>): Promise<string | undefined> {
  try {
    for await (const event of events) {
      if (event.kind === "lost") return String(dataOf(event).reason);
    }
  } catch {
    // The connection broke, so it is not known whether the hold has ended.
  }
  return undefined;
}

function isWorthRepeating(error: unknown, target: Target): boolean {
  return error instanceof RetryLater || error instanceof ConnectionLost || isTransient(error, target.socket);
}

/** Return why a hold could not come back. */
function endingBy(error: unknown, target: Target): Ending {
  const told = errorFor(error, target, { method: "GET" });
  if (!(told instanceof BucketError)) return { reason: "unreachable", cause: `it was lost: ${nameOfError(told)}` };
  const reason = told.code === "hold_lost" ? "restarted" : told.code;
  return { reason, cause: `it was lost when bucketd restarted: ${told.message}` };
}

/** Return what a wait rejects with after its signal has aborted. */
function abortion(signal: NonNullable<HoldOptions["signal"]>): unknown {
  return signal.reason ?? Object.assign(new Error("cannot hold: the wait was aborted"), { name: "AbortError" });
}

/** Await `promise`; reject with TimedOut after `ms`. */
async function within(ms: number, promise: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const expiry = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TimedOut(false)), Math.max(0, ms));
  });
  try {
    await Promise.race([promise, expiry]);
  } finally {
    clearTimeout(timer);
  }
}
