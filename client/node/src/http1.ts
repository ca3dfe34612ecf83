/** One request; `path` is percent-encoded, `body` is JSON. */
export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
}

export interface HttpResponse {
  readonly status: number;
  /** Return the value of a header field by its name in lower case. */
  header(name: string): string | undefined;
  readonly text: string;
}

/** The bytes are not an HTTP/1.1 response. */
export class MalformedResponse extends Error {}

const MAX_HEAD_BYTES = 16 * 1024;
const HEAD_END = Buffer.from("\r\n\r\n");
const EMPTY: Buffer = Buffer.alloc(0);
const PROTOCOL = "HTTP/1.";
// Field names are tokens, and no field continues on a second line.
const HEAD = /^HTTP\/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\0]*)*$/;
const CHUNK_SIZE = /^([0-9a-fA-F]{1,12})[ \t]*(?:;[^\r\n\0]*)?$/;

/** The framing of a body: its length in bytes, chunks, or the end of the connection. */
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
 * Throws MalformedResponse, after which the connection is not usable.
 */
export class ResponseReader {
  private head: Head | undefined;
  private framing: Framing = "close";
  /** The received bytes of an incomplete head or chunk. */
  private rest = EMPTY;
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
      const head = new Head(data.toString("latin1", 0, end));
      data = data.subarray(end + HEAD_END.length);
      // An interim response precedes the final one.
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
    this.framing = head.framing;
    this.rest = EMPTY;
  }

  private takeBytes(data: Buffer): HttpResponse | undefined {
    const missing = this.framing === "close" ? Infinity : (this.framing as number) - this.bodyBytes;
    if (data.length < missing) {
      this.collect(Buffer.from(data));
      return undefined;
    }
    this.collect(data.subarray(0, missing));
    // Bytes after the response belong to no request; `keepAlive` is false if there are any.
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
    const head = this.head!;
    const bytes = this.body.length === 1 ? this.body[0]! : Buffer.concat(this.body);
    return { status: head.status, header: (name) => head.get(name), text: bytes.toString("utf8") };
  }
}

/** Refuse bytes that cannot become a head, without waiting for their end. */
function refuseOtherProtocols(data: Buffer): void {
  const start = data.toString("latin1", 0, PROTOCOL.length);
  if (!PROTOCOL.startsWith(start) || data.length > MAX_HEAD_BYTES) throw new MalformedResponse();
}

/** The status line and header fields of a response. */
class Head {
  readonly status: number;
  readonly keepAlive: boolean;
  /** How the body ends. */
  readonly framing: Framing;
  private readonly names: string;

  constructor(private readonly text: string) {
    const found = HEAD.exec(text);
    if (!found) throw new MalformedResponse();
    this.names = text.toLowerCase();
    this.status = Number(found[2]);
    // The client never asks for another protocol.
    if (this.status === 101) throw new MalformedResponse();
    const connection = this.get("connection") ?? "";
    this.keepAlive = found[1] === "1" ? !/\bclose\b/i.test(connection) : /\bkeep-alive\b/i.test(connection);
    this.framing = this.findFraming();
  }

  /** Return the value of the field with this name, which is in lower case; several are joined. */
  get(name: string): string | undefined {
    const start = `\r\n${name}:`;
    let found: string | undefined;
    for (let at = this.names.indexOf(start); at >= 0; at = this.names.indexOf(start, at + start.length)) {
      const end = this.text.indexOf("\r\n", at + start.length);
      const value = this.text.slice(at + start.length, end < 0 ? undefined : end).trim();
      found = found === undefined ? value : `${found}, ${value}`;
    }
    return found;
  }

  private findFraming(): Framing {
    if (this.status < 200 || this.status === 204 || this.status === 304) return 0;
    const [coding, length] = [this.get("transfer-encoding"), this.get("content-length")];
    if (coding !== undefined) {
      // With two framings at once, one response can be smuggled into another.
      if (coding.toLowerCase() !== "chunked" || length !== undefined) throw new MalformedResponse();
      return "chunked";
    }
    if (length === undefined) return "close";
    // The same length may be repeated.
    const found = /^([0-9]{1,15})(?:, \1)*$/.exec(length);
    if (!found) throw new MalformedResponse();
    return Number(found[1]);
  }
}

function parseChunkSize(line: string): number {
  const found = CHUNK_SIZE.exec(line);
  if (!found) throw new MalformedResponse();
  return Number.parseInt(found[1]!, 16);
}
