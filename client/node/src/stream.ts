import * as http from "node:http";
import { clearTimeout, setTimeout } from "./clock.js";
import { ConnectionLost, TimedOut, classify, refuseLongPath } from "./connections.js";
import type { Target } from "./context.js";
import { StoreError } from "./errors.js";
import type { HttpResponse } from "./http1.js";
import { parseResponse } from "./response.js";
import { EventParser, type ServerEvent } from "./sse.js";
import type { Signal } from "./types.js";

/** A request whose response is a stream of events. */
export interface StreamRequest {
  readonly target: Target;
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Milliseconds until the response has to begin. */
  readonly respondMs: number;
}

/** One connection and the pause after it; both end when the signal aborts. */
export class StreamConnection {
  private request: http.ClientRequest | undefined;
  private wake: (() => void) | undefined;
  private keepsAlive = true;
  private readonly abort = () => {
    this.request?.destroy();
    this.wake?.();
  };

  constructor(private readonly wanted: StreamRequest, private readonly signal?: Signal) {
    signal?.addEventListener("abort", this.abort);
  }

  /** Return the events of the stream; reject with the daemon's refusal. */
  async open(): Promise<AsyncGenerator<ServerEvent, never, void>> {
    const response = await this.connect();
    const isStream = response.headers["content-type"]?.startsWith("text/event-stream");
    if (response.statusCode !== 200 || !isStream) {
      parseResponse(await readResponse(response), this.wanted.target);
      throw new StoreError("cannot read the response: it is not a stream of events", "internal");
    }
    return eventsOf(response);
  }

  private connect(): Promise<http.IncomingMessage> {
    const { target, method, path, headers, body, respondMs } = this.wanted;
    return new Promise((resolve, reject) => {
      refuseLongPath(target.socket);
      const request = http.request({ agent: false, socketPath: target.socket, method, path, headers: { ...headers } });
      this.request = request;
      this.giveUpAfter(respondMs);
      request.once("socket", () => {
        if (!this.keepsAlive) this.unref();
      });
      request.once("response", (response) => {
        // A reader gets the error of a broken stream; without a reader the error has no effect.
        response.on("error", () => undefined);
        resolve(response);
      });
      request.on("error", (error) => reject(error instanceof TimedOut ? error : classify(error)));
      request.end(body);
    });
  }

  /** Break the connection when nothing arrives for `ms`; 0 never breaks it. */
  giveUpAfter(ms: number): void {
    this.request?.removeAllListeners("timeout");
    this.request?.setTimeout(ms, () => this.request?.destroy(new TimedOut(true)));
  }

  /** Let the process end although this connection is open. */
  unref(): void {
    this.keepsAlive = false;
    this.request?.socket?.unref?.();
  }

  async pause(ms: number): Promise<void> {
    if (this.signal?.aborted) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.wake = resolve;
      timer = setTimeout(resolve, ms);
      if (!this.keepsAlive) timer.unref?.();
    });
    clearTimeout(timer);
  }

  /** Close the sending side, which ends the stream; resolve once the daemon has ended its side, or after `ms`. */
  async finish(ms: number): Promise<void> {
    const socket = this.request?.socket;
    if (socket && !socket.destroyed) {
      this.giveUpAfter(0);
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        timer = setTimeout(resolve, ms);
        socket.once("close", () => resolve());
        socket.end();
      });
      clearTimeout(timer);
    }
    this.close();
  }

  /** Leave the connection open when the signal aborts from now on. */
  ignoreSignal(): void {
    this.signal?.removeEventListener("abort", this.abort);
  }

  close(): void {
    this.ignoreSignal();
    this.request?.destroy();
    this.wake?.();
  }
}

/** Parse the data of an event, which is JSON. */
export function dataOf({ data }: ServerEvent): any {
  try {
    return JSON.parse(data);
  } catch {
    throw new StoreError("cannot read an event: it is not JSON", "internal");
  }
}

/** Iterate over the events as they arrive; throw the outcome when the connection ends. */
async function* eventsOf(response: http.IncomingMessage): AsyncGenerator<ServerEvent, never, void> {
  const parser = new EventParser();
  for await (const text of textOf(response)) yield* parser.feed(text);
  throw new ConnectionLost();
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
