import { sleep } from "./clock.js";
import { type BucketOptions, quote, resolve } from "./context.js";
import { InvalidRequestError, PreconditionFailedError } from "./errors.js";
import { encode, encodeObject } from "./json.js";
import { preconditionHeaders, splitOptions } from "./preconditions.js";
import { type BucketRequest, type BucketResponse, request, requestBucket } from "./request.js";
import type { AnyBucket, Change, Context, JsonPatchOperation, Snapshot, WatchOptions, WriteOptions } from "./types.js";
import { watch } from "./watch.js";

export type { BucketOptions } from "./context.js";

const MAX_ROUNDS = 200;

/**
 * One bucket as plain objects; every method rejects with a BucketError.
 *
 * Without options the context comes from the environment, read at each call. `T` is the type of
 * the bucket once it is written; before its first write the bucket is `{}`.
 */
export class Bucket<T extends object = AnyBucket> {
  private readonly options: BucketOptions;

  constructor(options: BucketOptions = {}) {
    this.options = { ...options };
  }

  /** Read the bucket, or only those of the named keys that are stored. */
  get(): Promise<T>;
  get<K extends keyof T & string>(...keys: K[]): Promise<Partial<Pick<T, K>>>;
  async get(...keys: string[]): Promise<unknown> {
    return this.content({ method: "GET", query: queryOf(keys) });
  }

  /** Merge shallowly; resolve to the whole bucket. */
  async set(data: Partial<T>, options?: WriteOptions): Promise<T> {
    const verb = "set the bucket";
    return this.content({ method: "PATCH", body: encodeObject(data, verb), headers: preconditionHeaders(options, verb) });
  }

  /** Replace the whole bucket by `data`. */
  async replace(data: T, options?: WriteOptions): Promise<T> {
    const verb = "replace the bucket";
    return this.content({ method: "PUT", body: encodeObject(data, verb), headers: preconditionHeaders(options, verb) });
  }

  /** Remove the named keys, at least one; resolve to the remaining bucket. Options follow the keys. */
  remove(...keys: (keyof T & string)[]): Promise<T>;
  remove(...keysAndOptions: [...(keyof T & string)[], WriteOptions]): Promise<T>;
  async remove(...given: unknown[]): Promise<T> {
    const [keys, options] = splitOptions(given);
    // An empty list that is spread here would otherwise delete the whole bucket.
    if (keys.length === 0) {
      throw new InvalidRequestError("cannot remove keys: none is named; clear() removes the whole bucket");
    }
    return this.content({ method: "DELETE", query: queryOf(keys), headers: preconditionHeaders(options, "remove keys") });
  }

  /** Remove the whole bucket. */
  async clear(options?: WriteOptions): Promise<void> {
    await this.send({ method: "DELETE", headers: preconditionHeaders(options, "clear the bucket") });
  }

  /** Merge deeply by RFC 7396: objects are merged, `null` removes a key. */
  async mergePatch(patch: object, options?: WriteOptions): Promise<T> {
    const verb = "merge into the bucket";
    const headers = { ...contentType("merge-patch"), ...preconditionHeaders(options, verb) };
    return this.content({ method: "PATCH", body: encodeObject(patch, verb), headers });
  }

  /** Apply a JSON Patch (RFC 6902), all operations or none. */
  async jsonPatch(operations: readonly JsonPatchOperation[], options?: WriteOptions): Promise<T> {
    const verb = "patch the bucket";
    const headers = { ...contentType("json-patch"), ...preconditionHeaders(options, verb) };
    return this.content({ method: "PATCH", body: encode(operations, verb), headers });
  }

  /** Read the bucket with its revision, and with the ETag that a conditional write compares. */
  async snapshot(): Promise<Snapshot<T>> {
    const { body, etag, content } = await this.send({ method: "GET" });
    const found: Snapshot<T> = { bucket: content as T, revision: body.revision, etag };
    if (body.stale_seconds !== undefined) found.stale_seconds = body.stale_seconds;
    return found;
  }

  /**
   * Read the bucket, let `change` modify it (or return another object), and write the result back
   * if nobody wrote in between; otherwise start again. `change` may therefore run several times.
   */
  async update(change: (bucket: T) => T | void | Promise<T | void>): Promise<T> {
    for (let round = 1; ; round++) {
      const { bucket, etag } = await this.snapshot();
      const body = encodeObject((await change(bucket)) ?? bucket, "update the bucket");
      const headers = preconditionHeaders({ ifMatch: etag }, "update the bucket");
      try {
        return await this.content({ method: "PUT", body, headers });
      } catch (error) {
        if (!(error instanceof PreconditionFailedError) || round >= MAX_ROUNDS) throw error;
      }
      await backOff(round);
    }
  }

  /**
   * Iterate over every change from now on, whoever makes it: `for await (const change of bucket.watch())`.
   *
   * The iteration waits for a daemon that restarts and continues after the last change. If the
   * daemon no longer knows what happened in between, a change with `gap` holds the whole bucket.
   * Rejects with NoJobContextError once the token is revoked or expired.
   */
  async *watch(options: WatchOptions = {}): AsyncGenerator<Change<T>, void, void> {
    yield* watch(resolve(this.options), options, this.options.timeout) as AsyncGenerator<Change<T>, void, void>;
  }

  /** Read the context that the daemon associates with the caller. */
  async context(): Promise<Context> {
    const target = resolve(this.options);
    if (target.named) return { ...target.named, expires_at: null };
    const { body } = await request(target, { method: "GET", path: "/v1/context" }, this.options.timeout);
    const { success: _, ...context } = body;
    return context;
  }

  private async content(wanted: BucketRequest): Promise<any> {
    return (await this.send(wanted)).content;
  }

  private send(wanted: BucketRequest): Promise<BucketResponse> {
    return requestBucket(resolve(this.options), wanted, this.options.timeout);
  }
}

function queryOf(keys: readonly string[]): string[] {
  return keys.map((key) => `key=${quote(key, "key")}`);
}

function contentType(patch: "merge-patch" | "json-patch"): Record<string, string> {
  return { "Content-Type": `application/${patch}+json` };
}

/** Wait a random time, longer from round to round, so that competing writers separate. */
function backOff(round: number): Promise<void> {
  const max = Math.min(100, 2 ** Math.min(round, 7));
  return sleep(Math.random() * max);
}
