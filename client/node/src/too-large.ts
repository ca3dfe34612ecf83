import { BucketError, TooLargeError } from "./errors.js";

const LARGEST_SHOWN = 3;

/** Return a refusal with the largest keys of the body, which the daemon has refused without reading it. */
export function withLargestKeys(error: unknown, body: string | undefined): unknown {
  if (!(error instanceof TooLargeError) || error.details || !error.message.includes("request body") || !body?.startsWith("{")) return error;
  const sizes = Object.entries(JSON.parse(body)).map(([key, value]) => ({ key, bytes: Buffer.byteLength(JSON.stringify(value)) }));
  const details = sizes.sort((one, other) => other.bytes - one.bytes).slice(0, LARGEST_SHOWN);
  const shown = details.map(({ key, bytes }) => `${JSON.stringify(key.slice(0, 40))} (${bytes} bytes)`);
  const { status, requestId } = error as BucketError;
  const message = `${error.message}; its largest keys: ${shown.join(", ")}`;
  return new TooLargeError(message, error.code, { status, details, ...(requestId !== undefined && { requestId }) });
}
