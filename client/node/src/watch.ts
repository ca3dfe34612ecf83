import * as http from "node:http";
import { clearTimeout, now, setTimeout } from "./clock.js";
import { ConnectionLost, TimedOut, classify, refuseLongPath } from "./connections.js";
import { type Target, authorization, locate, quote } from "./context.js";
import { BucketError, InvalidRequestError, StoreError } from "./errors.js";
import type { HttpResponse } from "./http1.js";
import { errorFor, isTransient } from "./request.js";
import { RetryLater, parseResponse } from "./response.js";
import { EventParser, type ServerEvent } from "./sse.js";
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
    const connection = new StreamConnection(session, options);
    try {
      yield* session.changes(await connection.open());
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

  get path(): string {
    const keys = (this.options.keys ?? []).map((key) => `key=${quote(key, "key")}`);
    return locate(this.target, `${this.target.path}/events`, this.needsSnapshot ? [...keys, "snapshot=true"] : keys);
  }

  get headers(): Record<string, string> {
    const resume: Record<string, string> =
      this.lastId === undefined || this.needsSnapshot ? {} : { "Last-Event-ID": this.lastId };
    return { Accept: "text/event-stream", ...authorization(this.target), ...resume };
  }

  /** Iterate over the changes of one connection; throw when the connection ends. */
  async *changes(response: http.IncomingMessage): AsyncGenerator<Change, void, void> {
    this.reached = true;
    this.failingSince = undefined;
    const parser = new EventParser();
    for await (const text of textOf(response)) {
      for (const event of parser.feed(text)) {
        if (event.data) yield this.change(event);
        this.lastId = event.id || this.lastId;
      }
    }
    throw new ConnectionLost();
  }

  private change({ kind, id, data }: ServerEvent): Change {
    this.pause = FIRST_PAUSE;
    if (kind === "gap") {
      this.needsSnapshot = this.gap = true;
      throw new GapDetected();
    }
    const { gap } = this;
    this.needsSnapshot = this.gap = false;
    try {
      return { ...JSON.parse(data), id, gap };
    } catch {
      throw new StoreError("cannot read an event: it is not JSON", "internal");
    }
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

/** One connection and the pause after it; both end when the signal aborts. */
class StreamConnection {
  private request: http.ClientRequest | undefined;
  private wake: (() => void) | undefined;
  private readonly abort = () => {
    this.request?.destroy();
    this.wake?.();
  };

  constructor(private readonly session: WatchSession, private readonly options: WatchOptions) {
    options.signal?.addEventListener("abort", this.abort);
  }

  /** Return the stream; reject with the daemon's refusal. */
  async open(): Promise<http.IncomingMessage> {
    const response = await this.connect();
    const isStream = response.headers["content-type"]?.startsWith("text/event-stream");
    if (response.statusCode !== 200 || !isStream) {
      parseResponse(await readResponse(response), this.session.target);
      throw new StoreError("cannot read the response: it is not a stream of events", "internal");
    }
    this.giveUpAfter(limits.silent);
    return response;
  }

  private connect(): Promise<http.IncomingMessage> {
    const { target, path, headers, timeout } = this.session;
    return new Promise((resolve, reject) => {
      refuseLongPath(target.socket);
      const request = http.request({ agent: false, socketPath: target.socket, path, headers });
      this.request = request;
      this.giveUpAfter(timeout ?? limits.respond);
      request.once("response", (response) => {
        // A reader gets the error of a broken stream; without a reader the error has no effect.
        response.on("error", () => undefined);
        resolve(response);
      });
      request.on("error", (error) => reject(error instanceof TimedOut ? error : classify(error)));
      request.end();
    });
  }

  private giveUpAfter(ms: number): void {
    this.request?.removeAllListeners("timeout");
    this.request?.setTimeout(ms, () => this.request?.destroy(new TimedOut(true)));
  }

  async pause(ms: number): Promise<void> {
    if (this.options.signal?.aborted) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.wake = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
  }

  close(): void {
    this.options.signal?.removeEventListener("abort", this.abort);
    this.request?.destroy();
  }
}

/** Iterate over the body as it arrives; throw the outcome of a broken connection. */
async function* textOf(response: http.IncomingMessage): AsyncGenerator<string, void, void> {
  try {
    yield* response.setEncoding("utf8");
  } catch (error) {
    throw error instanceof TimedOut ? error : classify(error as Error);
  }
}

/** Read the whole response, which is not a stream. */
async function readResponse(response: http.IncomingMessage): Promise<HttpResponse> {
  let text = "";
  for await (const piece of textOf(response)) text += piece;
  const header = (name: string) => response.headers[name] as string | undefined;
  return { status: response.statusCode!, header, text };
}
