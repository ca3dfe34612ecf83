import { now } from "./clock.js";
import { ConnectionLost, TimedOut } from "./connections.js";
import { type Target, authorization, locate, quote } from "./context.js";
import { BucketError, InvalidRequestError } from "./errors.js";
import { errorFor, isTransient } from "./request.js";
import { RetryLater } from "./response.js";
import type { ServerEvent } from "./sse.js";
import { StreamConnection, type StreamRequest, dataOf } from "./stream.js";
import type { Change, WatchOptions } from "./types.js";

/** Milliseconds. A daemon that sends nothing for three heartbeats is considered gone. */
export const limits = { silent: 45_000, reach: 5_000, respond: 30_000 };
// A daemon that restarts is back within seconds; later attempts have longer pauses.
const [FIRST_PAUSE, SHORT_PAUSE, LONG_PAUSE] = [10, 100, 2_000];
const SHORT_MS = 10_000;

/** The daemon no longer has the changes in between, so the whole bucket has to be read again. */
class GapDetected extends Error {}

/** Iterate over every change of one bucket, reconnecting as needed, until `signal` aborts. */
export async function* watch(target: Target, options: WatchOptions, timeout?: number): AsyncGenerator<Change, void, void> {
  const session = new WatchSession(target, options, timeout);
  const { signal } = options;
  while (!signal?.aborted) {
    const connection = new StreamConnection(session.request, signal);
    try {
      if (target.hold) await target.hold.ready(limits.reach);
      const events = await connection.open();
      connection.giveUpAfter(limits.silent);
      yield* session.changes(events);
    } catch (error) {
      if (signal?.aborted) return;
      await connection.pause(session.pauseAfter(error));
    } finally {
      connection.close();
    }
  }
}

/** The state of one watch across its connections: its next request, and the decoding of events. */
class WatchSession {
  private lastId: string | undefined;
  private needsSnapshot: boolean;
  private gap = false;
  private reached = false;
  private failingSince: number | undefined = now();
  private pause = FIRST_PAUSE;

  constructor(readonly target: Target, private readonly options: WatchOptions, readonly timeout: number | undefined) {
    if (options.snapshot && options.since !== undefined) {
      throw new InvalidRequestError("cannot watch: give since or snapshot, not both");
    }
    this.lastId = options.since;
    this.needsSnapshot = options.snapshot ?? false;
  }

  /** The next request. */
  get request(): StreamRequest {
    const { target, path, headers } = this;
    return { target, method: "GET", path, headers, respondMs: this.timeout ?? limits.respond };
  }

  private get path(): string {
    const keys = (this.options.keys ?? []).map((key) => `key=${quote(key, "key")}`);
    return locate(this.target, `${this.target.path}/events`, this.needsSnapshot ? [...keys, "snapshot=true"] : keys);
  }

  private get headers(): Record<string, string> {
    const resume: Record<string, string> =
      this.lastId === undefined || this.needsSnapshot ? {} : { "Last-Event-ID": this.lastId };
    return { Accept: "text/event-stream", ...authorization(this.target), ...resume };
  }

  /** Iterate over the changes of one connection; throw when the connection ends. */
  async *changes(events: AsyncGenerator<ServerEvent, never, void>): AsyncGenerator<Change, void, void> {
    this.reached = true;
    this.failingSince = undefined;
    for await (const event of events) {
      if (event.data) yield this.change(event);
      this.lastId = event.id || this.lastId;
    }
  }

  private change(event: ServerEvent): Change {
    this.pause = FIRST_PAUSE;
    if (event.kind === "gap") {
      this.needsSnapshot = this.gap = true;
      throw new GapDetected();
    }
    const { gap } = this;
    this.needsSnapshot = this.gap = false;
    return { ...dataOf(event), id: event.id, gap };
  }

  /** Return the milliseconds until the next connection; throw when reconnecting is useless. */
  pauseAfter(error: unknown): number {
    if (error instanceof GapDetected) return 0;
    if (error instanceof BucketError) throw error;
    this.failingSince ??= now();
    const failing = now() - this.failingSince;
    this.pause = Math.min(2 * this.pause, failing < SHORT_MS ? SHORT_PAUSE : LONG_PAUSE);
    const pause = this.pause * (0.5 + Math.random() / 2);
    const retryFor = this.timeout ?? (this.reached ? Infinity : limits.reach);
    if (!this.isTransient(error) || failing + pause > retryFor) throw errorFor(error, this.target, { method: "GET" });
    return error instanceof RetryLater ? Math.max(error.ms, pause) : pause;
  }

  private isTransient(error: unknown): boolean {
    if (error instanceof TimedOut) return this.reached;
    return error instanceof RetryLater || error instanceof ConnectionLost || isTransient(error, this.target.socket);
  }
}
