import type { IncomingHttpHeaders } from "node:http";
import { BucketError, ForbiddenError, NoJobContextError, NotFoundError } from "../errors.js";
import { type Change, jsonPatch, merge, mergePatch, remove, replace } from "./changes.js";
import { Stream } from "./events.js";
import type { Answer, HoldStream } from "./holds.js";
import { asObject, type Json, type JsonObject, parseJson, parseObject, write } from "./json.js";
import { type Context, HOW_TO_START, type Key, nameFor, type State, type Stored } from "./state.js";

/** A response; `text` is its body, null when it has none. */
export interface Response {
  readonly status: number;
  readonly text: string | null;
  readonly etag?: string | null;
  /** The preference of the request that the response honours (RFC 7240). */
  readonly preference?: string;
  readonly stream?: Stream | HoldStream;
  /** Answer later, in the place of this response; returns what to call when the client has gone. */
  readonly later?: (answer: Answer) => () => void;
}

export interface Request {
  readonly method: string;
  readonly target: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Uint8Array;
}

const PATCHES: Readonly<Record<string, (data: Json) => Change>> = {
  "application/json": (data) => merge(asObject(data)),
  "application/merge-patch+json": (data) => mergePatch(asObject(data)),
  "application/json-patch+json": jsonPatch,
};

/** Return the response to a request; throw the BucketError that the daemon would refuse with. */
export function handle(state: State, request: Request): Response {
  const { headers, method } = request;
  if (headers.origin !== undefined || headers.referer !== undefined) {
    throw new ForbiddenError("cannot answer a browser: it sends Origin or Referer", "forbidden");
  }
  const [pathname, search] = request.target.split("?", 2) as [string, string?];
  const query = new URLSearchParams(search);
  if (pathname === "/readyz" || pathname === "/healthz") return success({ status: "ready" });
  const names = pathname.split("/").slice(1).map(decodeURIComponent);
  const context = headers.authorization === undefined ? undefined : state.contextOf(tokenOf(headers.authorization));
  if (names[1] === "contexts" && context === undefined) return operate(state, request, names.slice(2));
  if (pathname === "/v1/context" && context) return success({ ...scopeOf(context), schema: false });
  const { key, verb } = locate(names, context);
  if (verb === "hold") {
    const wanted = parseObject(request.body);
    return { status: 200, text: null, later: (answer) => state.holds.take(key, wanted, context, answer) };
  }
  const keys = query.has("key") ? query.getAll("key") : undefined;
  if (verb === "events") {
    const filter = { key, members: keys };
    const since = headers["last-event-id"]?.toString();
    return { status: 200, text: null, stream: new Stream(state, filter, context, since, query.get("snapshot") === "true") };
  }
  if (method === "GET" || method === "HEAD") return read(state, key, keys, query.get("defaults") === "true");
  return commit(state, request, key, keys);
}

function tokenOf(authorization: string): string {
  return /^bearer (.*)$/i.exec(authorization)?.[1]?.trim() ?? "";
}

/** Mint a context, or revoke one. */
function operate(state: State, { method, body: text }: Request, [id]: string[]): Response {
  if (method === "DELETE" && id !== undefined) {
    state.revoke(id);
    return success({ id });
  }
  const { device, job, automation, ttl_seconds: ttl, label } = parseObject(text);
  const context = state.mint(device, job, automation, ttl, label);
  return success({ id: context.id, token: context.token, ...scopeOf(context) }, 201);
}

function scopeOf({ device, job, automation, label, expiresAt }: Context) {
  return { device, job, automation, label, expires_at: expiresAt };
}

/** Return which bucket a path is about, and its last word: bucket, events or hold. */
function locate(path: string[], context: Context | undefined): { key: Key; verb: string } {
  const verb = path.at(-1)!;
  const names = path.slice(1, verb === "events" ? -1 : undefined);
  if (path[0] !== "v1" || !["bucket", "hold"].includes(names.at(-1)!)) {
    throw new NotFoundError("cannot find this path: the testing server has no such route", "not_found");
  }
  if (names[0] === "devices" && !context) {
    const job = names.length === 5 ? nameFor(names[3], "job") : null;
    return { key: { device: nameFor(names[1], "device"), job }, verb };
  }
  if (!context) throw new NoJobContextError(`no job context: the request carries no token; ${HOW_TO_START}`);
  const { device, job } = context;
  if (names[0] === "device") return { key: { device, job: null }, verb };
  if (names[0] !== "devices" && job !== null) return { key: { device, job }, verb };
  throw new NoJobContextError(`no job context: the token does not open this path; ${HOW_TO_START}`);
}

function read(state: State, key: Key, keys: string[] | undefined, completes: boolean): Response {
  const now = state.read(key);
  const whole: JsonObject = { ...(completes ? state.defaultsOf(key) : {}), ...now.bucket };
  return result(key, now, keys ? pick(whole, keys) : whole);
}

function pick(bucket: JsonObject, keys: readonly string[]): JsonObject {
  return Object.fromEntries(Object.entries(bucket).filter(([key]) => keys.includes(key)));
}

function commit(state: State, request: Request, key: Key, keys: string[] | undefined): Response {
  const { headers, method } = request;
  const [change, named] = changeOf(request, keys);
  state.holds.check(key, headers["bucketd-fence"]?.toString());
  const now = state.commit(key, method, change, (stored) => checkGuard(headers, stored), named);
  if (!/return\s*=\s*"?minimal/i.test(headers.prefer?.toString() ?? "")) return result(key, now, now.bucket);
  return { ...success({ revision: now.revision }), etag: now.etag, preference: "return=minimal" };
}

/** Return the change that a request makes, and the keys that it names. */
function changeOf({ method, headers, body }: Request, keys: string[] | undefined): [Change | null, JsonObject?] {
  if (method === "DELETE") return [keys ? remove(keys) : null];
  const type = headers["content-type"]?.split(";")[0] ?? "application/json";
  const patch = Object.hasOwn(PATCHES, type) ? PATCHES[type]! : undefined;
  if (!patch || !(method === "PATCH" || (method === "PUT" && type === "application/json"))) {
    throw new BucketError(`cannot ${method} a bucket as this media type`, "unsupported_media_type");
  }
  const data = parseJson(body);
  const change = method === "PUT" ? replace(asObject(data)) : patch(data);
  return type === "application/json" ? [change, asObject(data)] : [change];
}

/** Throw `precondition_failed`, with the stored revision, unless If-Match and If-None-Match hold. */
function checkGuard(headers: IncomingHttpHeaders, { etag, revision }: Stored): void {
  const names = (tags: string) => etag !== null && (tags === "*" || tags.split(/, */).includes(`"${etag}"`));
  const { "if-match": wanted, "if-none-match": unwanted } = headers;
  if ((wanted === undefined || names(wanted)) && (unwanted === undefined || !names(unwanted))) return;
  throw new BucketError(
    `cannot change the bucket: it has changed since, or none is stored (revision ${revision}); read it again and repeat`,
    "precondition_failed",
    { revision },
  );
}

function result({ job }: Key, { revision, etag }: Stored, content: JsonObject): Response {
  const label = job === null ? "deviceBucket" : "bucket";
  return { status: 200, text: `{"success":true,"${label}":${write(content)},"revision":${revision}}`, etag };
}

function success(members: object, status = 200): Response {
  return { status, text: JSON.stringify({ success: true, ...members }) };
}
