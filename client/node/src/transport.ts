import * as http from "node:http";
import type { Socket } from "node:net";
import { StoreError } from "./errors.js";

/** One request; `path` is percent-encoded, `body` is JSON. */
export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

/** The daemon certainly did not receive the whole request. `reason` is the system's error. */
export class NotSent extends Error {
  constructor(readonly reason: NodeJS.ErrnoException) {
    super(reason.message);
  }
}

/** The connection ended after the request and before its response was complete. */
export class ConnectionLost extends Error {}

/** No complete response in the given time. Unless the whole request was `sent`, nobody acted on it. */
export class TimedOut extends Error {
  constructor(readonly sent: boolean) {
    super();
  }
}

class KeptConnections extends http.Agent {
  override createConnection(
    ...args: Parameters<http.Agent["createConnection"]>
  ): ReturnType<http.Agent["createConnection"]> {
    const socket = super.createConnection(...args) as Socket;
    // A connection whose other end is closed must leave the pool at once, not after the
    // shutdown of its own end, or the next request would be given it.
    socket.once("end", () => socket.destroy());
    return socket;
  }
}

// Idle connections of an http.Agent are unref'd: they keep no process alive.
const kept = new KeptConnections({ keepAlive: true, maxSockets: 16, maxFreeSockets: 16 });

/** Send one request over a kept connection and read its whole response, within `ms`. */
export async function exchange(socketPath: string, request: HttpRequest, ms: number): Promise<HttpResponse> {
  await seeClosedConnections();
  return new Promise((resolve, reject) => {
    const { method, path } = request;
    const outgoing = http.request({ agent: kept, socketPath, method, path, headers: headersOf(request) });
    const timer = setTimeout(() => {
      reject(new TimedOut(outgoing.writableFinished));
      outgoing.destroy();
    }, ms);
    let hasResponse = false;
    outgoing.once("response", (response) => {
      hasResponse = true;
      readResponse(response).then(resolve, reject);
    });
    outgoing.on("error", (error) => {
      // Once the response has begun it alone decides: a daemon that refuses a large body
      // answers and closes, and the rest of the body then fails to be written.
      if (!hasResponse || isNoHttp(error)) reject(classify(error));
    });
    outgoing.once("close", () => clearTimeout(timer));
    outgoing.end(request.body);
  });
}

/**
 * Let the event loop poll once. A connection that the daemon closed while this process was
 * busy or idle is known to the kernel, but to Node only after a poll; the first turn may
 * resume behind the poll that has just been made, the second cannot.
 */
async function seeClosedConnections(): Promise<void> {
  if (Object.keys(kept.freeSockets).length === 0) return;
  await new Promise((turn) => setImmediate(turn));
  await new Promise((turn) => setImmediate(turn));
}

export function bearer(token: string | undefined): Record<string, string> {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function headersOf(request: HttpRequest): Record<string, string> {
  const length: Record<string, string> =
    request.body === undefined ? {} : { "Content-Length": String(Buffer.byteLength(request.body)) };
  return { Accept: "application/json", ...request.headers, ...length };
}

/** The whole response, as text. */
export function readResponse(response: http.IncomingMessage): Promise<HttpResponse> {
  const chunks: Buffer[] = [];
  response.on("data", (chunk: Buffer) => chunks.push(chunk));
  response.on("error", () => undefined); // "close" follows, and `complete` tells the outcome
  return new Promise((resolve, reject) => {
    response.once("close", () => {
      if (!response.complete) return reject(new ConnectionLost());
      const text = Buffer.concat(chunks).toString("utf8");
      return resolve({ status: response.statusCode ?? 0, headers: response.headers, text });
    });
  });
}

function isNoHttp(error: NodeJS.ErrnoException): boolean {
  return error.code?.startsWith("HPE_") ?? false; // of Node's own parser
}

/**
 * What an error before any response means. On a unix socket the system reports EPIPE when the
 * other end was closed before the request was written whole, and ECONNRESET when it was
 * closed with a part of the request unread: either way nobody has the whole request. An
 * orderly end (Node's "socket hang up", which has no `syscall`) leaves the outcome open.
 */
export function classify(error: NodeJS.ErrnoException): Error {
  if (isNoHttp(error)) {
    return new StoreError("cannot read the response: it is not HTTP, so not from bucketd; does BUCKETD_SOCKET name its socket?", "internal");
  }
  if (error.syscall === "connect" || error.code === "EPIPE") return new NotSent(error);
  if (error.code === "ECONNRESET" && error.syscall) return new NotSent(error);
  return new ConnectionLost();
}
