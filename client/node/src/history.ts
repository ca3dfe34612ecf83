import type { Target } from "./context.js";
import { InvalidRequestError } from "./errors.js";
import { refuseUnknown } from "./preconditions.js";
import { type BucketRequest, request } from "./request.js";
import type { HistoryEntry, HistoryOptions } from "./types.js";

const [DEFAULT_LIMIT, MAX_PAGE] = [50, 1000];

/** Read the changes of a bucket, page by page, until there are as many as asked for. */
export async function history(target: Target, options: HistoryOptions = {}, timeout?: number): Promise<HistoryEntry[]> {
  const verb = "read the history";
  refuseUnknown(options, verb, ["limit", "values"], "{ limit: 10 }");
  const { limit = DEFAULT_LIMIT, values = false } = options;
  const entries: HistoryEntry[] = [];
  const wanted = limit === null ? Infinity : wholeNumber(limit, `${verb}: limit`);
  const path = `${target.path}/history`;
  for (let cursor: string | null | undefined; cursor !== null && entries.length < wanted; ) {
    const query = [`limit=${Math.min(MAX_PAGE, wanted - entries.length)}`];
    if (values) query.push("values=true");
    if (cursor !== undefined) query.push(`cursor=${cursor}`);
    const { body } = await request(target, { method: "GET", path, query }, timeout);
    entries.push(...body.history);
    cursor = body.next_cursor;
  }
  return entries;
}

/** Return the request that takes a change back, the last one without a revision. */
export function undoing(target: Target, revision: number | undefined): BucketRequest {
  const body = revision === undefined ? "{}" : JSON.stringify({ revision: wholeNumber(revision, "undo: revision") });
  return { method: "POST", path: `${target.path}/undo`, body };
}

/** Return the request for the bucket as it was after a change. */
export function readingAt(revision: number): BucketRequest {
  return { method: "GET", query: [`revision=${wholeNumber(revision, "read the bucket: revision")}`] };
}

function wholeNumber(value: unknown, what: string): number {
  if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
  throw new InvalidRequestError(`cannot ${what} must be a whole number from 1`);
}
