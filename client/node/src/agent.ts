import { resolve } from "./context.js";
import { BucketError } from "./errors.js";
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
  ReadOptions,
  WatchOptions,
  WatchResult,
  WriteResult,
} from "./types.js";
import { watch } from "./watch.js";

/** The bucket of the environment's (device, job). Never rejects: look at `success`. */
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
  /** Iterate over every later change by any client; a failure is the last item. */
  watch(options?: WatchOptions): AsyncGenerator<WatchResult<BucketData>, void, void>;
}

/** The bucket of the environment's device, shared by its jobs. Never rejects. */
export interface AgentDeviceBucket {
  get(): Promise<DeviceBucketResult>;
  set(data: Partial<DeviceBucketData>, options?: { returning?: true | undefined }): Promise<DeviceBucketResult>;
  set(data: Partial<DeviceBucketData>, options: { returning: false }): Promise<WriteResult>;
  watch(options?: WatchOptions): AsyncGenerator<WatchResult<DeviceBucketData>, void, void>;
}

export interface Agent {
  utils: {
    bucket: AgentBucket;
    deviceBucket: AgentDeviceBucket;
  };
}

/** The automation's own view; the environment names its context, read at each call. */
export const agent: Agent = {
  utils: {
    bucket: {
      get: (options?: ReadOptions) => read(false, options),
      set: (data: unknown, options?: AnyWriteOptions) => merge(false, data, options),
      watch: (options) => changes(false, options),
    },
    deviceBucket: {
      get: () => read(true),
      set: (data: unknown, options?: AnyWriteOptions) => merge(true, data, options),
      watch: (options) => changes(true, options),
    },
  },
};

function read(deviceBucket: boolean, options?: ReadOptions): Promise<any> {
  return resultOf(() => {
    const target = resolve({ deviceBucket });
    const query = defaultsQuery(options, "read the bucket");
    return requestBucket(target, { method: "GET", query }).then(({ body }) => body);
  });
}

function merge(deviceBucket: boolean, data: unknown, options: AnyWriteOptions | undefined): Promise<any> {
  const verb = "set the bucket";
  return resultOf(() => {
    const target = resolve({ deviceBucket });
    const wanted: BucketRequest = { method: "PATCH", body: encodeObject(data, verb), headers: writeHeaders(options, verb) };
    return options?.returning === false
      ? requestMinimal(target, wanted)
      : requestBucket(target, wanted).then(({ body }) => body);
  });
}

/** Return the result of `call`, or its failure as a result. */
async function resultOf(call: () => unknown): Promise<unknown> {
  try {
    return await call();
  } catch (error) {
    return failure(error);
  }
}

async function* changes(deviceBucket: boolean, options: WatchOptions = {}): AsyncGenerator<WatchResult<any>, void, void> {
  try {
    for await (const change of watch(resolve({ deviceBucket }), options)) yield { success: true, ...change };
  } catch (error) {
    yield failure(error);
  }
}

function failure(error: unknown): Failure {
  if (!(error instanceof BucketError)) {
    return { success: false, error: `cannot use the bucket: unexpected ${nameOfError(error)}`, code: "internal" };
  }
  const { message, code, details } = error;
  return { success: false, error: message, code, ...(details && { details }) };
}
