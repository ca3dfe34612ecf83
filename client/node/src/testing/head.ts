import type { IncomingMessage } from "node:http";
import { InvalidRequestError } from "../errors.js";

/** The daemon's limits: of a target and of all headers, of one header, and of their number. */
const [MAX_HEAD_BYTES, MAX_FIELD_BYTES, MAX_FIELDS] = [32 * 1024, 8190, 128];
/** What Node reads at all, so that the limits above decide. */
export const MAX_NODE_BYTES = 128 * 1024;
const TARGET = /^(?:\/|[a-z]+:\/\/(?:[^\][/?#:@]+|\[[0-9a-f:.]+\])(?::[0-9]*)?(?:[/?#]|$))[\x21-\x7e]*$/i;
/** RFC 9110: with a second one of these it is not clear what a request means. */
const ONCE = new Set([
  "content-length", "content-location", "content-range", "content-type", "etag", "host",
  "max-forwards", "server", "transfer-encoding", "user-agent",
]);

export type Headers = ReadonlyMap<string, readonly string[]>;

/** Return all values of each header, by its name in lower case; refuse a head that Node takes and the daemon does not. */
export function headersOf({ httpVersion, rawHeaders, url }: IncomingMessage): Headers {
  if (httpVersion !== "1.1" && httpVersion !== "1.0") {
    throw new InvalidRequestError("cannot answer: this server speaks HTTP/1.1; ask in that");
  }
  if (url!.length > MAX_HEAD_BYTES) throw malformed("a line of it is too long");
  if (!TARGET.test(url!)) throw malformed("its target is malformed");
  checkSizes(rawHeaders);
  const headers = new Map<string, string[]>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase();
    if (ONCE.has(name) && headers.has(name)) throw malformed("a header is there twice");
    const value = Buffer.from(rawHeaders[at + 1]!, "latin1").toString();
    headers.set(name, [...(headers.get(name) ?? []), value]);
  }
  if (httpVersion === "1.1" && !headers.has("host")) throw malformed("it has no Host");
  return headers;
}

function checkSizes(rawHeaders: readonly string[]): void {
  let [size, largest] = [0, 0];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const length = rawHeaders[at]!.length + rawHeaders[at + 1]!.length;
    [size, largest] = [size + length, Math.max(largest, length)];
  }
  if (size <= MAX_HEAD_BYTES && largest <= MAX_FIELD_BYTES && rawHeaders.length <= 2 * MAX_FIELDS) return;
  throw new InvalidRequestError(
    `cannot read the headers: they have over ${MAX_HEAD_BYTES} bytes, ` +
      `one has over ${MAX_FIELD_BYTES}, or there are over ${MAX_FIELDS}`,
  );
}

function malformed(cause: string): InvalidRequestError {
  return new InvalidRequestError(`cannot read the request as HTTP/1.1: ${cause}`);
}
