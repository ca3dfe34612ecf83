import { randomBytes } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { now } from "../clock.js";
import { BucketError, InvalidRequestError, NoJobContextError, NotFoundError } from "../errors.js";
import { type Change, diff } from "./changes.js";
import { Holds } from "./holds.js";
import { type Json, type JsonObject, write } from "./json.js";

const DEFAULT_TTL = 86_400;
export const HOW_TO_START = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND";

/** The key of a bucket: of one (device, job) or, with `job` null, of the device. */
export interface Key {
  readonly device: string;
  readonly job: string | null;
}

/** `revision` is 0 and `etag` null when no bucket is stored. */
export interface Stored {
  readonly bucket: JsonObject;
  readonly revision: number;
  readonly etag: string | null;
}

/** One change of a bucket, as published to its watchers. */
export interface Notification {
  readonly key: Key;
  readonly revision: number;
  readonly set: JsonObject;
  readonly removed: string[];
}

/** One accepted write. */
export interface Write {
  readonly method: string;
  /** The keys that the write named or changed, with their values after it. */
  readonly set: Record<string, any>;
  readonly removed: string[];
  /** The revision of the bucket after the write. */
  readonly revision: number;
}

export interface Context extends Key {
  readonly id: string;
  readonly token: string;
  readonly automation: string | null;
  readonly label: string | null;
  readonly expiresAt: string;
  /** Monotonic time in milliseconds, so that a test that sets the clock ends no token. */
  readonly expires: number;
}

const ABSENT: Stored = { bucket: {}, revision: 0, etag: null };

/** All buckets and contexts; `maxBytes` limits the compact JSON of each bucket. */
export class State {
  readonly notifications: Notification[] = [];
  /** Functions to call after anything that may concern a stream. */
  readonly watchers = new Set<() => void>();
  readonly holds = new Holds(() => this.live());
  serving = false;
  private readonly buckets = new Map<string, Stored>();
  private readonly written = new Map<string, Write[]>();
  /** By bucket, what a schema would have as defaults. */
  private readonly defaults = new Map<string, JsonObject>();
  private readonly contexts = new Map<string, Context>();
  private readonly instanceId = randomBytes(4).toString("hex");
  private count = 0;

  constructor(readonly maxBytes: number) {}

  read(key: Key): Stored {
    return this.buckets.get(nameOf(key)) ?? ABSENT;
  }

  defaultsOf(key: Key): JsonObject {
    return this.defaults.get(nameOf(key)) ?? {};
  }

  setDefaults(key: Key, defaults: JsonObject): void {
    this.defaults.set(nameOf(key), defaults);
  }

  writes(key: Key): Write[] {
    return [...(this.written.get(nameOf(key)) ?? [])];
  }

  forgetWrites(key: Key): void {
    this.written.delete(nameOf(key));
  }

  /** Apply `change` (null deletes the bucket) or throw; `named` holds the keys that the request sets. */
  commit(key: Key, method: string, change: Change | null, check: (now: Stored) => void = () => undefined, named: JsonObject = {}): Stored {
    const now = this.read(key);
    check(now);
    const after = change?.(structuredClone(now.bucket)) ?? null;
    const same = after !== null && isDeepStrictEqual(after, now.bucket) && (now.revision > 0 || method !== "PUT");
    const next = after === null ? ABSENT : same ? now : this.next(now, after);
    this.buckets.set(nameOf(key), next);
    const { set, removed } = diff(now.bucket, next.bucket);
    const written = Object.entries(next.bucket).filter(([name]) => Object.hasOwn(named, name) || Object.hasOwn(set, name));
    const note = { method, set: plain(Object.fromEntries(written)), removed, revision: next.revision };
    this.written.set(nameOf(key), [...this.writes(key), note]);
    if (next.etag !== now.etag) {
      this.notifications.push({ key, revision: next.revision, set, removed });
      this.wake();
    }
    return next;
  }

  mint(device: Json | undefined, job: Json = null, automation: Json = null, ttl: Json = DEFAULT_TTL, label: Json = null): Context {
    const names = {
      device: nameFor(device, "device"),
      job: job === null ? null : nameFor(job, "job"),
      automation: automation === null ? null : nameFor(automation, "automation"),
      label: label === null ? null : nameFor(label, "label"),
    };
    if (typeof ttl !== "number" || ttl <= 0) throw new InvalidRequestError("cannot mint a context: ttl_seconds must be over 0");
    const [id, token] = [randomBytes(8).toString("hex"), randomBytes(32).toString("base64url")];
    const expiresAt = new Date(Date.now() + 1000 * ttl).toISOString();
    const context = { id, token, ...names, expiresAt, expires: now() + 1000 * ttl };
    this.contexts.set(token, context);
    return context;
  }

  /** Return the valid contexts. */
  live(): Context[] {
    return [...this.contexts.values()].filter(({ expires }) => expires > now());
  }

  /** Return the context of a token. */
  contextOf(token: string): Context {
    const found = this.contexts.get(token);
    if (found && found.expires > now()) return found;
    throw new NoJobContextError(
      `no job context: the token is unknown, revoked or expired; get a new one, or ${HOW_TO_START}`,
    );
  }

  revoke(id: string): void {
    const found = this.live().find((context) => context.id === id);
    if (!found) throw new NotFoundError("cannot revoke the context: no live one has this id", "not_found");
    this.contexts.delete(found.token);
    this.holds.endContexts();
    this.wake();
  }

  wake(): void {
    for (const watcher of [...this.watchers]) watcher();
  }

  /** Return the event id after which a stream continues with the notifications from `index` on. */
  id(index: number): string {
    return `${this.instanceId}.${index}`;
  }

  /** Return the index of an event id; undefined for the id of another server, or a malformed one. */
  indexOf(id: string): number | undefined {
    const [instanceId, number = ""] = id.split(".");
    const known = instanceId === this.instanceId && /^[0-9]{1,9}$/.test(number) && Number(number) <= this.notifications.length;
    return known ? Number(number) : undefined;
  }

  private next(now: Stored, after: JsonObject): Stored {
    const size = Buffer.byteLength(write(after));
    if (size > Math.max(this.maxBytes, Buffer.byteLength(write(now.bucket)))) throw tooLarge(after, size, this.maxBytes);
    this.count += 1;
    return { bucket: after, revision: now.revision + 1, etag: `${this.instanceId}${this.count.toString(16).padStart(6, "0")}` };
  }
}

/** Return the name, or refuse it: 1 to 128 characters, no control characters or lone surrogates. */
export function nameFor(name: unknown, what: string): string {
  const wrong = (cause: string) => new InvalidRequestError(`cannot use the ${what} name: ${cause}`);
  if (typeof name !== "string") throw wrong("it must be a string");
  const { length } = [...name];
  if (length < 1 || length > 128) throw wrong(`it has ${length} characters, allowed are 1 to 128`);
  if (/[\p{Cc}\p{Cs}]/u.test(name)) throw wrong("it has a control character or a lone surrogate");
  return name;
}

/** Return the bucket as a plain object of its own; large integers are rounded. */
export function plain(bucket: JsonObject): Record<string, any> {
  return JSON.parse(write(bucket));
}

function nameOf({ device, job }: Key): string {
  return JSON.stringify([device, job]);
}

function tooLarge(after: JsonObject, size: number, limit: number): BucketError {
  const sizes = Object.entries(after).map(([key, value]) => ({ key, bytes: Buffer.byteLength(write(value)) }));
  const details = sizes.sort((one, other) => other.bytes - one.bytes).slice(0, 3);
  const shown = details.map(({ key, bytes }) => `${JSON.stringify(key.slice(0, 40))} (${bytes} bytes)`);
  return new BucketError(
    `cannot set the bucket: it would have ${size} bytes, allowed are ${limit}; its largest keys: ${shown.join(", ")}`,
    "too_large",
    { details },
  );
}
