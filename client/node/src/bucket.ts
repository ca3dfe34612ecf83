import { sleep } from "./clock.js";
import { locateErrors, located } from "./call-site.js";
import { type BucketOptions, type LiveHold, type Target, heldTarget, quote, resolve } from "./context.js";
import { InvalidRequestError, PreconditionFailedError } from "./errors.js";
import { Hold, holdArguments, refresh } from "./hold.js";
import { history, readingAt, undoing } from "./history.js";
import { encode, encodeObject } from "./json.js";
import { type AnyWriteOptions, defaultsQuery, preconditionHeaders, splitOptions, writeHeaders } from "./preconditions.js";
import { type BucketRequest, type BucketResponse, request, requestBucket, requestMinimal } from "./request.js";
import type {
  AnyBucket,
  Change,
  Context,
  Held,
  HistoryEntry,
  HistoryOptions,
  HoldOptions,
  JsonPatchOperation,
  MinimalWriteOptions,
  Precondition,
  ReadOptions,
  RefreshOptions,
  RuntimeSignal,
  Snapshot,
  WatchOptions,
  WriteOptions,
  WriteSuccess,
} from "./types.js";
import { warn } from "./warnings.js";
import { watch } from "./watch.js";

export type { BucketOptions } from "./context.js";

const MAX_ROUNDS = 200;

/**
 * One bucket as plain objects; every method rejects with a BucketError.
 *
 * Without options the context comes from the environment, read at each call. `T` is the type of
 * the bucket once it is written; before its first write the bucket is `{}`. `D` is its type once
 * defaults have completed it.
 */
export class Bucket<T extends object = AnyBucket, D extends object = T> {
  private readonly options: BucketOptions;

  constructor(options: BucketOptions = {}) {
    this.options = { ...options };
  }

  /**
   * Read the bucket, or only those of the named keys that are stored. Options follow the keys; with
   * `defaults` the daemon adds the keys that the bucket lacks and its schema has a default for.
   */
  get(): Promise<T>;
  get(options: { defaults: true }): Promise<D>;
  get(options: ReadOptions): Promise<T | D>;
  get<K extends keyof T & string>(...keys: K[]): Promise<Partial<Pick<T, K>>>;
  get<K extends keyof T & keyof D & string>(...keysAndOptions: [...K[], { defaults: true }]): Promise<Pick<D, K>>;
  async get(...given: unknown[]): Promise<unknown> {
    const [keys, options] = splitOptions<ReadOptions>(given);
    const query = [...queryOf(keys), ...defaultsQuery(options, "read the bucket")];
    return this.content({ method: "GET", query });
  }

  /** Read the value of one key; `fallback`, or undefined, if the bucket does not have it. */
  value<K extends keyof T & string>(key: K): Promise<T[K] | undefined>;
  value<K extends keyof T & string, V>(key: K, fallback: V): Promise<Exclude<T[K], undefined> | V>;
  async value(key: string, fallback?: unknown): Promise<unknown> {
    const found = await this.content({ method: "GET", query: queryOf([key]) });
    return Object.hasOwn(found, key) ? found[key] : fallback;
  }

  /** Merge shallowly; resolve to the whole bucket, or to its revision with `returning: false`. */
  set(data: Partial<T>, options?: WriteOptions): Promise<T>;
  set(data: Partial<T>, options: MinimalWriteOptions): Promise<WriteSuccess>;
  async set(data: Partial<T>, options?: AnyWriteOptions): Promise<unknown> {
    const verb = "set the bucket";
    return this.write(verb, { method: "PATCH", body: encodeObject(data, verb) }, options);
  }

  /** Replace the whole bucket by `data`. */
  replace(data: T, options?: WriteOptions): Promise<T>;
  replace(data: T, options: MinimalWriteOptions): Promise<WriteSuccess>;
  async replace(data: T, options?: AnyWriteOptions): Promise<unknown> {
    const verb = "replace the bucket";
    return this.write(verb, { method: "PUT", body: encodeObject(data, verb) }, options);
  }

  /** Remove the named keys, at least one; resolve to the remaining bucket. Options follow the keys. */
  remove(...keys: (keyof T & string)[]): Promise<T>;
  remove(...keysAndOptions: [...(keyof T & string)[], WriteOptions]): Promise<T>;
  remove(...keysAndOptions: [...(keyof T & string)[], MinimalWriteOptions]): Promise<WriteSuccess>;
  async remove(...given: unknown[]): Promise<unknown> {
    const [keys, options] = splitOptions<AnyWriteOptions>(given);
    // Without this check, spreading an empty list would delete the whole bucket.
    if (keys.length === 0) {
      throw new InvalidRequestError("cannot remove keys: none is named; clear() removes the whole bucket");
    }
    return this.write("remove keys", { method: "DELETE", query: queryOf(keys) }, options);
  }

  /** Remove the whole bucket. */
  async clear(options?: Precondition): Promise<void> {
    await this.send({ method: "DELETE", headers: preconditionHeaders(options, "clear the bucket") });
  }

  /** Merge deeply by RFC 7396: objects are merged, `null` removes a key. */
  mergePatch(patch: object, options?: WriteOptions): Promise<T>;
  mergePatch(patch: object, options: MinimalWriteOptions): Promise<WriteSuccess>;
  async mergePatch(patch: object, options?: AnyWriteOptions): Promise<unknown> {
    const verb = "merge into the bucket";
    const headers = contentType("merge-patch");
    return this.write(verb, { method: "PATCH", body: encodeObject(patch, verb), headers }, options);
  }

  /** Apply a JSON Patch (RFC 6902), all operations or none. */
  jsonPatch(operations: readonly JsonPatchOperation[], options?: WriteOptions): Promise<T>;
  jsonPatch(operations: readonly JsonPatchOperation[], options: MinimalWriteOptions): Promise<WriteSuccess>;
  async jsonPatch(operations: readonly JsonPatchOperation[], options?: AnyWriteOptions): Promise<unknown> {
    const verb = "patch the bucket";
    const headers = contentType("json-patch");
    return this.write(verb, { method: "PATCH", body: encode(operations, verb), headers }, options);
  }

  /** Read the bucket with its revision, and with the ETag that a conditional write compares. */
  async snapshot(): Promise<Snapshot<T>> {
    return this.current();
  }

  /**
   * Read the bucket, let `change` modify it (or return another object), and write the result back
   * if nobody wrote in between; otherwise start again. `change` may therefore run several times.
   */
  update(change: (bucket: T) => T | void | Promise<T | void>, options?: { returning?: true | undefined }): Promise<T>;
  update(change: (bucket: T) => T | void | Promise<T | void>, options: { returning: false }): Promise<WriteSuccess>;
  async update(
    change: (bucket: T) => T | void | Promise<T | void>,
    options: { returning?: boolean | undefined } = {},
  ): Promise<unknown> {
    for (let round = 1; ; round++) {
      const { bucket, etag } = await this.current();
      const body = encodeObject((await change(bucket)) ?? bucket, "update the bucket");
      try {
        const guarded = { ...options, ifMatch: etag } as AnyWriteOptions;
        return await this.write("update the bucket", { method: "PUT", body }, guarded);
      } catch (error) {
        if (!(error instanceof PreconditionFailedError) || round >= MAX_ROUNDS) throw error;
      }
      await backOff(round);
    }
  }

  /** Read the last changes, the newest first: revision, time, who, and which keys. */
  async history(options?: HistoryOptions): Promise<HistoryEntry[]> {
    return history(this.target(), options, this.options.timeout);
  }

  /**
   * Take one change back, the last one or that of a revision, and no other; of a bucket that was
   * deleted that is its deletion. Rejects with the code `undo_conflict` if a later change has touched
   * one of its keys.
   */
  undo(revision?: number, options?: WriteOptions): Promise<T>;
  undo(revision: number | undefined, options: MinimalWriteOptions): Promise<WriteSuccess>;
  async undo(revision?: number, options?: AnyWriteOptions): Promise<unknown> {
    return this.write("undo", undoing(this.target(), revision), options);
  }

  /** Read the bucket as it was at a revision. */
  async at(revision: number): Promise<T> {
    return this.content(readingAt(revision));
  }

  /**
   * Iterate over every later change by any client: `for await (const change of bucket.watch())`.
   *
   * The iteration waits for a daemon that restarts and continues after the last change. If the
   * daemon no longer has the changes in between, a change with `gap` holds the whole bucket.
   * Rejects with NoJobContextError once the token is revoked or expired.
   */
  async *watch(options: WatchOptions = {}): AsyncGenerator<Change<T>, void, void> {
    try {
      yield* watch(this.target(), options, this.options.timeout) as AsyncGenerator<Change<T>, void, void>;
    } catch (error) {
      throw located(error, this.watch);
    }
  }

  /**
   * Be the only one who holds this bucket (of a device bucket: its device) while `work` runs.
   *
   * Resolves to what `work` returns, and releases the hold however `work` ends. Rejects with
   * HeldError if the hold is not had within `wait` seconds, or with the reason of `signal`.
   * Without `work` it resolves to the held bucket, until whose `release()` the hold lasts.
   */
  hold(options?: HoldOptions): Promise<HeldBucket<T, D>>;
  hold<R>(work: (held: HeldBucket<T, D>) => R | PromiseLike<R>): Promise<R>;
  hold<R>(options: HoldOptions | undefined, work: (held: HeldBucket<T, D>) => R | PromiseLike<R>): Promise<R>;
  async hold(...given: unknown[]): Promise<unknown> {
    const [options, work] = holdArguments(given);
    const target = this.target();
    const hold = await Hold.take(target, options, this.options.timeout);
    const held = new HeldBucket<T, D>(this.options, heldTarget(target, hold), hold);
    if (work) return hold.run(() => work(held));
    hold.unref();
    return held;
  }

  /**
   * Resolve to the bucket if it is `fresh`; otherwise set what `login` returns, one program at a time.
   *
   * The bucket is held for that and read again, so of many programs one logs in and the others get
   * what it stored. After a `login` that fails, nothing has changed and the next one tries.
   */
  async refresh(
    fresh: (bucket: T) => boolean | PromiseLike<boolean>,
    login: (bucket: T, signal: RuntimeSignal) => Partial<T> | PromiseLike<Partial<T>>,
    options?: RefreshOptions,
  ): Promise<T> {
    const target = this.target();
    const response = await refresh(target, fresh, login, options, this.options.timeout);
    warn(target.path, response.body.warnings);
    return response.content as T;
  }

  /** Read the context that the daemon associates with the caller. */
  async context(): Promise<Context> {
    const target = this.target();
    if (target.named) return { ...target.named, expires_at: null };
    const { body } = await request(target, { method: "GET", path: "/v1/context" }, this.options.timeout);
    const { success: _, ...context } = body;
    return context;
  }

  /** Return the bucket that the next call addresses. */
  protected target(): Target {
    return resolve(this.options);
  }

  private async current(): Promise<Snapshot<T>> {
    const { body, etag, content } = await this.send({ method: "GET" });
    const found: Snapshot<T> = { bucket: content as T, revision: body.revision, etag };
    if (body.stale_seconds !== undefined) found.stale_seconds = body.stale_seconds;
    return found;
  }

  private async write(verb: string, wanted: BucketRequest, options: AnyWriteOptions | undefined): Promise<unknown> {
    const headers = { ...wanted.headers, ...writeHeaders(options, verb) };
    if (options?.returning !== false) return this.content({ ...wanted, headers });
    const target = this.target();
    const result = await requestMinimal(target, { ...wanted, headers }, this.options.timeout);
    warn(target.path, result.warnings);
    return result;
  }

  private async content(wanted: BucketRequest): Promise<any> {
    return (await this.send(wanted)).content;
  }

  private async send(wanted: BucketRequest): Promise<BucketResponse> {
    const target = this.target();
    const response = await requestBucket(target, wanted, this.options.timeout);
    warn(target.path, response.body.warnings);
    return response;
  }
}

locateErrors(Bucket.prototype, [
  "get", "value", "set", "replace", "remove", "clear", "mergePatch", "jsonPatch", "snapshot", "update", "history", "undo", "at", "hold", "refresh", "context",
]);

/** A bucket while it is held: each write passes only as long as the hold lasts. */
export class HeldBucket<T extends object = AnyBucket, D extends object = T> extends Bucket<T, D> implements Held {
  readonly id: string;
  readonly fence: string;
  readonly name: string;
  readonly since: string;
  readonly signal: RuntimeSignal;
  declare readonly [Symbol.asyncDispose]: () => Promise<void>;

  /** @internal */
  constructor(options: BucketOptions, private readonly pinned: Target, private readonly ownHold: LiveHold) {
    super(options);
    this.signal = ownHold.signal;
    ({ id: this.id, fence: this.fence, name: this.name, since: this.since } = ownHold.event);
  }

  /** End the hold; every later call of this object rejects with HoldLostError. */
  release(): Promise<void> {
    return this.ownHold.release();
  }

  protected override target(): Target {
    return this.pinned;
  }
}

// Older runtimes have no such symbol.
if (Symbol.asyncDispose) {
  Object.defineProperty(HeldBucket.prototype, Symbol.asyncDispose, { value: HeldBucket.prototype.release });
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
