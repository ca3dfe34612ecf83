import { AssertionError, deepStrictEqual } from "node:assert";
import { encodeObject } from "../json.js";
import { replace } from "./changes.js";
import { parseObject, write } from "./json.js";
import { type Context, type Key, plain, type State, type Stored, type Write } from "./state.js";

/** A bucket as the server holds it; reading it makes no request. */
export class StoredBucket {
  private readonly context: Context;
  private seeded: Stored;

  /** @internal */
  constructor(private readonly state: State, private readonly socket: string, private readonly key: Key, label: string | null) {
    this.context = state.mint(key.device, key.job, null, undefined, label);
    this.seeded = state.read(key);
  }

  /** The token of a context for this bucket; that of a job also opens the device bucket. */
  get token(): string {
    return this.context.token;
  }

  /** The variables that `bucketctl run` would add to the environment of an automation. */
  get environ(): Record<string, string> {
    const { device, job } = this.key;
    const { label } = this.context;
    const names: Record<string, string> = {
      BUCKETD_DEVICE: device,
      ...(job !== null && { BUCKETD_JOB: job }),
      ...(label !== null && { BUCKETD_RUN: label }),
    };
    return { BUCKETD_SOCKET: this.socket, BUCKETD_TOKEN: this.token, ...names };
  }

  /** A copy of the stored bucket; `{}` when none is stored. */
  get data(): Record<string, any> {
    return plain(this.state.read(this.key).bucket);
  }

  /** The stored revision; 0 when no bucket is stored. */
  get revision(): number {
    return this.state.read(this.key).revision;
  }

  /** All writes accepted since `seed`, oldest first. */
  get writes(): Write[] {
    return this.state.writes(this.key);
  }

  /** Replace the stored bucket, and forget earlier writes. */
  seed(data: object): void {
    const bucket = parseObject(Buffer.from(encodeObject(data, "seed the bucket")));
    this.seeded = this.state.commit(this.key, "PUT", replace(bucket));
    this.state.forgetWrites(this.key);
  }

  /** Complete later reads with `defaults` by these keys, as a schema with defaults does. */
  setDefaults(data: object): void {
    this.state.setDefaults(this.key, parseObject(Buffer.from(encodeObject(data, "set the defaults"))));
  }

  /** Revoke the token, as an operator may at any time. */
  revoke(): void {
    this.state.revoke(this.context.id);
  }

  /** Assert that each of these keys was written since `seed`, last with this value. */
  assertSet(expected: Record<string, unknown>): void {
    const found = new Map(this.writes.flatMap(({ set }) => Object.entries(set)));
    for (const [key, value] of Object.entries(expected)) {
      if (!found.has(key)) throw wrong(`${quote(key)} was not set; set were: ${names(found.keys())}`);
      const message = `${quote(key)} was set to ${JSON.stringify(found.get(key))}, not to ${JSON.stringify(value)}`;
      deepStrictEqual(found.get(key), value, message);
    }
  }

  /** Assert that each of these keys was removed since `seed` and not set again. */
  assertRemoved(...keys: string[]): void {
    const removed = new Set(this.writes.flatMap(({ removed }) => removed));
    for (const key of keys) {
      if (!removed.has(key)) throw wrong(`${quote(key)} was not removed; removed were: ${names(removed)}`);
      if (Object.hasOwn(this.data, key)) throw wrong(`${quote(key)} was removed, and set again`);
    }
  }

  /** Assert that the bucket has not changed since it was seeded. */
  assertUnchanged(): void {
    const now = this.state.read(this.key);
    if (now.etag === this.seeded.etag) return;
    throw wrong(`the bucket was changed: it was ${write(this.seeded.bucket)}, it is ${write(now.bucket)}`);
  }
}

const quote = (key: string): string => JSON.stringify(key);

function names(keys: Iterable<string>): string {
  return [...keys].map(quote).join(", ") || "none";
}

function wrong(message: string): AssertionError {
  return new AssertionError({ message });
}
