/** One bucket, read and written with its ETag. */

import { call, Refused, send, type Reply } from "./api.js";
import { parse, type Json, type JsonObject, isObject } from "./json.js";
import { bucketPath, type BucketName } from "./snippets.js";

export interface BucketState {
  bucket: JsonObject;
  revision: number;
  /** The ETag of the whole bucket, null if none is stored. */
  etag: string | null;
  recoveredFrom: { revision: number; reason: string } | null;
}

export interface HistoryEntry {
  revision: number;
  at: string;
  etag: string;
  by: Record<string, string | boolean>;
  set: string[];
  removed: string[];
  undoes?: number;
}

/** Read a bucket, its secrets masked unless they are `revealed`. Throw Refused. */
export async function readBucket(name: BucketName, revealed = false): Promise<BucketState> {
  const path = bucketPath(name);
  // The masked form has an ETag of its own. If the bucket changes between these two requests, the
  // first ETag is too old, and a write is refused rather than made upon a state nobody saw.
  const head = await send("HEAD", path);
  // Of a refusal the words come with the second request.
  const etag = head.ok ? head.headers.get("ETag") : null;
  const reply = await call("GET", revealed ? path : `${path}?mask=secrets`);
  const recovered = reply.members.recovered_from as BucketState["recoveredFrom"] | undefined;
  return {
    bucket: bucketOf(reply),
    revision: reply.members.revision as number,
    etag,
    recoveredFrom: recovered ?? null,
  };
}

/** Return the bucket of a response without loss. */
function bucketOf(reply: Reply): JsonObject {
  const whole = parse(reply.text);
  const found = isObject(whole) ? (whole.get("bucket") ?? whole.get("deviceBucket")) : undefined;
  return isObject(found) ? found : new Map();
}

/** Return the real value of one key. Throw Refused. */
export async function revealKey(name: BucketName, key: string, revision?: number): Promise<Json | undefined> {
  const past = revision === undefined ? "" : `&revision=${revision}`;
  const query = `?key=${encodeURIComponent(key)}${past}`;
  return bucketOf(await call("GET", bucketPath(name) + query)).get(key);
}

/** Change a bucket by a JSON Patch, if it still has this ETag. Throw Refused. */
export async function patchBucket(
  name: BucketName,
  patch: string,
  etag: string | null,
  automation: string | null,
): Promise<void> {
  const guard: Record<string, string> =
    etag === null ? { "If-None-Match": "*" } : { "If-Match": etag };
  const query =
    name.job !== null && automation !== null ? `?automation=${encodeURIComponent(automation)}` : "";
  await call("PATCH", bucketPath(name) + query, {
    body: patch,
    headers: { "Content-Type": "application/json-patch+json", Prefer: "return=minimal", ...guard },
  });
}

export async function deleteBucket(name: BucketName, etag: string | null): Promise<void> {
  const headers: Record<string, string> = etag === null ? {} : { "If-Match": etag };
  await call("DELETE", bucketPath(name), { headers });
}

/** Return a page of the history, newest first; null where the daemon keeps none. Throw Refused. */
export async function readHistory(
  name: BucketName,
  cursor: string | null,
): Promise<{ entries: HistoryEntry[]; next: string | null } | null> {
  const rest = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
  try {
    const { members } = await call("GET", `${bucketPath(name).replace(/bucket$/, "bucket/history")}?limit=200${rest}`);
    return {
      entries: members.history as HistoryEntry[],
      next: members.next_cursor as string | null,
    };
  } catch (problem) {
    if (problem instanceof Refused && problem.code === "not_found") return null;
    throw problem;
  }
}

/** Return the bucket as it was at a revision. Throw Refused: 410 if it is no longer kept. */
export async function readRevision(name: BucketName, revision: number): Promise<JsonObject> {
  return bucketOf(await call("GET", `${bucketPath(name)}?revision=${revision}&mask=secrets`));
}

/** Take one change back. Throw Refused: 409 names the keys that later changes have touched. */
export async function undo(name: BucketName, revision: number): Promise<void> {
  const path = bucketPath(name).replace(/bucket$/, "bucket/undo");
  const headers = { Prefer: "return=minimal" };
  await call("POST", path, { body: JSON.stringify({ revision }), headers });
}
