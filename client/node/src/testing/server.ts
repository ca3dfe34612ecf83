import { mkdtempSync, rmSync } from "node:fs";
import * as http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "../clock.js";
import { STATUS } from "../codes.js";
import { BucketError } from "../errors.js";
import { nameOfError } from "../json.js";
import { fits, MAX_SOCKET_PATH_BYTES } from "../socket-path.js";
import type { Detail } from "../types.js";
import { StoredBucket } from "./stored-bucket.js";
import type { Stream } from "./events.js";
import type { HoldStream } from "./holds.js";
import { type Request, type Response, handle } from "./routes.js";
import { State } from "./state.js";

const RETRY_AFTER: Readonly<Record<string, string>> = {
  too_many_requests: "1", overloaded: "1", shutting_down: "1", read_only: "5",
};

const SOCKET_NAME = "bucketd.sock";
/** A stream with more unread bytes than this is closed. */
const MAX_UNREAD_BYTES = 8 * 1024 * 1024;

export interface ServerOptions {
  /** Maximum size of each bucket's compact JSON; 1 MiB. */
  maxBytes?: number;
}

/**
 * A small bucketd on a unix socket, with everything in memory: what an automation itself asks for.
 * It has buckets, their events, contexts and holds; the daemon alone has schemas, lists and history.
 */
export class Server {
  /** The path of the socket, for BUCKETD_SOCKET. */
  readonly socket: string;
  private readonly home = makeHome();
  private readonly state: State;
  private readonly refusals: BucketError[] = [];
  private http: http.Server | undefined;

  constructor({ maxBytes = 1024 * 1024 }: ServerOptions = {}) {
    this.socket = join(this.home, SOCKET_NAME);
    this.state = new State(maxBytes);
  }

  /** Serve, with the buckets stored before. */
  async start(): Promise<void> {
    const server = http.createServer({ keepAliveTimeout: 0 }, (request, response) => void this.serve(request, response));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.socket, resolve);
    });
    server.unref();
    this.http = server;
    this.state.serving = true;
    this.state.holds.resume();
  }

  /** Stop serving until `start`, as during a restart of the daemon; nothing is forgotten. */
  async stop(): Promise<void> {
    const server = this.http;
    this.http = undefined;
    if (!server) return;
    this.state.serving = false;
    this.state.holds.suspend();
    this.state.wake();
    const closed = new Promise((resolve) => server.close(resolve));
    // Streams send their last events in the next turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
    server.closeAllConnections();
    await closed;
  }

  /** Stop, and remove the socket's directory. */
  async close(): Promise<void> {
    await this.stop();
    rmSync(this.home, { recursive: true, force: true });
  }

  /**
   * Return the bucket of this device and job, or without a job the device bucket, with a token for
   * it; `label` is that of the token's context.
   */
  bucket(device: string, job: string | null = null, { label = null }: { label?: string | null } = {}): StoredBucket {
    return new StoredBucket(this.state, this.socket, { device, job }, label);
  }

  /** Refuse the next calls on buckets with this code, such as `storage_full`. */
  refuse(code: string, { times = 1, message, details }: { times?: number; message?: string; details?: Detail[] } = {}): void {
    if (!Object.hasOwn(STATUS, code)) {
      throw new Error(`cannot refuse with ${code}: it must be one of ${Object.keys(STATUS).join(", ")}`);
    }
    const error = message ?? `cannot use the bucket: ${code}, as the test wants it`;
    for (let n = 0; n < times; n++) this.refusals.push(new BucketError(error, code, details ? { details } : {}));
  }

  private async serve(incoming: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    incoming.on("error", () => response.destroy());
    try {
      const body = await bodyOf(incoming, this.state.maxBytes);
      const { method, url, headers } = incoming;
      const request = { method: method!, target: url!, headers, body };
      const result = this.respond(request);
      if (result.later) answerLater(response, result.later);
      else if (result.stream) stream(response, result.stream, incoming.method === "HEAD");
      else send(response, result);
    } catch (error) {
      refuse(response, error instanceof BucketError ? error : unexpected(error));
    }
  }

  private respond(request: Request): Response {
    const refusal = /\/bucket(?:\?|$)/.test(request.target) ? this.refusals.shift() : undefined;
    if (refusal) throw refusal;
    return handle(this.state, request);
  }
}

/** Make a directory for the socket: in TMPDIR, or in /tmp where the path would be too long there. */
function makeHome(): string {
  const base = [tmpdir(), "/tmp"].find((directory) => fits(join(directory, "bucketd-XXXXXX", SOCKET_NAME)));
  if (base !== undefined) return mkdtempSync(join(base, "bucketd-"));
  throw new Error(
    `cannot make a socket below ${tmpdir()}: its path would be longer than ${MAX_SOCKET_PATH_BYTES} bytes; set TMPDIR to a shorter directory`,
  );
}

/** Return the refusal for a failure of the server itself; the text of the failure might hold a value. */
function unexpected(error: unknown): BucketError {
  return new BucketError(`cannot serve the request: unexpected ${nameOfError(error)}`, "internal");
}

/** Read the whole body; refuse one over `maxBytes`, and read the rest of it so that its sender gets the response. */
async function bodyOf(incoming: http.IncomingMessage, maxBytes: number): Promise<Buffer> {
  let [size, chunks]: [number, Buffer[]] = [0, []];
  for await (const chunk of incoming) {
    size += chunk.length;
    if (size <= maxBytes) chunks.push(chunk);
  }
  if (size <= maxBytes) return Buffer.concat(chunks);
  throw new BucketError(`cannot read the request body: it has ${size} bytes, allowed are ${maxBytes}`, "too_large");
}

function refuse(response: http.ServerResponse, { message, code, details, revision }: BucketError): void {
  const later = RETRY_AFTER[code];
  if (later !== undefined) response.setHeader("Retry-After", later);
  const text = JSON.stringify({ success: false, error: message, code, details, revision });
  send(response, { status: statusOf(code), text });
}

function send(response: http.ServerResponse, { status, text, etag = null, preference }: Response): void {
  response.setHeader("Cache-Control", "no-store").setHeader("Server", "bucketd");
  if (etag !== null) response.setHeader("ETag", `"${etag}"`);
  if (preference !== undefined) response.setHeader("Preference-Applied", preference);
  if (text !== null) {
    response.setHeader("Content-Type", "application/json");
    response.setHeader("Content-Length", Buffer.byteLength(text));
  }
  response.writeHead(status).end(text ?? undefined);
}

/** Answer with a stream or a refusal once there is one, unless the client has gone. */
function answerLater(response: http.ServerResponse, later: NonNullable<Response["later"]>): void {
  const leave = later((outcome) => {
    if (outcome instanceof BucketError) refuse(response, outcome);
    else stream(response, outcome, false);
  });
  response.once("close", leave);
}

/** Send events until either side closes; drop a client that does not read. */
function stream(response: http.ServerResponse, from: Stream | HoldStream, onlyHead: boolean): void {
  response.setHeader("Cache-Control", "no-store").setHeader("Server", "bucketd");
  response.setHeader("Content-Type", "text/event-stream").setHeader("Connection", "close");
  // Without chunks the end of the connection ends the stream.
  response.removeHeader("Transfer-Encoding");
  response.writeHead(200);
  if (onlyHead) return void response.end();
  const push = (text: string) => {
    if (response.writableLength > MAX_UNREAD_BYTES) response.destroy();
    else response.write(text);
  };
  response.once("close", from.start(push, () => response.end()));
}

function statusOf(code: string): number {
  return (STATUS as Readonly<Record<string, number>>)[code] ?? 500;
}
