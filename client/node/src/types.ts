import type { ErrorCode } from "./codes.js";

/**
 * The types of this program's buckets. Fill this empty interface by augmentation, and
 * `agent.utils` is typed without a cast:
 *
 *     declare module "bucketd-client" {
 *       interface BucketTypes { bucket: LoginBucket; deviceBucket: PhoneBucket }
 *     }
 */
export interface BucketTypes {}

/** Options of a read. */
export interface ReadOptions {
  /** Add the keys that the bucket lacks and its schema has a default for; nothing is stored. */
  defaults?: boolean | undefined;
}

/** A bucket of unknown type: string keys, any JSON. */
export type AnyBucket = Record<string, any>;

/** The type of the (device, job) bucket: from `BucketTypes`, else any JSON. */
export type BucketData = BucketTypes extends { bucket: infer B } ? B : AnyBucket;

/** The type of the (device, job) bucket once defaults have completed it. */
export type BucketDataWithDefaults = BucketTypes extends { bucketWithDefaults: infer B } ? B : BucketData;

/** The type of the device bucket: from `BucketTypes`, else any JSON. */
export type DeviceBucketData = BucketTypes extends { deviceBucket: infer B } ? B : AnyBucket;

/** The last good generation that replaced an unreadable file. */
export interface RecoveredFrom {
  revision: number;
  reason: string;
}

/** One violation: `path` is a JSON Pointer into the bucket. */
export interface Detail {
  path?: string;
  message?: string;
  keyword?: string;
  [more: string]: any;
}

export interface BucketSuccess<T = BucketData> {
  success: true;
  /** The whole bucket; `{}` when none is stored. */
  bucket: T;
  /** 1 when created, one more with every change; 0 when no bucket is stored. */
  revision: number;
  recovered_from?: RecoveredFrom;
  /** What stood in the bucket before this write and violates its schema, which tolerates it. */
  warnings?: Detail[];
  /** The maximum age of this copy, when the daemon could not ask its cluster for a newer one. */
  stale_seconds?: number;
}

export interface DeviceBucketSuccess<T = DeviceBucketData> {
  success: true;
  /** The whole device bucket; `{}` when none is stored. */
  deviceBucket: T;
  /** 1 when created, one more with every change; 0 when no bucket is stored. */
  revision: number;
  recovered_from?: RecoveredFrom;
  /** What stood in the bucket before this write and violates its schema, which tolerates it. */
  warnings?: Detail[];
  /** The maximum age of this copy, when the daemon could not ask its cluster for a newer one. */
  stale_seconds?: number;
}

export interface Failure {
  success: false;
  /** One sentence a person can act on. */
  error: string;
  /** The code to branch on, such as `no_job_context`; `aborted` is that of a signal. */
  code: ErrorCode | "aborted";
  details?: Detail[];
}

/** The result of a write with `returning: false`: without the bucket. */
export interface WriteSuccess {
  success: true;
  /** The revision after the write; 0 when no bucket is stored. */
  revision: number;
  recovered_from?: RecoveredFrom;
  /** What stood in the bucket before this write and violates its schema, which tolerates it. */
  warnings?: Detail[];
}

export type WriteResult = WriteSuccess | Failure;
export type BucketResult<T = BucketData> = BucketSuccess<T> | Failure;
export type DeviceBucketResult<T = DeviceBucketData> = DeviceBucketSuccess<T> | Failure;

/** The right to use one bucket, as the daemon sees it. */
export interface Context {
  device: string;
  /** null for a context of the device bucket alone. */
  job: string | null;
  automation: string | null;
  /** The label of the run; absent when the context is named by a trusted caller. */
  label?: string | null;
  /** RFC 3339, UTC; null when the context is named by a trusted caller and never expires. */
  expires_at: string | null;
  /** Whether a schema applies; absent when the context is named by a trusted caller. */
  schema?: boolean;
}

/** A bucket with the ETag for conditional writes; `etag` is null when no bucket is stored. */
export interface Snapshot<T = AnyBucket> {
  bucket: T;
  revision: number;
  etag: string | null;
  /** The maximum age of this copy, when the daemon could not ask its cluster for a newer one. */
  stale_seconds?: number;
}

/** The precondition of a write. */
export interface Precondition {
  /**
   * The `etag` of a snapshot: the write is refused with PreconditionFailedError if the bucket has
   * changed since. `null`, as in the snapshot of a bucket that is not stored: if there is one now.
   */
  ifMatch?: string | null | undefined;
}

/** Options of a write that resolves to the bucket. */
export interface WriteOptions extends Precondition {
  returning?: true | undefined;
}

/** Options of a write that resolves without the bucket: the daemon does not send a large one back. */
export interface MinimalWriteOptions extends Precondition {
  returning: false;
}

/** Who made a change; `edit` is true for another program, which has written the file. */
export interface Author {
  user?: string;
  /** The id of the context. */
  context?: string;
  device?: string;
  job?: string;
  automation?: string;
  /** The label of the run. */
  run?: string;
  edit?: true;
}

/** One change in the history of a bucket. */
export interface HistoryEntry {
  revision: number;
  /** RFC 3339, UTC, as the wall clock said; the order is that of the revisions. */
  at: string;
  etag: string | null;
  by: Author;
  /** The keys that it set. */
  set: string[];
  removed: string[];
  /** The revision that it took back. */
  undoes?: number;
  /** With `values`: the earlier values of the keys in `set` and `removed`. */
  before?: Record<string, any>;
  /** False if another program replaced a state that the daemon did not know. */
  before_known?: false;
}

export interface HistoryOptions {
  /** The number of changes, the newest first; null for all that are kept. Default: 50. */
  limit?: number | null | undefined;
  /** Have the earlier values of the changed keys, as `before`. */
  values?: boolean | undefined;
}

export type HistoryResult = { success: true; history: HistoryEntry[] } | Failure;

/** One change of a bucket, made by any client. */
export interface Change<T = AnyBucket> {
  device: string;
  /** null for a device bucket. */
  job: string | null;
  /** 0 once the bucket is deleted. */
  revision: number;
  /** The keys that changed, with their new values. */
  set: Partial<T>;
  removed: string[];
  /** `watch({ since: id })` continues after this change, also in another process. */
  id: string;
  /**
   * True if the changes before are unknown; `set` is then the whole current bucket, and keys that
   * are not in it have been removed.
   */
  gap: boolean;
}

export type WatchResult<T = AnyBucket> = ({ success: true } & Change<T>) | Failure;

/** The part of an AbortSignal that is used. */
export interface Signal {
  readonly aborted: boolean;
  readonly reason?: any;
  addEventListener(type: "abort", listener: () => void): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

export interface WatchOptions {
  /** Report only changes of these keys. */
  keys?: readonly string[];
  /** Begin with the current bucket. */
  snapshot?: boolean;
  /** Continue after the change with this `id`. */
  since?: string;
  /** End the iteration, without an error. */
  signal?: Signal;
}

/** AbortSignal, where the types of the program have it. */
export type RuntimeSignal = typeof globalThis extends { AbortSignal: { prototype: infer S } } ? S : Signal;

export interface HoldOptions {
  /** Seconds to wait for the hold, 0 to 3600; default 60. */
  wait?: number | undefined;
  /** Holds of different names do not exclude each other. Default: the unnamed hold. */
  name?: string | undefined;
  /** Refuse writes by everybody else while the hold lasts; only of the unnamed hold. */
  exclusive?: boolean | undefined;
  /** A text for those who ask who holds it. */
  label?: string | undefined;
  /** End the wait, or release the hold. */
  signal?: Signal | undefined;
}

/** As HoldOptions; `name` is "login" and `wait` 300 by default. */
export interface RefreshOptions extends HoldOptions {}

/** What a hold adds to the bucket. */
export interface Held {
  readonly id: string;
  /** Guards the writes of a program that gets it as BUCKETD_FENCE. */
  readonly fence: string;
  /** "" for the unnamed hold. */
  readonly name: string;
  /** RFC 3339, UTC, for people. */
  readonly since: string;
  /** Aborts when the hold is lost; `reason` says why. */
  readonly signal: RuntimeSignal;
  /** End the hold; every later call on the held bucket fails with `hold_lost`. */
  release(): Promise<void>;
  /** As `release`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** The result of `hold` without a function. */
export type HoldResult<H> = { success: true; held: H } | Failure;

/** The result of `hold` with a function; `value` is what the function returned. */
export type HoldValueResult<R> = { success: true; value: R } | Failure;

declare global {
  interface SymbolConstructor {
    readonly asyncDispose: unique symbol;
  }
}

/** One step of a JSON Patch (RFC 6902). */
export type JsonPatchOperation =
  | { op: "add" | "replace" | "test"; path: string; value: any }
  | { op: "remove"; path: string }
  | { op: "move" | "copy"; from: string; path: string };
