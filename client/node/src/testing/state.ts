import { randomBytes } from "node:crypto";
import { now } from "../clock.js";
import { BucketError, InvalidRequestError, NoJobContextError, NotFoundError } from "../errors.js";
import { type Change, diff } from "./changes.js";
import { Holds } from "./holds.js";
import { equal, isDeeper, type Json, type JsonObject, MAX_DEPTH, parseObject, write } from "./json.js";
import { nameFor } from "./names.js";

const DEFAULT_TTL = 86_400;
const MAX_TTL = 31_622_400;
export const HOW_TO_START = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND";

/** The key of a bucket: of one (device, job) or, with `job` null, of the device. */
export interface Key {
  readonly device: string;
  readonly job: string | null;
}

export interface Stored {
  /** Compact JSON. */
  readonly text: string;
  /** 0 when no bucket is stored. */
  readonly revision: number;
  readonly etag: string | null;
  readonly automation: string | null;
  readonly updatedAt: string | null;
}

/** One change of a bucket, as published to its watchers. */
export interface Notification {
  readonly key: Key;
  readonly automation: string | null;
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

/** The value of If-Match or If-None-Match: `any` for `*`, or the listed tags. */
export interface EntityTags {
  readonly any: boolean;
  readonly strong: ReadonlySet<string>;
  readonly weak: ReadonlySet<string>;
}

export interface Preconditions {
  readonly ifMatch?: EntityTags | undefined;
  readonly ifNoneMatch?: EntityTags | undefined;
}

export interface Context extends Key {
  readonly id: string;
  readonly token: string;
  readonly automation: string | null;
  readonly label: string | null;
  readonly createdAt: string;
  readonly expiresAt: string;
  /** Monotonic time in milliseconds, so that a test that sets the clock ends no token. */
  readonly expires: number;
}

const ABSENT: Stored = { text: "{}", revision: 0, etag: null, automation: null, updatedAt: null };

/** All buckets and contexts; `maxBytes` limits the compact JSON of each bucket. */
export class State {
  readonly buckets = new Map<string, Stored>();
  readonly notifications: Notification[] = [];
  /** Functions to call after anything that may concern a stream. */
  readonly watchers = new Set<() => void>();
  readonly holds = new Holds(() => this.live());
  serving = false;
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
    return this.defaults.get(nameOf(key)) ?? new Map();
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
  commit(key: Key, method: string, change: Change | null, preconditions: Preconditions = {}, automation: string | null = null, named: JsonObject = new Map()): Stored {
    const now = this.read(key);
    check(preconditions, now);
    const before = bucketOf(now);
    const after = change?.(bucketOf(now)) ?? null;
    const bound = automation === null || automation === now.automation;
    const same = after !== null && equal(after, before) && (now.revision > 0 ? bound : method !== "PUT");
    const next = after === null ? ABSENT : same ? now : this.next(now, after, automation);
    if (next.revision > 0) this.buckets.set(nameOf(key), next);
    else this.buckets.delete(nameOf(key));
    this.note(key, method, before, next, named);
    if (next.etag !== now.etag) {
      const automation = next.automation ?? now.automation;
      this.notifications.push({ key, automation, revision: next.revision, ...diff(before, bucketOf(next)) });
      this.wake();
    }
    return next;
  }

  mint(device: Json | undefined, job: Json = null, automation: Json = null, ttl: unknown = DEFAULT_TTL, label: Json = null): Context {
    const names = {
      device: nameFor(device, "device"),
      job: job === null ? null : nameFor(job, "job"),
      automation: automation === null ? null : nameFor(automation, "automation"),
      label: label === null ? null : nameFor(label, "label"),
    };
    if (typeof ttl !== "number" || !(ttl > 0 && ttl <= MAX_TTL)) {
      throw new InvalidRequestError(
        `cannot mint a context: ttl_seconds must be a number over 0 and at most ${MAX_TTL}`,
      );
    }
    const [id, token] = [randomBytes(8).toString("hex"), randomBytes(32).toString("base64url")];
    const [createdAt, expiresAt] = [0, 1000 * ttl].map((ms) => new Date(Date.now() + ms).toISOString());
    const context = { id, token, ...names, createdAt: createdAt!, expiresAt: expiresAt!, expires: now() + 1000 * ttl };
    this.contexts.set(id, context);
    return context;
  }

  /** Return the valid contexts, oldest first. */
  live(): Context[] {
    return [...this.contexts.values()].filter(({ expires }) => expires > now());
  }

  /** Return the context of a token. */
  contextOf(token: string): Context {
    const found = this.live().find((context) => context.token === token);
    if (found) return found;
    throw new NoJobContextError(
      `no job context: the token is unknown, revoked or expired; get a new one, or ${HOW_TO_START}`,
    );
  }

  revoke(id: string): void {
    if (!this.live().some((context) => context.id === id)) {
      throw new NotFoundError("cannot revoke the context: no live one has this id", "not_found");
    }
    this.contexts.delete(id);
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
    const [instanceId, number = ""] = id.split(/\.(.*)/s);
    const known = instanceId === this.instanceId && /^[0-9]{1,9}$/.test(number) && Number(number) <= this.notifications.length;
    return known ? Number(number) : undefined;
  }

  private next(now: Stored, after: JsonObject, automation: string | null): Stored {
    if (isDeeper(after, MAX_DEPTH)) {
      throw new BucketError(`cannot keep the bucket: it is nested deeper than ${MAX_DEPTH} levels`, "invalid_json");
    }
    const text = write(after);
    const size = Buffer.byteLength(text);
    if (size > Math.max(this.maxBytes, Buffer.byteLength(now.text))) throw tooLarge(after, size, this.maxBytes);
    this.count += 1;
    const etag = `${this.instanceId}${this.count.toString(16).padStart(6, "0")}`;
    const updatedAt = new Date().toISOString();
    return { text, revision: now.revision + 1, etag, automation: automation ?? now.automation, updatedAt };
  }

  private note(key: Key, method: string, before: JsonObject, next: Stored, named: JsonObject): void {
    const after = bucketOf(next);
    const changed = [...after].filter(([name, value]) => {
      const was = before.get(name);
      return named.has(name) || was === undefined || !equal(was, value);
    });
    const removed = [...before.keys()].filter((name) => !after.has(name));
    const write_ = { method, set: plain(new Map(changed)), removed, revision: next.revision };
    this.written.set(nameOf(key), [...this.writes(key), write_]);
  }
}

function nameOf({ device, job }: Key): string {
  return JSON.stringify([device, job]);
}

export function keyOf(name: string): Key {
  const [device, job] = JSON.parse(name);
  return { device, job };
}

export function bucketOf(stored: Stored): JsonObject {
  return parseObject(Buffer.from(stored.text));
}

/** Return the bucket as a plain object; large integers are rounded. */
export function plain(bucket: JsonObject): Record<string, any> {
  return JSON.parse(write(bucket));
}

export function ifNoneMatchHolds({ ifNoneMatch: tags }: Preconditions, now: Stored): boolean {
  if (!tags || now.revision === 0) return true;
  return !(tags.any || tags.strong.has(now.etag!) || tags.weak.has(now.etag!));
}

/** Throw `precondition_failed`, with the stored revision, unless the preconditions hold. */
export function check(preconditions: Preconditions, now: Stored): void {
  const { ifMatch: tags } = preconditions;
  const matched = !tags || (now.revision > 0 && (tags.any || tags.strong.has(now.etag!)));
  if (matched && ifNoneMatchHolds(preconditions, now)) return;
  const cause = matched ? "it exists already" : now.revision > 0 ? "it has changed since" : "none is stored";
  const { revision } = now;
  throw new BucketError(
    `cannot change the bucket: ${cause} (revision ${revision}); read it again and repeat`,
    "precondition_failed",
    { revision },
  );
}

function tooLarge(after: JsonObject, size: number, limit: number): BucketError {
  const sizes = [...after].map(([key, value]) => ({ key, bytes: Buffer.byteLength(write(value)) }));
  const details = sizes.sort((one, other) => other.bytes - one.bytes).slice(0, 3);
  const shown = details.map(({ key, bytes }) => `${JSON.stringify(key.slice(0, 40))} (${bytes} bytes)`);
  return new BucketError(
    `cannot set the bucket: it would have ${size} bytes, allowed are ${limit}; its largest keys: ${shown.join(", ")}`,
    "too_large",
    { details },
  );
}
