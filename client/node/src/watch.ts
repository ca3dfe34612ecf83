import * as http from "node:http";
import { Later, read } from "./answer.js";
import { comesBack, final } from "./call.js";
import { type Target, locate, quote } from "./context.js";
import { BucketError, InvalidRequestError, StoreError } from "./errors.js";
import { EventParser, type ServerEvent } from "./sse.js";
import { Lost, TooSlow, bearer, classify, readAnswer } from "./transport.js";
import type { Change, WatchOptions } from "./types.js";

/** Milliseconds. Whoever is silent for three heartbeats of the daemon is not there. */
export const limits = { silent: 45_000, reach: 5_000, answer: 30_000 };
// A daemon that restarts is back in a second, and its backlog has an end; one that stays away
// for longer is not asked ten times a second.
const [FIRST_PAUSE, SHORT_PAUSE, LONG_PAUSE] = [10, 100, 2_000];
const SHORT_MS = 10_000;

/** What happened in between is not known any more: read the bucket anew. */
class Missed extends Error {}

/** Every change of one bucket, over as many connections as it takes; until `signal` aborts. */
export async function* watch(target: Target, options: WatchOptions, timeout?: number): AsyncGenerator<Change, void, void> {
  const watching = new Watching(target, options, timeout);
  const { signal } = options;
  while (!signal?.aborted) {
    const connection = new Connection(watching, options);
    try {
      yield* watching.told(await connection.open());
    } catch (error) {
      if (signal?.aborted) return;
      await connection.pause(watching.pauseAfter(error));
    } finally {
      connection.close();
    }
  }
}

/** One watch without its connections: what to ask next, and what the answer means. */
class Watching {
  private last: string | undefined;
  private whole: boolean;
  private gap = false;
  private reached = false;
  private failingSince: number | undefined = Date.now();
  private pause = FIRST_PAUSE;

  constructor(readonly target: Target, private readonly options: WatchOptions, readonly timeout: number | undefined) {
    if (options.snapshot && options.since !== undefined) {
      throw new InvalidRequestError("cannot watch: give since or snapshot, not both");
    }
    this.last = options.since;
    this.whole = options.snapshot ?? false;
  }

  get path(): string {
    const keys = (this.options.keys ?? []).map((key) => `key=${quote(key, "key")}`);
    return locate(this.target, `${this.target.path}/events`, this.whole ? [...keys, "snapshot=true"] : keys);
  }

  get headers(): Record<string, string> {
    const resume: Record<string, string> =
      this.last === undefined || this.whole ? {} : { "Last-Event-ID": this.last };
    return { Accept: "text/event-stream", ...bearer(this.target.token), ...resume };
  }

  /** The changes of one connection; throws once it is over. */
  async *told(response: http.IncomingMessage): AsyncGenerator<Change, void, void> {
    this.reached = true;
    this.failingSince = undefined;
    const parser = new EventParser();
    for await (const text of response.setEncoding("utf8")) {
      for (const event of parser.feed(text)) {
        if (event.data) yield this.change(event);
        this.last = event.id || this.last;
      }
    }
    throw new Lost();
  }

  private change({ kind, id, data }: ServerEvent): Change {
    this.pause = FIRST_PAUSE;
    if (kind === "gap") {
      this.whole = this.gap = true;
      throw new Missed();
    }
    const { gap } = this;
    this.whole = this.gap = false;
    try {
      return { ...JSON.parse(data), id, gap };
    } catch {
      throw new StoreError("cannot read an event: it is not JSON", "internal");
    }
  }

  /** Milliseconds until the next connection; throws where that is of no use. */
  pauseAfter(error: unknown): number {
    if (error instanceof Missed) return 0;
    if (error instanceof BucketError) throw error;
    this.failingSince ??= Date.now();
    const failing = Date.now() - this.failingSince;
    this.pause = Math.min(2 * this.pause, failing < SHORT_MS ? SHORT_PAUSE : LONG_PAUSE);
    const pause = this.pause * (0.5 + Math.random() / 2);
    const patience = this.timeout ?? (this.reached ? Infinity : limits.reach);
    if (!this.mayPass(error) || failing + pause > patience) throw final(error, this.target, { method: "GET" });
    return error instanceof Later ? Math.max(error.ms, pause) : pause;
  }

  private mayPass(error: unknown): boolean {
    if (error instanceof TooSlow) return this.reached;
    return error instanceof Later || error instanceof Lost || comesBack(error, this.target.socket);
  }
}

/** One connection, and the pause behind it; both end when the signal aborts. */
class Connection {
  private request: http.ClientRequest | undefined;
  private wake: (() => void) | undefined;
  private readonly abort = () => {
    this.request?.destroy();
    this.wake?.();
  };

  constructor(private readonly watching: Watching, private readonly options: WatchOptions) {
    options.signal?.addEventListener("abort", this.abort);
  }

  /** The stream; rejects with what the daemon refuses it with. */
  async open(): Promise<http.IncomingMessage> {
    const response = await this.answered();
    const isStream = response.headers["content-type"]?.startsWith("text/event-stream");
    if (response.statusCode !== 200 || !isStream) {
      read(await readAnswer(response), this.watching.target);
      throw new StoreError("cannot read the answer: it is no stream of events", "internal");
    }
    this.giveUpAfter(limits.silent);
    return response;
  }

  private answered(): Promise<http.IncomingMessage> {
    const { target, path, headers, timeout } = this.watching;
    return new Promise((resolve, reject) => {
      const request = http.request({ agent: false, socketPath: target.socket, path, headers });
      this.request = request;
      this.giveUpAfter(timeout ?? limits.answer);
      request.once("response", (response) => {
        // What breaks off is told by reading; without a reader it is nobody's concern.
        response.on("error", () => undefined);
        resolve(response);
      });
      request.on("error", (error) => reject(error instanceof TooSlow ? error : classify(error)));
      request.end();
    });
  }

  private giveUpAfter(ms: number): void {
    this.request?.removeAllListeners("timeout");
    this.request?.setTimeout(ms, () => this.request?.destroy(new TooSlow(true)));
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
