import { type Call, type Content, call, sendTo } from "./call.js";
import { type BucketOptions, quote, resolve } from "./context.js";
import { encode, encodeObject } from "./encode.js";
import { InvalidRequestError, PreconditionFailedError } from "./errors.js";
import { guard, splitOptions } from "./guard.js";
import type { AnyBucket, Change, Context, JsonPatchOperation, Snapshot, WatchOptions, WriteOptions } from "./types.js";
import { watch } from "./watch.js";

export type { BucketOptions } from "./context.js";

const MOST_ROUNDS = 200;

/**
 * One bucket, plain objects in and out; every method rejects with a BucketError.
 *
 * Without options the context comes from the environment, anew at each call. `T` is what the
 * bucket holds; a bucket that was never written is `{}` all the same.
 */
export class Bucket<T extends object = AnyBucket> {
  private readonly options: BucketOptions;

  constructor(options: BucketOptions = {}) {
    this.options = { ...options };
  }

  /** The bucket, or only the keys named, as far as they are stored. */
  get(): Promise<T>;
  get<K extends keyof T & string>(...keys: K[]): Promise<Partial<Pick<T, K>>>;
  async get(...keys: string[]): Promise<unknown> {
    return this.content({ method: "GET", query: queryOf(keys) });
  }

  /** Merge shallowly; the whole bucket afterwards. */
  async set(data: Partial<T>, options?: WriteOptions): Promise<T> {
    const verb = "set the bucket";
    return this.content({ method: "PATCH", body: encodeObject(data, verb), headers: guard(options, verb) });
  }

  /** Put `data` in the place of the whole bucket. */
  async replace(data: T, options?: WriteOptions): Promise<T> {
    const verb = "replace the bucket";
    return this.content({ method: "PUT", body: encodeObject(data, verb), headers: guard(options, verb) });
  }

  /** Remove the keys named, at least one; the bucket that is left. Options stand behind the keys. */
  remove(...keys: (keyof T & string)[]): Promise<T>;
  remove(...keysAndOptions: [...(keyof T & string)[], WriteOptions]): Promise<T>;
  async remove(...given: unknown[]): Promise<T> {
    const [keys, options] = splitOptions(given);
    // Without this an empty list, spread, would delete the whole bucket.
    if (keys.length === 0) {
      throw new InvalidRequestError("cannot remove keys: none is named; clear() removes the whole bucket");
    }
    return this.content({ method: "DELETE", query: queryOf(keys), headers: guard(options, "remove keys") });
  }

  /** Remove the whole bucket. */
  async clear(options?: WriteOptions): Promise<void> {
    await this.send({ method: "DELETE", headers: guard(options, "clear the bucket") });
  }

  /** Merge deeply by RFC 7396: objects are merged, `null` removes a key. */
  async mergePatch(patch: object, options?: WriteOptions): Promise<T> {
    const verb = "merge into the bucket";
    const headers = { ...contentType("merge-patch"), ...guard(options, verb) };
    return this.content({ method: "PATCH", body: encodeObject(patch, verb), headers });
  }

  /** Apply a JSON Patch (RFC 6902), all of it or nothing. */
  async jsonPatch(operations: readonly JsonPatchOperation[], options?: WriteOptions): Promise<T> {
    const verb = "patch the bucket";
    const headers = { ...contentType("json-patch"), ...guard(options, verb) };
    return this.content({ method: "PATCH", body: encode(operations, verb), headers });
  }

  /** The bucket with its revision and the ETag that a guarded write compares. */
  async snapshot(): Promise<Snapshot<T>> {
    const { body, etag, content } = await this.send({ method: "GET" });
    const found: Snapshot<T> = { bucket: content as T, revision: body.revision, etag };
    if (body.stale_seconds !== undefined) found.stale_seconds = body.stale_seconds;
    return found;
  }

  /**
   * Read, let `change` alter the object it is given (or return another), and write it back if
   * nobody wrote in between; otherwise begin again. `change` may therefore run several times.
   */
  async update(change: (bucket: T) => T | void | Promise<T | void>): Promise<T> {
    for (let round = 1; ; round++) {
      const { bucket, etag } = await this.snapshot();
      const body = encodeObject((await change(bucket)) ?? bucket, "update the bucket");
      const headers = guard({ ifMatch: etag }, "update the bucket");
      try {
        return await this.content({ method: "PUT", body, headers });
      } catch (error) {
        if (!(error instanceof PreconditionFailedError) || round >= MOST_ROUNDS) throw error;
      }
      await jitter(round);
    }
  }

  /**
   * Every change from the first step on, by whomever: `for await (const change of bucket.watch())`.
   *
   * A daemon that restarts is waited for, and the changes go on behind the last one; where that
   * is not known any more, a change with `gap` has the whole bucket. Rejects with
   * NoJobContextError once the token is revoked or expired.
   */
  async *watch(options: WatchOptions = {}): AsyncGenerator<Change<T>, void, void> {
    yield* watch(resolve(this.options), options, this.options.timeout) as AsyncGenerator<Change<T>, void, void>;
  }

  /** Who the daemon takes the caller for. */
  async context(): Promise<Context> {
    const target = resolve(this.options);
    if (target.named) return { ...target.named, expires_at: null };
    const { body } = await call(target, { method: "GET", path: "/v1/context" }, this.options.timeout);
    const { success: _, ...context } = body;
    return context;
  }

  private async content(what: Call): Promise<any> {
    return (await this.send(what)).content;
  }

  private send(what: Call): Promise<Content> {
    return sendTo(resolve(this.options), what, this.options.timeout);
  }
}

function queryOf(keys: readonly string[]): string[] {
  return keys.map((key) => `key=${quote(key, "key")}`);
}

function contentType(patch: "merge-patch" | "json-patch"): Record<string, string> {
  return { "Content-Type": `application/${patch}+json` };
}

/** Wait at random, longer from round to round, so that rivals fall out of step. */
function jitter(round: number): Promise<void> {
  const most = Math.min(100, 2 ** Math.min(round, 7));
  return new Promise((resolve) => setTimeout(resolve, Math.random() * most));
}
