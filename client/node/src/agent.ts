import { type Target, heldTarget, resolve } from "./context.js";
import { BucketError } from "./errors.js";
import { Hold, holdArguments, refresh } from "./hold.js";
import { history, readingAt, undoing } from "./history.js";
import { encodeObject, nameOfError } from "./json.js";
import { type AnyWriteOptions, defaultsQuery, writeHeaders } from "./preconditions.js";
import { type BucketRequest, requestBucket, requestMinimal } from "./request.js";
import type {
  BucketData,
  BucketDataWithDefaults,
  BucketResult,
  DeviceBucketData,
  DeviceBucketResult,
  Failure,
  Held,
  HistoryOptions,
  HistoryResult,
  HoldOptions,
  HoldResult,
  HoldValueResult,
  ReadOptions,
  RefreshOptions,
  RuntimeSignal,
  WatchOptions,
  WatchResult,
  WriteResult,
} from "./types.js";
import { watch } from "./watch.js";

/**
 * The bucket of the environment's (device, job). Never rejects: look at `success`. Only what your
 * own functions throw in `hold` and `refresh` is thrown on.
 */
export interface AgentBucket {
  /** Read the stored bucket; `{}` if there is none yet. */
  get(): Promise<BucketResult>;
  /** Read the bucket with the defaults of its schema for the keys that it lacks. */
  get(options: { defaults: true }): Promise<BucketResult<BucketDataWithDefaults>>;
  get(options: ReadOptions): Promise<BucketResult<BucketData | BucketDataWithDefaults>>;
  /** Merge shallowly: keys not named stay, `null` is a value. The result holds the whole bucket. */
  set(data: Partial<BucketData>, options?: { returning?: true | undefined }): Promise<BucketResult>;
  /** Merge shallowly; the result holds the revision, but not the bucket. */
  set(data: Partial<BucketData>, options: { returning: false }): Promise<WriteResult>;
  /** Read the last changes, the newest first. */
  history(options?: HistoryOptions): Promise<HistoryResult>;
  /** Take one change back, the last one or that of a revision. */
  undo(revision?: number): Promise<BucketResult>;
  /** Read the bucket as it was at a revision. */
  at(revision: number): Promise<BucketResult>;
  /** Iterate over every later change by any client; a failure is the last item. */
  watch(options?: WatchOptions): AsyncGenerator<WatchResult<BucketData>, void, void>;
  /** Be the only one who holds the bucket, until `held.release()`. */
  hold(options?: HoldOptions): Promise<HoldResult<AgentHeldBucket>>;
  /** Be the only one who holds the bucket while `work` runs; the result holds what it returns. */
  hold<R>(work: (held: AgentHeldBucket) => R | PromiseLike<R>): Promise<HoldValueResult<R>>;
  hold<R>(options: HoldOptions | undefined, work: (held: AgentHeldBucket) => R | PromiseLike<R>): Promise<HoldValueResult<R>>;
  /** Read the bucket and, unless it is `fresh`, set what `login` returns, one program at a time. */
  refresh(
    fresh: (bucket: BucketData) => boolean | PromiseLike<boolean>,
    login: (bucket: BucketData, signal: RuntimeSignal) => Partial<BucketData> | PromiseLike<Partial<BucketData>>,
    options?: RefreshOptions,
  ): Promise<BucketResult>;
}

/** The bucket of the environment's device, shared by its jobs. Never rejects, as AgentBucket. */
export interface AgentDeviceBucket {
  get(): Promise<DeviceBucketResult>;
  set(data: Partial<DeviceBucketData>, options?: { returning?: true | undefined }): Promise<DeviceBucketResult>;
  set(data: Partial<DeviceBucketData>, options: { returning: false }): Promise<WriteResult>;
  history(options?: HistoryOptions): Promise<HistoryResult>;
  undo(revision?: number): Promise<DeviceBucketResult>;
  at(revision: number): Promise<DeviceBucketResult>;
  watch(options?: WatchOptions): AsyncGenerator<WatchResult<DeviceBucketData>, void, void>;
  /** Hold the whole device: nobody else holds it or one of its jobs. */
  hold(options?: HoldOptions): Promise<HoldResult<AgentHeldDeviceBucket>>;
  hold<R>(work: (held: AgentHeldDeviceBucket) => R | PromiseLike<R>): Promise<HoldValueResult<R>>;
  hold<R>(options: HoldOptions | undefined, work: (held: AgentHeldDeviceBucket) => R | PromiseLike<R>): Promise<HoldValueResult<R>>;
  refresh(
    fresh: (deviceBucket: DeviceBucketData) => boolean | PromiseLike<boolean>,
    login: (deviceBucket: DeviceBucketData, signal: RuntimeSignal) => Partial<DeviceBucketData> | PromiseLike<Partial<DeviceBucketData>>,
    options?: RefreshOptions,
  ): Promise<DeviceBucketResult>;
}

/** The bucket while it is held: a write passes only as long as the hold lasts. */
export interface AgentHeldBucket extends AgentBucket, Held {}

/** The device bucket while its device is held. */
export interface AgentHeldDeviceBucket extends AgentDeviceBucket, Held {}

export interface Agent {
  utils: {
    bucket: AgentBucket;
    deviceBucket: AgentDeviceBucket;
  };
}

/** The automation's own view; the environment names its context, read at each call. */
export const agent: Agent = {
  utils: {
    bucket: bucketAt(() => resolve({ deviceBucket: false })),
    deviceBucket: bucketAt(() => resolve({ deviceBucket: true })),
  },
};

/** Return the methods of the bucket that `locate` finds at each call. */
function bucketAt(locate: () => Target): any {
  return {
    get: (options?: ReadOptions) => read(locate, options),
    set: (data: unknown, options?: AnyWriteOptions) => merge(locate, data, options),
    history: (options?: HistoryOptions) =>
      resultOf(async () => ({ success: true, history: await history(locate(), options) })),
    undo: (revision?: number) => resultOf(() => whole(locate(), (target) => undoing(target, revision))),
    at: (revision: number) => resultOf(() => whole(locate(), () => readingAt(revision))),
    watch: (options?: WatchOptions) => changes(locate, options),
    hold: (...given: unknown[]) => hold(locate, given),
    refresh: (fresh: any, login: any, options?: RefreshOptions) => refreshed(locate, fresh, login, options),
  };
}

function read(locate: () => Target, options: ReadOptions | undefined): Promise<unknown> {
  return resultOf(() => {
    const target = locate();
    const query = defaultsQuery(options, "read the bucket");
    return requestBucket(target, { method: "GET", query }).then(({ body }) => body);
  });
}

/** Make a request, and return the whole response. */
async function whole(target: Target, wantedOf: (target: Target) => BucketRequest): Promise<unknown> {
  return (await requestBucket(target, wantedOf(target))).body;
}

function merge(locate: () => Target, data: unknown, options: AnyWriteOptions | undefined): Promise<unknown> {
  const verb = "set the bucket";
  return resultOf(() => {
    const target = locate();
    const wanted: BucketRequest = { method: "PATCH", body: encodeObject(data, verb), headers: writeHeaders(options, verb) };
    return options?.returning === false
      ? requestMinimal(target, wanted)
      : requestBucket(target, wanted).then(({ body }) => body);
  });
}

async function hold(locate: () => Target, given: unknown[]): Promise<unknown> {
  const result = await take(locate, given);
  if (!result.success) return result;
  const { target, taken, work } = result;
  const held = heldBucketAt(target, taken);
  if (work) return { success: true, value: await taken.run(() => work(held)) };
  taken.unref();
  return { success: true, held };
}

interface Taken {
  readonly success: true;
  readonly target: Target;
  readonly taken: Hold;
  readonly work: ((held: any) => unknown) | undefined;
}

async function take(locate: () => Target, given: unknown[]): Promise<Taken | Failure> {
  let options: HoldOptions = {};
  let work: Taken["work"];
  try {
    [options, work] = holdArguments(given);
    const target = locate();
    return { success: true, target, taken: await Hold.take(target, options), work };
  } catch (error) {
    return holdFailure(error, options);
  }
}

function heldBucketAt(target: Target, taken: Hold): any {
  const { id, fence, name, since } = taken.event;
  const release = () => taken.release();
  const pinned = heldTarget(target, taken);
  const held = { ...bucketAt(() => pinned), id, fence, name, since, signal: taken.signal, release };
  // Older runtimes have no such symbol.
  return Symbol.asyncDispose ? Object.assign(held, { [Symbol.asyncDispose]: release }) : held;
}

async function refreshed(locate: () => Target, fresh: any, login: any, options: RefreshOptions = {}): Promise<unknown> {
  try {
    return (await refresh(locate(), fresh, login, options)).body;
  } catch (error) {
    return holdFailure(error, options);
  }
}

/** Return the result of `call`, or its failure as a result. */
async function resultOf(call: () => unknown): Promise<unknown> {
  try {
    return await call();
  } catch (error) {
    return failure(error);
  }
}

async function* changes(locate: () => Target, options: WatchOptions = {}): AsyncGenerator<WatchResult<any>, void, void> {
  try {
    for await (const change of watch(locate(), options)) yield { success: true, ...change };
  } catch (error) {
    yield failure(error);
  }
}

/** Return the failure of a hold; throw on what the caller's own function has thrown. */
function holdFailure(error: unknown, options: HoldOptions): Failure {
  if (error instanceof BucketError) return failure(error);
  if (!options.signal?.aborted) throw error;
  return { success: false, error: "cannot hold the bucket: its signal was aborted", code: "aborted" };
}

function failure(error: unknown): Failure {
  if (!(error instanceof BucketError)) {
    return { success: false, error: `cannot use the bucket: unexpected ${nameOfError(error)}`, code: "internal" };
  }
  const { message, code, details } = error;
  return { success: false, error: message, code, ...(details && { details }) };
}
