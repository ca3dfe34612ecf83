/** One request; `path` is percent-encoded, `body` is JSON. */
export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
}

/** A response; header names are in lower case. */
export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly text: string;
}

/** The bytes are not an HTTP/1.1 response. */
export class MalformedResponse extends Error {}

const MAX_HEAD_BYTES = 16 * 1024;
const HEAD_END = Buffer.from("\r\n\r\n");
const PROTOCOL = "HTTP/1.";
const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?$/;
const FIELD = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*$/;
const CHUNK_SIZE = /^([0-9a-fA-F]{1,12})[ \t]*(?:;[^\r\n\0]*)?$/;

interface Head {
  readonly status: number;
  readonly headers: Record<string, string | undefined>;
  readonly keepAlive: boolean;
}

/** How a body ends: after so many bytes, after its last chunk, or with the connection. */
type Framing = number | "chunked" | "close";

/** Return the request as it is sent, in one piece. */
export function serialize({ method, path, headers, body }: HttpRequest): string {
  let text = `${method} ${path} HTTP/1.1\r\nHost: localhost\r\n`;
  for (const name in headers) text += `${name}: ${headers[name]}\r\n`;
  if (body === undefined) return `${text}\r\n`;
  return `${text}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

/**
 * Reads one response (RFC 9112) from chunks of bytes, which may be overwritten after each call.
 * Throws MalformedResponse; the connection is then of no further use.
 */
export class ResponseReader {
  private head: Head | undefined;
  private framing: Framing = "close";
  /** Received bytes that do not make a whole head or chunk yet. */
  private rest: Buffer = Buffer.alloc(0);
  private readonly body: Buffer[] = [];
  private bodyBytes = 0;

  /** Report whether any byte of the response has arrived. */
  get hasBegun(): boolean {
    return this.head !== undefined || this.rest.length > 0;
  }

  /** Report whether the connection can carry another request after this response. */
  get keepAlive(): boolean {
    return this.head!.keepAlive && this.framing !== "close" && this.rest.length === 0;
  }

  /** Take the next bytes; return the response once it is complete. */
  feed(bytes: Buffer): HttpResponse | undefined {
    let data = this.rest.length > 0 ? Buffer.concat([this.rest, bytes]) : bytes;
    while (!this.head) {
      const end = data.indexOf(HEAD_END);
      if (end < 0 || end > MAX_HEAD_BYTES) {
        refuseOtherProtocols(data);
        this.rest = Buffer.from(data);
        return undefined;
      }
      const head = parseHead(data.toString("latin1", 0, end));
      data = data.subarray(end + HEAD_END.length);
      // An interim response announces the final one.
      if (head.status >= 200) this.begin(head);
    }
    return this.framing === "chunked" ? this.takeChunks(data) : this.takeBytes(data);
  }

  /** Return the response that the end of the connection completes, if it does. */
  end(): HttpResponse | undefined {
    return this.head && this.framing === "close" ? this.complete() : undefined;
  }

  private begin(head: Head): void {
    this.head = head;
    this.framing = framingOf(head);
    this.rest = Buffer.alloc(0);
  }

  private takeBytes(data: Buffer): HttpResponse | undefined {
    const missing = this.framing === "close" ? Infinity : (this.framing as number) - this.bodyBytes;
    if (data.length < missing) {
      this.collect(Buffer.from(data));
      return undefined;
    }
    this.collect(data.subarray(0, missing));
    // Bytes after the response belong to no request; `keepAlive` tells that they exist.
    this.rest = data.subarray(missing);
    return this.complete();
  }

  private takeChunks(data: Buffer): HttpResponse | undefined {
    let at = 0;
    for (;;) {
      const end = data.indexOf("\r\n", at);
      if (end < 0) break;
      const size = parseChunkSize(data.toString("latin1", at, end));
      const next = end + 2 + size + 2;
      if (size === 0) {
        // Without trailers the line end of the last chunk begins the end of the message.
        const trailerEnd = data.indexOf(HEAD_END, end);
        if (trailerEnd < 0) break;
        this.rest = data.subarray(trailerEnd + HEAD_END.length);
        return this.complete();
      }
      if (data.length < next) break;
      if (data.toString("latin1", next - 2, next) !== "\r\n") throw new MalformedResponse();
      this.collect(Buffer.from(data.subarray(end + 2, next - 2)));
      at = next;
    }
    if (data.length - at > MAX_HEAD_BYTES && data.indexOf("\r\n", at) < 0) throw new MalformedResponse();
    this.rest = Buffer.from(data.subarray(at));
    return undefined;
  }

  private collect(bytes: Buffer): void {
    this.body.push(bytes);
    this.bodyBytes += bytes.length;
  }

  private complete(): HttpResponse {
    const { status, headers } = this.head!;
    const bytes = this.body.length === 1 ? this.body[0]! : Buffer.concat(this.body);
    return { status, headers, text: bytes.toString("utf8") };
  }
}

/** Refuse bytes that cannot become a head, without waiting for their end. */
function refuseOtherProtocols(data: Buffer): void {
  const start = data.toString("latin1", 0, PROTOCOL.length);
  if (!PROTOCOL.startsWith(start) || data.length > MAX_HEAD_BYTES) throw new MalformedResponse();
}

function parseHead(text: string): Head {
  const [statusLine, ...lines] = text.split("\r\n");
  const found = STATUS_LINE.exec(statusLine!);
  if (!found) throw new MalformedResponse();
  const headers: Head["headers"] = Object.create(null);
  for (const line of lines) {
    const field = FIELD.exec(line);
    if (!field) throw new MalformedResponse();
    addField(headers, field[1]!.toLowerCase(), field[2]!);
  }
  const status = Number(found[2]);
  // The client never asks for another protocol.
  if (status === 101) throw new MalformedResponse();
  const connection = headers.connection?.toLowerCase() ?? "";
  const keepAlive = found[1] === "1" ? !/\bclose\b/.test(connection) : /\bkeep-alive\b/.test(connection);
  return { status, headers, keepAlive };
}

function addField(headers: Head["headers"], name: string, value: string): void {
  const before = headers[name];
  if (name === "content-length" && before !== undefined && before !== value) throw new MalformedResponse();
  if (before === undefined) headers[name] = value;
  else if (name === "transfer-encoding" || name === "connection") headers[name] = `${before}, ${value}`;
}

function framingOf({ status, headers }: Head): Framing {
  if (status === 204 || status === 304) return 0;
  const [coding, length] = [headers["transfer-encoding"], headers["content-length"]];
  if (coding !== undefined) {
    // Two framings at once are how a response is smuggled into another.
    if (coding.toLowerCase() !== "chunked" || length !== undefined) throw new MalformedResponse();
    return "chunked";
  }
  if (length === undefined) return "close";
  if (!/^[0-9]{1,15}$/.test(length)) throw new MalformedResponse();
  return Number(length);
}

function parseChunkSize(line: string): number {
  const found = CHUNK_SIZE.exec(line);
  if (!found) throw new MalformedResponse();
  return Number.parseInt(found[1]!, 16);
}
