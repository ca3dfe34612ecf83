import { BucketError, InvalidRequestError, NoJobContextError, NotFoundError } from "../errors.js";
import { type Change, jsonPatch, merge, mergePatch, remove, replace } from "./changes.js";
import { type Filter, Stream } from "./events.js";
import { asObject, type JsonObject, Numeral, parseObject, parseWritten, write } from "./json.js";
import { nameFor } from "./names.js";
import { cursorOf, limitOf } from "./paging.js";
import { decode, JSON_PATCH, JSON_TYPE, MERGE_PATCH, type Request } from "./requests.js";
import type { Answer, HoldStream } from "./holds.js";
import { bucketOf, check, type Context, ifNoneMatchHolds, type Key, keyOf, HOW_TO_START, type Preconditions, type State, type Stored } from "./state.js";

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

/** A request with its route's parameters, the bucket it addresses, and the caller's context. */
interface ResolvedRequest {
  readonly state: State;
  readonly request: Request;
  readonly query: ReadonlyMap<string, readonly string[]>;
  readonly names: Readonly<Record<string, string>>;
  readonly key: Key;
  readonly automation: string | null;
  readonly context: Context | undefined;
  readonly preconditions: Preconditions;
  readonly fences: readonly string[];
  readonly mediaType: string | undefined;
  readonly body: Uint8Array;
}

type Handler = (resolved: ResolvedRequest) => Response;

interface Route {
  readonly path: string;
  readonly handlers: Readonly<Record<string, Handler>>;
  readonly parameters?: readonly string[];
  readonly access?: "anyone" | "job" | "device";
}

const MEMBERS = ["device", "job", "automation", "ttl_seconds", "label"];
/** The media types of the body, where a method takes one. */
const ACCEPTS: Readonly<Record<string, readonly string[]>> = {
  PUT: [JSON_TYPE], POST: [JSON_TYPE], PATCH: [JSON_TYPE, MERGE_PATCH, JSON_PATCH],
};
/** The parameters of a path that a method does not have. */
const NOT_OF: Readonly<Record<string, readonly string[]>> = {
  PUT: ["key", "defaults"], PATCH: ["key", "defaults"], DELETE: ["defaults"],
};
const bucket = { GET: read, PATCH: patch, PUT: put, DELETE: clear };
const ROUTES: readonly Route[] = [
  { path: "/healthz", handlers: { GET: ready }, access: "anyone" },
  { path: "/readyz", handlers: { GET: ready }, access: "anyone" },
  { path: "/v1/bucket", handlers: bucket, parameters: ["key", "defaults", "mask"], access: "job" },
  { path: "/v1/bucket/events", handlers: { GET: watch }, parameters: ["holds", "key", "mask", "snapshot"], access: "job" },
  { path: "/v1/buckets", handlers: { GET: listAll }, parameters: ["device", "job", "automation", "limit", "cursor"] },
  { path: "/v1/context", handlers: { GET: ownContext }, access: "device" },
  { path: "/v1/contexts", handlers: { GET: listContexts, POST: createContext } },
  { path: "/v1/contexts/{id}", handlers: { DELETE: revokeContext } },
  { path: "/v1/device/hold", handlers: { POST: hold }, access: "device" },
  { path: "/v1/device/bucket", handlers: bucket, parameters: ["key", "defaults", "mask"], access: "device" },
  { path: "/v1/device/bucket/events", handlers: { GET: watch }, parameters: ["holds", "key", "mask", "snapshot"], access: "device" },
  { path: "/v1/devices/{device}/bucket", handlers: bucket, parameters: ["key", "defaults", "mask"] },
  { path: "/v1/devices/{device}/bucket/events", handlers: { GET: watch }, parameters: ["holds", "key", "mask", "snapshot"] },
  { path: "/v1/devices/{device}/jobs/{job}/bucket", handlers: bucket, parameters: ["key", "automation", "defaults", "mask"] },
  { path: "/v1/devices/{device}/hold", handlers: { POST: hold } },
  { path: "/v1/devices/{device}/jobs/{job}/hold", handlers: { POST: hold } },
  {
    path: "/v1/devices/{device}/jobs/{job}/bucket/events",
    handlers: { GET: watch },
    parameters: ["automation", "holds", "key", "mask", "snapshot"],
  },
  { path: "/v1/hold", handlers: { POST: hold }, access: "job" },
  { path: "/v1/holds", handlers: { GET: listHolds }, parameters: ["device", "job"] },
  { path: "/v1/holds/{id}", handlers: { DELETE: breakHold } },
  { path: "/v1/events", handlers: { GET: watchAll }, parameters: ["device", "job", "automation", "holds", "key", "mask"] },
];

/**
 * Return the daemon's response to a request; throw the BucketError that it would refuse with. The
 * order is the daemon's: what the head alone says, who asks, what only they are told.
 */
export function handle(state: State, request: Request): Response {
  request.refuseBrowsers();
  const [route, names] = match(request.path);
  const method = request.method === "HEAD" ? "GET" : request.method;
  const handler = Object.hasOwn(route.handlers, method) ? route.handlers[method] : undefined;
  if (!handler) throw notAllowed(request, route);
  const query = request.query((route.parameters ?? []).filter((name) => !NOT_OF[method]?.includes(name)));
  if (!route.path.endsWith("/events")) request.acceptJson();
  const { token } = request;
  // Without schemas there are no secrets to mask.
  if ((query.get("mask") ?? ["secrets"])[0] !== "secrets") {
    throw new InvalidRequestError("cannot use the parameter mask: it must be secrets");
  }
  const given = names.job === undefined ? null : (nameIn(query, "automation") ?? null);
  const named = keyIn(names);
  const context = admit(state, route, token);
  const key = context ? { device: context.device, job: route.access === "job" ? context.job : null } : named;
  const automation = !context ? given : route.access === "job" ? context.automation : null;
  const ofBucket = /\/(?:bucket(?:\/events)?|hold)$/.test(route.path);
  const preconditions = ofBucket ? request.preconditions : {};
  const fences = ofBucket ? request.fences : [];
  const mediaType = ACCEPTS[method] && request.mediaType(ACCEPTS[method]);
  const body = request.content;
  return handler({ state, request, query, names, key, automation, context, preconditions, fences, mediaType, body });
}

function match(path: string): [Route, Record<string, string>] {
  const given = path.split("/");
  for (const route of ROUTES) {
    const shape = route.path.split("/");
    const matches = shape.length === given.length && shape.every((part, i) => part.startsWith("{") || part === given[i]);
    if (!matches) continue;
    const names = [...shape.entries()].filter(([, part]) => part.startsWith("{")).map(([i, part]) => {
      const name = part.slice(1, -1);
      return [name, decode(given[i]!, `the ${name} in the path`)];
    });
    return [route, Object.fromEntries(names)];
  }
  throw new NotFoundError(`cannot find '${path.slice(0, 200)}': the testing server has no such route`, "not_found");
}

function notAllowed({ method, path }: Request, { handlers }: Route): BucketError {
  const takes = [...Object.keys(handlers), ...("GET" in handlers ? ["HEAD"] : [])].sort().join(", ");
  return new BucketError(`cannot ${method} ${path}: it takes ${takes}`, "method_not_allowed");
}

function admit(state: State, { access }: Route, token: string | undefined): Context | undefined {
  if (access === "anyone") return undefined;
  if (access === undefined) {
    if (token === undefined) return undefined;
    throw new NoJobContextError(
      "cannot use an operator route with a token: a token opens its own bucket on " +
        "/v1/bucket and /v1/device/bucket; leave the Authorization header out",
    );
  }
  if (token === undefined) throw new NoJobContextError(`no job context: the request carries no token; ${HOW_TO_START}`);
  const context = state.contextOf(token);
  if (access === "device" || context.job !== null) return context;
  throw new NoJobContextError(
    `no job context: the token is for a device alone, so it opens only /v1/device/bucket; ${HOW_TO_START}`,
  );
}

function keyIn({ device, job }: Record<string, string>): Key {
  const checked = device === undefined ? "" : nameFor(device, "device");
  return { device: checked, job: job === undefined ? null : nameFor(job, "job") };
}

function read(resolved: ResolvedRequest): Response {
  const now = resolved.state.read(resolved.key);
  const { preconditions } = resolved;
  const completes = flag(resolved, "defaults");
  if (!completes && !ifNoneMatchHolds(preconditions, now)) return { status: 304, text: null, etag: now.etag };
  check(completes ? { ifMatch: preconditions.ifMatch } : preconditions, now);
  const bucket = bucketOf(now);
  const missing = completes ? [...resolved.state.defaultsOf(resolved.key)].filter(([key]) => !bucket.has(key)) : [];
  const stored: JsonObject = new Map([...bucket, ...missing]);
  const keys = resolved.query.get("key") ?? [...stored.keys()];
  const chosen = keys.filter((key) => stored.has(key)).map((key) => [key, stored.get(key)!] as const);
  return result(resolved, now, new Map(chosen));
}

function patch(resolved: ResolvedRequest): Response {
  const { body, mediaType, state } = resolved;
  const written = parseWritten(body);
  if (mediaType === JSON_PATCH) return commit(resolved, jsonPatch(written, state.maxBytes));
  const data = asObject(written);
  return mediaType === MERGE_PATCH ? commit(resolved, mergePatch(data)) : commit(resolved, merge(data), data);
}

function put(resolved: ResolvedRequest): Response {
  const data = asObject(parseWritten(resolved.body));
  return commit(resolved, replace(data), data);
}

function clear(resolved: ResolvedRequest): Response {
  const keys = resolved.query.get("key");
  return commit(resolved, keys === undefined ? null : remove(keys));
}

function commit(resolved: ResolvedRequest, change: Change | null, named?: JsonObject): Response {
  const { state, request, key, preconditions, fences, automation } = resolved;
  state.holds.check(key, fences);
  const now = state.commit(key, request.method, change, preconditions, automation, named);
  if (!request.prefersMinimal) return result(resolved, now, bucketOf(now));
  return { ...success({ revision: now.revision }), etag: now.etag, preference: "return=minimal" };
}

function nameIn(query: ResolvedRequest["query"], parameter: string): string | undefined {
  const given = query.get(parameter)?.[0];
  return given === undefined ? undefined : nameFor(given, parameter);
}

function result({ key }: ResolvedRequest, now: Stored, content: JsonObject): Response {
  const label = key.job === null ? "deviceBucket" : "bucket";
  const text = `{"success":true,"${label}":${write(content)},"revision":${now.revision}}`;
  return { status: 200, text, etag: now.etag };
}

function success(members: object, status = 200): Response {
  return { status, text: JSON.stringify({ success: true, ...members }) };
}

function ready(): Response {
  return success({ status: "ready" });
}

function watch(resolved: ResolvedRequest): Response {
  const holds = flag(resolved, "holds");
  return streaming(resolved, { key: resolved.key, names: {}, members: resolved.query.get("key"), holds });
}

function watchAll(resolved: ResolvedRequest): Response {
  const [device, job, automation] = ["device", "job", "automation"].map((name) => nameIn(resolved.query, name));
  const holds = flag(resolved, "holds");
  return streaming(resolved, { key: undefined, names: { device, job, automation }, members: resolved.query.get("key"), holds });
}

function streaming(resolved: ResolvedRequest, filter: Filter): Response {
  const { state, request, context } = resolved;
  const since = request.headers.get("last-event-id")?.[0];
  return { status: 200, text: null, stream: new Stream(state, filter, context, since, flag(resolved, "snapshot")) };
}

function flag({ query }: ResolvedRequest, parameter: string): boolean {
  const value = query.get(parameter)?.[0] ?? "false";
  if (value === "true" || value === "false") return value === "true";
  throw new InvalidRequestError(`cannot use the parameter ${parameter}: it must be true or false`);
}

function hold({ state, key, body, context }: ResolvedRequest): Response {
  const wanted = parseObject(body);
  return { status: 200, text: null, later: (answer) => state.holds.take(key, wanted, context, answer) };
}

function listHolds({ state, query }: ResolvedRequest): Response {
  const [device, job] = [nameIn(query, "device"), nameIn(query, "job")];
  const matches = (key: Key) => (device ?? key.device) === key.device && (job ?? key.job) === key.job;
  return success({ holds: state.holds.rows("held", matches), waiting: state.holds.rows("waiting", matches) });
}

function breakHold({ state, names: { id } }: ResolvedRequest): Response {
  return success(state.holds.break(id!));
}

function listAll({ state, query }: ResolvedRequest): Response {
  const parameter = (name: string) => query.get(name)?.[0];
  const filters = (["device", "job", "automation"] as const).filter((name) => nameIn(query, name) !== undefined);
  const limit = limitOf(parameter("limit"));
  const after = cursorOf(parameter("cursor"));
  const rows = [...state.buckets].sort().map(([name, now]) => ({ name, ...rowOf(keyOf(name), now) }));
  const matching = rows.filter((row) => row.name > after && filters.every((name) => row[name] === parameter(name)));
  const page = matching.slice(0, limit);
  const next_cursor = matching.length > limit ? Buffer.from(page.at(-1)!.name).toString("hex") : null;
  return success({ buckets: page.map(({ name: _, ...row }) => row), next_cursor });
}

function rowOf({ device, job }: Key, { automation, revision, text, updatedAt }: Stored) {
  return { device, job, automation, revision, size: Buffer.byteLength(text), updated_at: updatedAt };
}

function scopeOf({ device, job, automation, label, expiresAt }: Context) {
  return { device, job, automation, label, expires_at: expiresAt };
}

function ownContext({ context }: ResolvedRequest): Response {
  return success({ ...scopeOf(context!), schema: false });
}

function createContext({ body: text, state }: ResolvedRequest): Response {
  const body = parseObject(text);
  const unknown = [...body.keys()].find((name) => !MEMBERS.includes(name));
  if (unknown !== undefined) {
    throw new InvalidRequestError(`cannot mint a context: '${unknown.slice(0, 40)}' is not one of ${MEMBERS.join(", ")}`);
  }
  const ttl = body.get("ttl_seconds") ?? undefined;
  const seconds = ttl instanceof Numeral ? Number(ttl.text) : ttl;
  const context = state.mint(body.get("device"), body.get("job"), body.get("automation"), seconds, body.get("label"));
  return success({ id: context.id, token: context.token, ...scopeOf(context) }, 201);
}

function listContexts({ state }: ResolvedRequest): Response {
  const contexts = state.live().map((context) => ({
    id: context.id,
    created_at: context.createdAt,
    ...scopeOf(context),
  }));
  return success({ contexts });
}

function revokeContext({ state, names: { id } }: ResolvedRequest): Response {
  state.revoke(id!);
  return success({ id });
}
