import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import * as http from "node:http";
import type { Duplex } from "node:stream";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "../clock.js";
import { BucketError } from "../errors.js";
import { nameOfError } from "../json.js";
import { fits, MAX_SOCKET_PATH_BYTES } from "../socket-path.js";
import type { Detail } from "../types.js";
import { StoredBucket } from "./stored-bucket.js";
import type { Stream } from "./events.js";
import type { HoldStream } from "./holds.js";
import { headersOf, MAX_NODE_BYTES } from "./head.js";
import { Request } from "./requests.js";
import { type Response, handle } from "./routes.js";
import { State } from "./state.js";

const STATUS: Readonly<Record<string, number>> = {
  invalid_json: 400, invalid_request: 400, no_job_context: 401, forbidden: 403, not_found: 404,
  method_not_allowed: 405, not_acceptable: 406, request_timeout: 408, patch_failed: 409,
  precondition_failed: 412, hold_lost: 412, too_large: 413, unsupported_media_type: 415,
  schema_violation: 422, held: 423, too_many_requests: 429, internal: 500, bucket_corrupt: 500, overloaded: 503, shutting_down: 503,
  read_only: 503, storage_full: 507,
};
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
 * bucketd's protocol on a unix socket, with everything in memory: buckets, their events, contexts
 * and lists, with the daemon's rules and limits. It has no schemas, files, export or metrics.
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
    const options = { keepAliveTimeout: 0, maxHeaderSize: MAX_NODE_BYTES, requireHostHeader: false };
    const server = http.createServer(options as object);
    // Without a limit of Node's, which drops headers in silence.
    server.maxHeadersCount = 0;
    for (const event of ["request", "checkExpectation"]) {
      server.on(event, (request, response) => void this.serve(request, response));
    }
    server.on("clientError", (error, socket) => refuseRaw(error, socket));
    server.on("connect", (_request, socket) => refuseRaw(new Error("it asks for a tunnel"), socket));
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
      // After a request that cannot be read the connection is of no use.
      response.setHeader("Connection", "close");
      const body = await bodyOf(incoming, this.state.maxBytes);
      const headers = headersOf(incoming);
      if (!(body instanceof BucketError)) response.removeHeader("Connection");
      const request = new Request(incoming.method!, incoming.url!, headers, body);
      const result = this.respond(request);
      if (result.later) answerLater(response, result.later);
      else if (result.stream) stream(response, result.stream, incoming.method === "HEAD");
      else send(response, result);
    } catch (error) {
      refuse(response, error instanceof BucketError ? error : unexpected(error));
    }
  }

  private respond(request: Request): Response {
    const refusal = request.path.endsWith("/bucket") ? this.refusals.shift() : undefined;
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

/** Read the whole body; return the refusal, leaving the rest unread, if it is longer than `maxBytes`. */
async function bodyOf(incoming: http.IncomingMessage, maxBytes: number): Promise<Buffer | BucketError> {
  const cause = `it has over ${maxBytes} bytes, allowed are ${maxBytes}`;
  const tooLarge = new BucketError(`cannot read the request body: ${cause}`, "too_large");
  if (Number(incoming.headers["content-length"] ?? 0) > maxBytes) return tooLarge;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of incoming.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > maxBytes) return tooLarge;
  }
  return Buffer.concat(chunks);
}

function refuse(response: http.ServerResponse, { message, code, details, revision }: BucketError): void {
  response.setHeader("X-Request-Id", randomBytes(6).toString("hex"));
  const later = RETRY_AFTER[code];
  if (later !== undefined) response.setHeader("Retry-After", later);
  if (code === "no_job_context") response.setHeader("WWW-Authenticate", "Bearer");
  if (code === "method_not_allowed") response.setHeader("Allow", message.split("it takes ").at(-1)!);
  const text = JSON.stringify({ success: false, error: message, code, details, revision });
  send(response, { status: STATUS[code] ?? 500, text });
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

/** Refuse bytes that are not HTTP/1.1; the words of Node's parser repeat nothing of what was sent. */
function refuseRaw(error: NodeJS.ErrnoException & { reason?: string }, socket: Duplex): void {
  const ended = error.code === "HPE_INVALID_EOF_STATE";
  const cause = ended ? ": it ended before it was complete" : ` as HTTP/1.1: ${error.reason ?? error.message}`;
  const text = JSON.stringify({ success: false, error: `cannot read the request${cause}`, code: "invalid_request" });
  const head = [
    "HTTP/1.1 400 Bad Request",
    ...["Content-Type: application/json", "Cache-Control: no-store", "Server: bucketd"],
    ...[`Content-Length: ${Buffer.byteLength(text)}`, "Connection: close"],
  ];
  if (socket.writable) socket.end(`${head.join("\r\n")}\r\n\r\n${text}`);
}
